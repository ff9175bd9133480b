// CPU: taps so far apart that the rows and columns between them would be many times the map. Each pixel by itself.
#pragma once

#include "convolution.h"
#include "simd.h"

namespace fastvision {
namespace {

inline bool is_far_apart(const ConvolutionShape& s) {
  return (s.kernel_y - 1) * s.dilation_y > 4 * (s.large_h + s.small_h) ||
         (s.kernel_x - 1) * s.dilation_x > 4 * (s.large_w + s.small_w);
}

// Channel `a` of a group's small map.
template <class T>
void gather_directly(const ConvolutionShape& s, int64_t n, int64_t group, int64_t a, const T* large,
                     const Accum<T>* weight, const Accum<T>* bias, T* small) {
  const MapLayout from = large_layout(s), to = small_layout(s);
  const int64_t channel = group * s.small_channels + a;
  for (int64_t y = 0; y < s.small_h; ++y)
    for (int64_t x = 0; x < s.small_w; ++x) {
      Accum<T> sum = bias ? bias[channel] : Accum<T>(0);
      for (int64_t i = 0; i < s.large_channels * s.taps(); ++i) {
        const int64_t b = i / s.taps(), row = y * s.stride_y - s.padding_y + i / s.kernel_x % s.kernel_y * s.dilation_y;
        const int64_t column = x * s.stride_x - s.padding_x + i % s.kernel_x * s.dilation_x;
        if (row < 0 || row >= s.large_h || column < 0 || column >= s.large_w) continue;
        sum += weight[s.weight(group, a, 0) + i] *
               to_accum(large[n * from.image + (group * s.large_channels + b) * from.channel + row * from.row +
                              column * from.column]);
      }
      small[n * to.image + channel * to.channel + y * to.row + x * to.column] = from_accum<T>(sum);
    }
}

// Channel `b` of a group's large map.
template <class T>
void scatter_directly(const ConvolutionShape& s, int64_t n, int64_t group, int64_t b, const T* small,
                      const Accum<T>* weight, const Accum<T>* bias, T* large) {
  const MapLayout from = small_layout(s), to = large_layout(s);
  const int64_t channel = group * s.large_channels + b;
  for (int64_t y = 0; y < s.large_h; ++y)
    for (int64_t x = 0; x < s.large_w; ++x) {
      Accum<T> sum = bias ? bias[channel] : Accum<T>(0);
      for (int64_t i = 0; i < s.taps(); ++i) {
        const int64_t down = y + s.padding_y - i / s.kernel_x * s.dilation_y;
        const int64_t right = x + s.padding_x - i % s.kernel_x * s.dilation_x;
        if (down < 0 || right < 0 || down % s.stride_y || right % s.stride_x) continue;
        const int64_t row = down / s.stride_y, column = right / s.stride_x;
        if (row >= s.small_h || column >= s.small_w) continue;
        for (int64_t a = 0; a < s.small_channels; ++a)
          sum += weight[s.weight(group, a, b) + i] *
                 to_accum(small[n * from.image + (group * s.small_channels + a) * from.channel + row * from.row +
                                column * from.column]);
      }
      large[n * to.image + channel * to.channel + y * to.row + x * to.column] = from_accum<T>(sum);
    }
}

}  // namespace
}  // namespace fastvision
