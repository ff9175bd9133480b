// Depthwise convolution with stride 1 and any dilation, then a pointwise one (Chollet, CVPR 2017; with dilation the
// atrous separable convolution of Chen et al., ECCV 2018), for inference.
#pragma once

#include "convolution.h"

namespace fastvision {

struct SeparableShape {
  ConvolutionShape depthwise;  // one channel per group; small: its result
  int64_t out_channels;
  bool depthwise_relu, relu;  // after which of the two

  FV_HD int64_t channels() const { return depthwise.groups; }
  FV_HD int64_t pixels() const { return depthwise.small_h * depthwise.small_w; }
};

// Numbers per channel, or null.
template <class T>
struct SeparableFactors {
  const T *depthwise_weight, *depthwise_bias;  // (channels, taps)
  const T *pointwise_weight, *pointwise_bias;  // (out_channels, channels)
  const T *scale, *shift;                      // of the sum with its bias
};

template <class A>
FV_HD A relu_of(A v) {  // NaN stays
  return max_of(v, A(0));
}
template <class T>
FV_HD Accum<T> separable_result(const SeparableShape& s, const SeparableFactors<T>& f, int64_t channel, Accum<T> sum) {
  if (f.pointwise_bias) sum += to_accum(f.pointwise_bias[channel]);
  if (f.scale) sum = sum * to_accum(f.scale[channel]) + to_accum(f.shift[channel]);
  return s.relu ? relu_of(sum) : sum;
}

// Twins. out: (batch, out_channels, small_h, small_w) in the format of input.
template <class T, class Isa>
void separable_conv2d(const SeparableShape&, const T* input, const SeparableFactors<T>&, T* out, const Cpu<Isa>&);
template <class T>
void separable_conv2d(const SeparableShape&, const T* input, const SeparableFactors<T>&, T* out, const CudaExec&);

}  // namespace fastvision
