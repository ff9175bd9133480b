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

// The place along an axis of the source that tap k reads for place p of the result, or -1.
template <bool kGather>
int64_t source_place(int64_t p, int64_t k, int64_t stride, int64_t padding, int64_t dilation, int64_t size) {
  const int64_t at = kGather ? p * stride - padding + k * dilation : p + padding - k * dilation;
  if (kGather) return at >= 0 && at < size ? at : -1;
  return at >= 0 && at % stride == 0 && at / stride < size ? at / stride : -1;
}

template <bool kGather, class T, class Isa>
void convolve_directly(const ConvolutionShape& s, const T* source, const Accum<T>* weight, const Accum<T>* bias, T* out,
                       const Cpu<Isa>& exec) {
  const MapLayout large = large_layout(s), small = small_layout(s);
  const MapLayout from = kGather ? large : small, to = kGather ? small : large;
  const int64_t channels = to.channels / s.groups, source_channels = from.channels / s.groups;
  const auto pixel = [&](int64_t n, int64_t group, int64_t c, int64_t y, int64_t x) {
    Accum<T> sum = bias ? bias[group * channels + c] : Accum<T>(0);
    for (int64_t i = 0; i < s.taps(); ++i) {
      const int64_t row = source_place<kGather>(y, i / s.kernel_x, s.stride_y, s.padding_y, s.dilation_y, from.height);
      const int64_t column =
          source_place<kGather>(x, i % s.kernel_x, s.stride_x, s.padding_x, s.dilation_x, from.width);
      if (row < 0 || column < 0) continue;
      const T* p =
          source + n * from.image + group * source_channels * from.channel + row * from.row + column * from.column;
      for (int64_t b = 0; b < source_channels; ++b)
        sum += weight[s.weight(group, kGather ? c : b, kGather ? b : c) + i] * to_accum(p[b * from.channel]);
    }
    return from_accum<T>(sum);
  };
  exec(s.batch * to.channels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t n = k / to.channels, channel = k % to.channels;
      T* const plane = out + n * to.image + channel * to.channel;
      for (int64_t y = 0; y < to.height; ++y)
        for (int64_t x = 0; x < to.width; ++x)
          plane[y * to.row + x * to.column] = pixel(n, channel / channels, channel % channels, y, x);
    }
  });
}

}  // namespace
}  // namespace fastvision
