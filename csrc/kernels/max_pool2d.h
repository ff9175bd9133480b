// Max pooling that remembers where each maximum was, as an int64 position (y * width + x) or as one byte: the number of
// the tap within its window.
#pragma once

#include "common.h"

namespace fastvision {

struct PoolGeometry {
  int64_t kernel_y, kernel_x, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
};

struct MaxPoolShape {
  int64_t planes, channels;  // channels of (planes, y, x, channels): 1 unless channels_last
  int64_t height, width, out_h, out_w;
  PoolGeometry g;

  FV_HD int64_t in_plane() const { return height * width * channels; }
  FV_HD int64_t out_row() const { return out_w * channels; }
  FV_HD int64_t out_plane() const { return out_h * out_row(); }
};

constexpr uint8_t kNoTap = 255;  // of a window without a pixel; the int64 position is -1

// The taps [begin, end) of a window that starts at `start` whose pixels lie in [0, size).
struct Taps {
  int64_t begin, end;
};
FV_HD Taps taps_inside(int64_t start, int64_t kernel, int64_t dilation, int64_t size) {
  const int64_t begin = start < 0 ? ceil_div(-start, dilation) : 0;
  const int64_t end = start < size ? ceil_div(size - start, dilation) : 0;
  return {begin, min_of(end, kernel)};
}

// Whether v takes the place of the maximum so far: of equals the first stays, of NaNs the last.
template <class A>
FV_HD bool becomes_maximum(A v, A best) {
  return v > best || v != v;
}

template <class T>
struct Maximum {
  Accum<T> value;
  int64_t tap;  // -1: none
};
template <class T>
FV_HD Maximum<T> maximum_at(const MaxPoolShape& s, const T* plane, int64_t oy, int64_t ox) {
  using A = Accum<T>;
  const int64_t y = oy * s.g.stride_y - s.g.padding_y, x = ox * s.g.stride_x - s.g.padding_x;
  const Taps rows = taps_inside(y, s.g.kernel_y, s.g.dilation_y, s.height);
  const Taps columns = taps_inside(x, s.g.kernel_x, s.g.dilation_x, s.width);
  Maximum<T> best{A(-__builtin_huge_val()), -1};
  for (int64_t ky = rows.begin; ky < rows.end; ++ky)
    for (int64_t kx = columns.begin; kx < columns.end; ++kx) {
      const A v = to_accum(plane[((y + ky * s.g.dilation_y) * s.width + x + kx * s.g.dilation_x) * s.channels]);
      if (best.tap < 0 || becomes_maximum(v, best.value)) best = {v, ky * s.g.kernel_x + kx};
    }
  return best;
}

// The stored form of a tap, and the position that it means.
FV_HD void store_tap(const MaxPoolShape&, int64_t, int64_t, int64_t tap, uint8_t* to) {
  *to = tap < 0 ? kNoTap : uint8_t(tap);
}
FV_HD int64_t position_of_tap(const PoolGeometry& g, int64_t width, int64_t oy, int64_t ox, int64_t tap) {
  return (oy * g.stride_y - g.padding_y + tap / g.kernel_x * g.dilation_y) * width + ox * g.stride_x - g.padding_x +
         tap % g.kernel_x * g.dilation_x;
}
FV_HD void store_tap(const MaxPoolShape& s, int64_t oy, int64_t ox, int64_t tap, int64_t* to) {
  *to = tap < 0 ? -1 : position_of_tap(s.g, s.width, oy, ox, tap);
}
// -1 for anything that is no pixel of the window: indices come from outside.
FV_HD int64_t stored_position(const MaxPoolShape& s, int64_t oy, int64_t ox, uint8_t tap) {
  const int64_t y = oy * s.g.stride_y - s.g.padding_y + tap / s.g.kernel_x * s.g.dilation_y;
  const int64_t x = ox * s.g.stride_x - s.g.padding_x + tap % s.g.kernel_x * s.g.dilation_x;
  const bool inside = tap < s.g.kernel_y * s.g.kernel_x && y >= 0 && y < s.height && x >= 0 && x < s.width;
  return inside ? y * s.width + x : -1;
}
FV_HD int64_t stored_position(const MaxPoolShape& s, int64_t oy, int64_t ox, int64_t position) {
  if (position < 0 || position >= s.height * s.width) return -1;
  const int64_t y = position / s.width - oy * s.g.stride_y + s.g.padding_y;
  const int64_t x = position % s.width - ox * s.g.stride_x + s.g.padding_x;
  const bool inside =
      y >= 0 && y <= (s.g.kernel_y - 1) * s.g.dilation_y && x >= 0 && x <= (s.g.kernel_x - 1) * s.g.dilation_x;
  return inside ? position : -1;
}

// The windows [begin, end) that may cover a pixel, along one axis.
FV_HD Taps windows_over(int64_t at, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
                        int64_t windows) {
  const int64_t last = (at + padding) / stride, before = at + padding - (kernel - 1) * dilation;
  return {before > 0 ? ceil_div(before, stride) : 0, min_of(last + 1, windows)};
}

// Twins. Index is uint8_t or int64_t. The backward writes all of grad_input and adds in the order of the windows.
template <class T, class Index, class Isa>
void max_pool2d(const MaxPoolShape&, const T* input, T* out, Index* index, const Cpu<Isa>&);
template <class T, class Index, class Isa>
void max_pool2d_backward(const MaxPoolShape&, const T* grad, const Index* index, T* grad_input, const Cpu<Isa>&);
template <class T, class Index>
void max_pool2d(const MaxPoolShape&, const T* input, T* out, Index* index, const CudaExec&);
template <class T, class Index>
void max_pool2d_backward(const MaxPoolShape&, const T* grad, const Index* index, T* grad_input, const CudaExec&);

}  // namespace fastvision
