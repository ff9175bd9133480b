// Samples of deformable convolution for products of 64 x 64 tiles, and the gradient by them.
#pragma once

#include "cuda.cuh"
#include "deform_conv2d.h"
#include "product_tile.cuh"

namespace fastvision {
namespace {

constexpr int kTile = kProductTile, kSide = 8;
static_assert(kDeformSlice == kTile && kDeformRun == kThreads && kSide * kSide == kTile);

// Blocks of a multiprocessor: without a number ptxas spills to make room for more.
template <class T>
constexpr int kBlocks = sizeof(T) == 8 ? 1 : 2;

template <class T>
struct TileOf {
  using type = PlainTile<T>;
};
template <>
struct TileOf<Half> {
  using type = TensorCoreTile<Half>;
};
template <>
struct TileOf<BFloat16> {
  using type = TensorCoreTile<BFloat16>;
};

// The corners of up to 64 samples: pixels, -1 where one takes no part, and how much of each.
template <class A>
struct Corners {
  A weight[4][kTile];
  int64_t at[4][kTile];

  __device__ void set(int k, const DeformShape& s, const DeformSample<A>& sample, A mask) {
    for (int i = 0; i < 4; ++i) {
      const A weight_here = sample.weight(i);
      at[i][k] = weight_here != A(0) && sample.has(s, i) ? sample.pixel(s, i) : -1;
      weight[i][k] = mask * weight_here;
    }
  }
  template <class T>
  __device__ A value(int k, const T* channel, int64_t stride) const {
    A sum(0);
    for (int i = 0; i < 4; ++i)
      if (at[i][k] >= 0) sum = multiply_add(weight[i][k], to_accum(channel[at[i][k] * stride]), sum);
    return sum;
  }
};

// Factors of the product that gives the gradient by samples; then the gradient, as (sample, channel of the slice).
template <class T>
union SampleGradients {
  ProductStage<T> stage;
  Accum<T> at[kTile][kTile];
};

// pixel_of(k): the pixel of sample k < count. Called by a whole block; on return the gradients are ready.
template <class T, class F>
__device__ void multiply_samples(const DeformShape& s, const ChannelSlice& slice, int64_t image, int64_t tap, int count,
                                 const T* grad, const T* weight, SampleGradients<T>& samples, F&& pixel_of) {
  constexpr int kDepth = kProductDepth<T>;
  const T* rows = grad + image * s.pixels() * s.out_channels + slice.group * s.group_out();
  const T* factors =
      weight + (slice.group * s.group_out() * s.group_in() + slice.first % s.group_in()) * s.taps() + tap;
  typename TileOf<T>::type tile;
  for (int64_t first = 0; first < s.group_out(); first += kDepth) {
    for (int k = threadIdx.x; k < kTile * kDepth; k += kThreads) {
      const int row = k / kDepth, d = k % kDepth, c = k % kTile, depth = k / kTile;
      samples.stage.x(row, d) =
          row < count && first + d < s.group_out() ? rows[pixel_of(row) * s.out_channels + first + d] : T{};
      samples.stage.y(c, depth) = c < slice.count && first + depth < s.group_out()
                                      ? factors[((first + depth) * s.group_in() + c) * s.taps()]
                                      : T{};
    }
    __syncthreads();
    tile.add(samples.stage);
    __syncthreads();
  }
  tile.each([&](int i, int j, Accum<T> sum) { samples.at[i][j] = sum; });
  __syncthreads();
}

}  // namespace
}  // namespace fastvision
