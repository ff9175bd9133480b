// A thread per pixel of the result adds up the taps that meet it, neighbouring threads neighbouring elements in memory,
// so that each tap is one coalesced read which the caches answer for all but the first. A gradient by the weights is a
// block per weight, its sum a fixed tree. No atomics: deterministic. Many channels per group: convolution_dense.cu, one
// channel per group mostly convolution_depthwise.cu.
#include "convolution_dense.h"
#include "convolution_depthwise.h"
#include "cuda.cuh"

namespace fastvision {
namespace {

struct Place {
  int64_t image, channel, y, x;
};
__device__ __forceinline__ Place place_of(int64_t i, const MapLayout& m, bool channels_last) {
  if (channels_last) return {i / m.image, i % m.channels, i / m.row % m.height, i / m.column % m.width};
  return {i / m.image, i / m.channel % m.channels, i / m.row % m.height, i % m.width};
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(ConvolutionShape s, const T* __restrict__ large, const T* __restrict__ weight,
                  const T* __restrict__ bias, T* __restrict__ small) {
  const MapLayout to = small_layout(s), from = large_layout(s);
  FV_FOR(i, s.batch * to.image) {
    const Place at = place_of(i, to, s.channels_last);
    const int64_t group = at.channel / s.small_channels;
    Accum<T> sum = bias ? to_accum(bias[at.channel]) : Accum<T>(0);
    for (int64_t b = 0; b < s.large_channels; ++b) {
      const T* w = weight + (at.channel * s.large_channels + b) * s.taps();
      const T* plane = large + at.image * from.image + (group * s.large_channels + b) * from.channel;
      for (int64_t ky = 0; ky < s.kernel_y; ++ky) {
        const int64_t y = at.y * s.stride_y - s.padding_y + ky * s.dilation_y;
        if (y < 0 || y >= s.large_h) continue;
        for (int64_t kx = 0; kx < s.kernel_x; ++kx) {
          const int64_t x = at.x * s.stride_x - s.padding_x + kx * s.dilation_x;
          if (x < 0 || x >= s.large_w) continue;
          sum = multiply_add(to_accum(w[ky * s.kernel_x + kx]), to_accum(plane[y * from.row + x * from.column]), sum);
        }
      }
    }
    small[i] = from_accum<T>(sum);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    scatter_kernel(ConvolutionShape s, const T* __restrict__ small, const T* __restrict__ weight,
                   const T* __restrict__ bias, T* __restrict__ large) {
  const MapLayout to = large_layout(s), from = small_layout(s);
  FV_FOR(i, s.batch * to.image) {
    const Place at = place_of(i, to, s.channels_last);
    const int64_t group = at.channel / s.large_channels, b = at.channel % s.large_channels;
    const int64_t py = at.y + s.padding_y, px = at.x + s.padding_x;
    const Taps ty = taps_at(py, s.stride_y, s.dilation_y, s.kernel_y);
    const Taps tx = taps_at(px, s.stride_x, s.dilation_x, s.kernel_x);
    Accum<T> sum = bias ? to_accum(bias[at.channel]) : Accum<T>(0);
    for (int64_t a = 0; a < s.small_channels; ++a) {
      const T* w = weight + s.weight(group, a, b);
      const T* plane = small + at.image * from.image + (group * s.small_channels + a) * from.channel;
      for (int64_t ky = ty.first; ky < s.kernel_y && ky * s.dilation_y <= py; ky += ty.step) {
        const int64_t y = (py - ky * s.dilation_y) / s.stride_y;
        if (y >= s.small_h) continue;
        for (int64_t kx = tx.first; kx < s.kernel_x && kx * s.dilation_x <= px; kx += tx.step) {
          const int64_t x = (px - kx * s.dilation_x) / s.stride_x;
          if (x >= s.small_w) continue;
          sum = multiply_add(to_accum(w[ky * s.kernel_x + kx]), to_accum(plane[y * from.row + x * from.column]), sum);
        }
      }
    }
    large[i] = from_accum<T>(sum);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) product_kernel(ConvolutionShape s, const T* __restrict__ small,
                                                           const T* __restrict__ large, T* __restrict__ weight) {
  FV_SHARED(sums, Accum<T>[kThreads]);
  const MapLayout of_small = small_layout(s), of_large = large_layout(s);
  const int64_t pixels = s.small_h * s.small_w;
  for (int64_t i = blockIdx.x; i < s.weights(); i += gridDim.x) {
    const int64_t kx = i % s.kernel_x, ky = i / s.kernel_x % s.kernel_y, b = i / s.taps() % s.large_channels;
    const int64_t a = i / s.taps() / s.large_channels, group = a / s.small_channels;  // a: of all channels
    const T* from_small = small + a * of_small.channel;
    const T* from_large = large + (group * s.large_channels + b) * of_large.channel;
    Accum<T> sum(0);
    for (int64_t k = threadIdx.x; k < s.batch * pixels; k += kThreads) {
      const int64_t n = k / pixels, y = k / s.small_w % s.small_h, x = k % s.small_w;
      const int64_t large_y = y * s.stride_y - s.padding_y + ky * s.dilation_y;
      const int64_t large_x = x * s.stride_x - s.padding_x + kx * s.dilation_x;
      if (large_y < 0 || large_y >= s.large_h || large_x < 0 || large_x >= s.large_w) continue;
      sum = multiply_add(to_accum(from_small[n * of_small.image + y * of_small.row + x * of_small.column]),
                         to_accum(from_large[n * of_large.image + large_y * of_large.row + large_x * of_large.column]),
                         sum);
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int step = kThreads / 2; step; step /= 2) {
      if (int(threadIdx.x) < step) sums[threadIdx.x] += sums[threadIdx.x + step];
      __syncthreads();
    }
    if (threadIdx.x == 0) weight[i] = from_accum<T>(sums[0]);
  }
}

}  // namespace

template <class T>
void convolution_gather(const ConvolutionShape& s, const T* large, const T* weight, const T* bias, T* small,
                        const CudaExec& exec) {
  if (is_dense(s)) return dense_gather(s, large, weight, bias, small, exec);
  if (depthwise_gather(s, large, weight, bias, small, exec)) return;
  const int64_t items = s.batch * small_layout(s).image;
  if (items > 0) launch(exec, gather_kernel<T>, grid_for(items), kThreads, 0, s, large, weight, bias, small);
}

template <class T>
void convolution_scatter(const ConvolutionShape& s, const T* small, const T* weight, const T* bias, T* large,
                         const CudaExec& exec) {
  if (is_dense(s)) return dense_scatter(s, small, weight, bias, large, exec);
  if (depthwise_scatter(s, small, weight, bias, large, exec)) return;
  const int64_t items = s.batch * large_layout(s).image;
  if (items > 0) launch(exec, scatter_kernel<T>, grid_for(items), kThreads, 0, s, small, weight, bias, large);
}

template <class T>
void convolution_product(const ConvolutionShape& s, const T* small, const T* large, T* weight, const CudaExec& exec) {
  if (is_dense(s)) return dense_product(s, small, large, weight, exec);
  const int64_t items = s.weights();
  if (items > 0) launch(exec, product_kernel<T>, grid_for(items, 1), kThreads, 0, s, small, large, weight);
}

#define INSTANTIATE(T)                                                                                           \
  template void convolution_gather(const ConvolutionShape&, const T*, const T*, const T*, T*, const CudaExec&);  \
  template void convolution_scatter(const ConvolutionShape&, const T*, const T*, const T*, T*, const CudaExec&); \
  template void convolution_product(const ConvolutionShape&, const T*, const T*, T*, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
