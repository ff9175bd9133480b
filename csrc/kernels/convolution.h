// Convolution between a large map and a small one: the small map (which convolution writes and transposed convolution
// reads) has a pixel per window of the large one. Three linear maps are enough for both ops and all their derivatives.
#pragma once

#include "common.h"

namespace fastvision {

struct ConvolutionShape {
  int64_t batch, groups, small_channels, large_channels;  // channels: of one group
  int64_t small_h, small_w, large_h, large_w;
  int64_t kernel_y, kernel_x, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
  bool channels_last;  // (batch, h, w, channels) instead of (batch, channels, h, w)
  bool weight_last;    // weights, not gradients by them, have their large channels last; only where is_dense, on CUDA
  bool tf32;           // CUDA: float32 factors may be rounded to tf32

  FV_HD int64_t taps() const { return kernel_y * kernel_x; }
  FV_HD int64_t weights() const { return groups * small_channels * large_channels * taps(); }
  FV_HD int64_t weight(int64_t group, int64_t small, int64_t large) const {  // the first tap
    return ((group * small_channels + small) * large_channels + large) * taps();
  }
};

// Where the elements of a map are.
struct MapLayout {
  int64_t channels, height, width;
  int64_t image, channel, row, column;  // strides
};
FV_HD MapLayout layout_of(bool channels_last, int64_t channels, int64_t h, int64_t w) {
  if (channels_last) return {channels, h, w, h * w * channels, 1, w * channels, channels};
  return {channels, h, w, h * w * channels, h * w, w, 1};
}
FV_HD MapLayout small_layout(const ConvolutionShape& s) {
  return layout_of(s.channels_last, s.groups * s.small_channels, s.small_h, s.small_w);
}
FV_HD MapLayout large_layout(const ConvolutionShape& s) {
  return layout_of(s.channels_last, s.groups * s.large_channels, s.large_h, s.large_w);
}

// The taps that meet a pixel of the large map at `position` (counted from the start of the padding): first, first +
// step and so on. They are the ones with (position - tap * dilation) a multiple of the stride, and make the pixels of
// one residue a dense convolution of the small map. A step of `kernel` or more means that there is no other.
struct Taps {
  int64_t first, step;
};
FV_HD Taps taps_at(int64_t position, int64_t stride, int64_t dilation, int64_t kernel) {
  if (dilation == 1) return {position % stride, stride};
  int64_t first = 0, step = 1;
  while (first < kernel && (position - first * dilation) % stride != 0) ++first;
  while (step < kernel && step * dilation % stride != 0) ++step;
  return {first, step};
}

inline int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -ceil_div(-a, b); }

// The pixels of an axis of the small map for which a tap meets the large one: pixel p meets p * stride + offset.
struct MetPixels {
  int64_t begin, end, offset;
  MetPixels(int64_t tap, int64_t stride, int64_t padding, int64_t dilation, int64_t small, int64_t large)
      : offset(tap * dilation - padding) {
    begin = max_of(-floor_div(offset, stride), int64_t(0));
    end = max_of(min_of(floor_div(large - 1 - offset, stride) + 1, small), begin);
  }
  int64_t count() const { return end - begin; }
};

// Twins. weight: (groups * small_channels, large_channels, kernel_y, kernel_x); bias: one number per channel of the
// result, or null. Pixels outside a map take no part: they are not zeros that are multiplied.
//   gather   small[a](y, x) = bias[a] + sum of weight[a][b](i, j) large[b](y s - p + i d, x s - p + j d)
//   scatter  large[b](y, x) = bias[b] + sum of weight[a][b](i, j) small[a]((y + p - i d) / s, (x + p - j d) / s)
//   product  weight[a][b](i, j) = sum over images and pixels of small[a](y, x) large[b](y s - p + i d, x s - p + j d)
template <class T, class Isa>
void convolution_gather(const ConvolutionShape&, const T* large, const T* weight, const T* bias, T* small,
                        const Cpu<Isa>&);
template <class T, class Isa>
void convolution_scatter(const ConvolutionShape&, const T* small, const T* weight, const T* bias, T* large,
                         const Cpu<Isa>&);
template <class T, class Isa>
void convolution_product(const ConvolutionShape&, const T* small, const T* large, T* weight, const Cpu<Isa>&);
template <class T>
void convolution_gather(const ConvolutionShape&, const T* large, const T* weight, const T* bias, T* small,
                        const CudaExec&);
template <class T>
void convolution_scatter(const ConvolutionShape&, const T* small, const T* weight, const T* bias, T* large,
                         const CudaExec&);
template <class T>
void convolution_product(const ConvolutionShape&, const T* small, const T* large, T* weight, const CudaExec&);

}  // namespace fastvision
