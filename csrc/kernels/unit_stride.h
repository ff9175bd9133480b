// CPU: dense convolutions with stride 1. The gradient by the input is one too, with the taps in the opposite order.
#pragma once

#include <utility>

#include "convolution.h"

namespace fastvision {
namespace {

struct UnitStrideShape {
  int64_t batch;
  MapLayout from, to;
  int64_t kernel_y, kernel_x, padding_y, padding_x, dilation_y, dilation_x;
  int64_t weight_by_result, weight_by_source;  // strides of the weights by channel
  bool flipped;                                // whether the taps are in the opposite order
  bool channels_last;

  int64_t taps() const { return kernel_y * kernel_x; }
  MetPixels rows(int64_t tap) const { return {tap / kernel_x, 1, padding_y, dilation_y, to.height, from.height}; }
  MetPixels columns(int64_t tap) const { return {tap % kernel_x, 1, padding_x, dilation_x, to.width, from.width}; }
  // Pairs of a pixel of the result and a tap that meets the source.
  int64_t met() const {
    int64_t pairs = 0;
    for (int64_t tap = 0; tap < taps(); ++tap) pairs += rows(tap).count() * columns(tap).count();
    return pairs;
  }
};

inline bool is_dense_with_unit_stride(const ConvolutionShape& s) {
  return s.groups == 1 && s.stride_y == 1 && s.stride_x == 1;
}
inline UnitStrideShape unit_stride_gather(const ConvolutionShape& s) {
  return {.batch = s.batch,
          .from = large_layout(s),
          .to = small_layout(s),
          .kernel_y = s.kernel_y,
          .kernel_x = s.kernel_x,
          .padding_y = s.padding_y,
          .padding_x = s.padding_x,
          .dilation_y = s.dilation_y,
          .dilation_x = s.dilation_x,
          .weight_by_result = s.taps() * s.large_channels,
          .weight_by_source = s.taps(),
          .flipped = false,
          .channels_last = s.channels_last};
}
inline UnitStrideShape unit_stride_scatter(const ConvolutionShape& s) {
  UnitStrideShape u = unit_stride_gather(s);
  std::swap(u.from, u.to);
  std::swap(u.weight_by_result, u.weight_by_source);
  u.padding_y = (s.kernel_y - 1) * s.dilation_y - s.padding_y;
  u.padding_x = (s.kernel_x - 1) * s.dilation_x - s.padding_x;
  u.flipped = true;
  return u;
}

}  // namespace
}  // namespace fastvision
