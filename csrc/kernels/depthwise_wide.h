// CPU: one channel per group in NCHW with a stride about as wide as a vector or more, as in bilinear upsampling. The
// lanes of a vector are neighbouring taps, and neighbouring pixels of the large map. All pointers are of one plane.
#pragma once

#include <vector>

#include "convolution.h"
#include "simd.h"

namespace fastvision {
namespace {

template <class A>
bool has_wide_stride(const ConvolutionShape& s) {
  return 2 * s.stride_x >= kLanes<A> && s.dilation_x == 1 && !s.channels_last &&
         s.small_channels * s.large_channels == 1;
}

// Calls f(first tap, first pixel of the large map, how many) for the taps of each row that meet the large map from
// pixel (y, x) of the small one.
template <class F>
FV_HD void for_rows_of_window(const ConvolutionShape& s, int64_t y, int64_t x, F&& f) {
  const int64_t left = x * s.stride_x - s.padding_x, begin = max_of(-left, int64_t(0));
  const int64_t end = min_of(s.kernel_x, s.large_w - left);
  for (int64_t ky = 0; ky < s.kernel_y; ++ky) {
    const int64_t row = y * s.stride_y - s.padding_y + ky * s.dilation_y;
    if (row >= 0 && row < s.large_h && begin < end)
      f(ky * s.kernel_x + begin, row * s.large_w + left + begin, end - begin);
  }
}

// Rows [y0, y1) of a small map.
template <class T>
void gather_wide(const ConvolutionShape& s, int64_t y0, int64_t y1, const T* large, const Accum<T>* weight,
                 Accum<T> bias, T* small) {
  using A = Accum<T>;
  for (int64_t y = y0; y < y1; ++y)
    for (int64_t x = 0; x < s.small_w; ++x) {
      Vec<A> sum(A(0));
      for_rows_of_window(s, y, x, [&](int64_t tap, int64_t pixel, int64_t count) {
        int64_t i = 0;
        for (; i + kLanes<A> <= count; i += kLanes<A>)
          sum = multiply_add(load_vector(large + pixel + i), load_vector(weight + tap + i), sum);
        if (i < count)
          sum = multiply_add(load_vector(large + pixel + i, count - i), load_vector(weight + tap + i, count - i), sum);
      });
      small[y * s.small_w + x] = from_accum<T>(sum_of(sum) + bias);
    }
}

// Adds to the weights' gradient what one image has to say.
template <class T>
void product_wide(const ConvolutionShape& s, const T* small, const T* large, Accum<T>* sums) {
  using A = Accum<T>;
  for (int64_t y = 0; y < s.small_h; ++y)
    for (int64_t x = 0; x < s.small_w; ++x) {
      const Vec<A> here(to_accum(small[y * s.small_w + x]));
      for_rows_of_window(s, y, x, [&](int64_t tap, int64_t pixel, int64_t count) {
        int64_t i = 0;
        for (; i + kLanes<A> <= count; i += kLanes<A>)
          store_vector(sums + tap + i, multiply_add(here, load_vector(large + pixel + i), load_vector(sums + tap + i)));
        for (; i < count; ++i) sums[tap + i] = multiply_add(here[0], to_accum(large[pixel + i]), sums[tap + i]);
      });
    }
}

// Rows [y0, y1) of a large map. The pixels that belong to a column j of the small map have the same source pixels.
template <class T>
void scatter_wide(const ConvolutionShape& s, int64_t y0, int64_t y1, const T* small, const Accum<T>* weight,
                  Accum<T> bias, T* large) {
  using A = Accum<T>;
  struct Source {
    const T* row;
    int64_t shift, lanes;  // lanes: that have a weight
    Vec<A> weight;
  };
  const int64_t shifts = ceil_div(s.kernel_x, s.stride_x);
  std::vector<Source> sources(size_t(ceil_div(s.kernel_y, s.stride_y) * s.dilation_y * shifts));
  const int64_t begin = s.padding_x / s.stride_x, end = (s.large_w - 1 + s.padding_x) / s.stride_x + 1;
  for (int64_t y = y0; y < y1; ++y)
    for (int64_t r = 0; r < s.stride_x; r += kLanes<A>) {
      const int64_t lanes = min_of(kLanes<A>, s.stride_x - r), py = y + s.padding_y;
      const Taps taps = taps_at(py, s.stride_y, s.dilation_y, s.kernel_y);
      size_t count = 0;
      bool bilinear = true;  // two rows of two neighbours each
      for (int64_t ky = taps.first; ky < s.kernel_y && ky * s.dilation_y <= py; ky += taps.step) {
        const int64_t row = (py - ky * s.dilation_y) / s.stride_y;
        if (row >= s.small_h) continue;
        for (int64_t shift = 0, kx = r; kx < s.kernel_x; ++shift, kx += s.stride_x) {
          const int64_t there = min_of(lanes, s.kernel_x - kx);
          bilinear &= there == lanes && shift == int64_t(count % 2);
          const A* w = weight + ky * s.kernel_x + kx;
          sources[count++] = {small + row * s.small_w, shift, there,
                              there == kLanes<A> ? load_vector(w) : load_vector(w, there)};
        }
      }
      bilinear &= count == 4;
      T* const out = large + y * s.large_w;
      const auto pixels = [&](int64_t j, Vec<A> sum) {
        const int64_t x = j * s.stride_x + r - s.padding_x;
        if (x >= 0 && x + lanes <= s.large_w) {
          if (lanes == kLanes<A>) store_vector(out + x, sum);
          else store_vector(out + x, sum, lanes);
        } else {
          for (int64_t i = max_of(-x, int64_t(0)); i < min_of(lanes, s.large_w - x); ++i)
            out[x + i] = from_accum<T>(sum[int(i)]);
        }
      };
      for (int64_t j = begin; j < end; ++j) {
        Vec<A> sum(bias);
        if (bilinear && j >= 1 && j < s.small_w) {
          for (int i = 0; i < 4; ++i)
            sum = multiply_add(Vec<A>(to_accum(sources[i].row[j - i % 2])), sources[i].weight, sum);
        } else {
          for (size_t i = 0; i < count; ++i) {
            const Source& from = sources[i];
            const int64_t column = j - from.shift;
            if (column < 0 || column >= s.small_w) continue;
            const Vec<A> next = multiply_add(Vec<A>(to_accum(from.row[column])), from.weight, sum);
            sum = from.lanes == lanes ? next : Vec<A>(lanes_below<A>(from.lanes) ? next.raw : sum.raw);
          }
        }
        pixels(j, sum);
      }
    }
}

}  // namespace
}  // namespace fastvision
