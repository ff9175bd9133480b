// A block computes 32 pixels by 256 channels of the result: for 16 channels at a time all threads compute the depthwise
// result to shared memory and copy the pointwise weights beside it, then each thread adds to its 4 x 8 sums. With more
// than 256 channels the depthwise stage is repeated. The depthwise map is never in memory: input and result are moved
// once. Bound by arithmetic (ordinary, no tensor cores). No atomics: deterministic.
#include "cuda.cuh"
#include "separable_conv2d.h"

namespace fastvision {
namespace {

constexpr int kPixels = 32, kOut = 256, kDepth = 16;

template <class T>
__device__ Accum<T> depthwise_at(const SeparableShape& s, const SeparableFactors<T>& f, const T* __restrict__ image,
                                 int64_t channel, int64_t pixel) {
  const ConvolutionShape& d = s.depthwise;
  const MapLayout from = large_layout(d);
  const T* plane = image + channel * from.channel;
  const T* weight = f.depthwise_weight + channel * d.taps();
  Accum<T> sum = f.depthwise_bias ? to_accum(f.depthwise_bias[channel]) : Accum<T>(0);
  for (int64_t ky = 0; ky < d.kernel_y; ++ky) {
    const int64_t y = pixel / d.small_w - d.padding_y + ky * d.dilation_y;
    if (y < 0 || y >= d.large_h) continue;
    for (int64_t kx = 0; kx < d.kernel_x; ++kx) {
      const int64_t x = pixel % d.small_w - d.padding_x + kx * d.dilation_x;
      if (x < 0 || x >= d.large_w) continue;
      sum = multiply_add(to_accum(plane[y * from.row + x * from.column]), to_accum(weight[ky * d.kernel_x + kx]), sum);
    }
  }
  return s.depthwise_relu ? relu_of(sum) : sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    separable_kernel(SeparableShape s, const T* __restrict__ input, SeparableFactors<T> f, T* __restrict__ out) {
  using A = Accum<T>;
  FV_SHARED(middle, A[kDepth][kPixels]);
  FV_SHARED(weights, A[kDepth][kOut + 1]);  // + 1: neighbouring rows in different banks
  const MapLayout to = layout_of(s.depthwise.channels_last, s.out_channels, s.depthwise.small_h, s.depthwise.small_w);
  const int64_t across = ceil_div(s.pixels(), int64_t(kPixels)), down = ceil_div(s.out_channels, int64_t(kOut));
  const int lane = threadIdx.x % 32, group = threadIdx.x / 32;  // out channels lane + 32 i, pixels 4 group + j
  for (int64_t block = blockIdx.x; block < s.depthwise.batch * across * down; block += gridDim.x) {
    const int64_t n = block / down / across, p0 = block / down % across * kPixels, o0 = block % down * kOut;
    const T* image = input + n * large_layout(s.depthwise).image;
    A sum[8][4] = {};
    for (int64_t c0 = 0; c0 < s.channels(); c0 += kDepth) {
      for (int k = threadIdx.x; k < kDepth * kPixels; k += kThreads) {
        // Neighbouring threads: neighbouring channels or pixels, as they lie in memory.
        const int c = s.depthwise.channels_last ? k % kDepth : k / kPixels;
        const int p = s.depthwise.channels_last ? k / kDepth : k % kPixels;
        const bool inside = c0 + c < s.channels() && p0 + p < s.pixels();
        middle[c][p] = inside ? depthwise_at(s, f, image, c0 + c, p0 + p) : A(0);
      }
      for (int k = threadIdx.x; k < kDepth * kOut; k += kThreads) {
        const int c = k % kDepth, o = k / kDepth;
        const bool inside = c0 + c < s.channels() && o0 + o < s.out_channels;
        weights[c][o] = inside ? to_accum(f.pointwise_weight[(o0 + o) * s.channels() + c0 + c]) : A(0);
      }
      __syncthreads();
      const int depth = int(min_of(s.channels() - c0, int64_t(kDepth)));
      for (int c = 0; c < depth; ++c) {
        A pixel[4];
        FV_UNROLL
        for (int j = 0; j < 4; ++j) pixel[j] = middle[c][4 * group + j];
        FV_UNROLL
        for (int i = 0; i < 8; ++i) {
          const A w = weights[c][lane + 32 * i];
          FV_UNROLL
          for (int j = 0; j < 4; ++j) sum[i][j] = multiply_add(w, pixel[j], sum[i][j]);
        }
      }
      __syncthreads();
    }
    FV_UNROLL
    for (int i = 0; i < 8; ++i) FV_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int64_t o = o0 + lane + 32 * i, p = p0 + 4 * group + j;
      if (o < s.out_channels && p < s.pixels())
        out[n * to.image + o * to.channel + p * to.column] = from_accum<T>(separable_result(s, f, o, sum[i][j]));
    }
  }
}

}  // namespace

template <class T>
void separable_conv2d(const SeparableShape& s, const T* input, const SeparableFactors<T>& f, T* out,
                      const CudaExec& exec) {
  const int64_t blocks =
      s.depthwise.batch * ceil_div(s.pixels(), int64_t(kPixels)) * ceil_div(s.out_channels, int64_t(kOut));
  if (blocks > 0) launch(exec, separable_kernel<T>, grid_for(blocks, 1), kThreads, 0, s, input, f, out);
}

#define INSTANTIATE(T) \
  template void separable_conv2d(const SeparableShape&, const T*, const SeparableFactors<T>&, T*, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
