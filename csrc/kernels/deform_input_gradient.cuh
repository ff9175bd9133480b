// The gradient of deformable convolution by its input: a block owns 8 x 8 pixels by 64 channels. A first launch writes
// the box of what each run of 256 samples reads; runs that meet the tile are searched in order for samples that do, and
// for every 64 found the gradient by them is a product, which each thread adds to the pixels that it owns, in order.
#pragma once

#include "deform_samples.cuh"

namespace fastvision {
namespace {

// The least and greatest y, then x, of the pixels up and left of each run of samples of a tap.
template <class A>
__global__ void __launch_bounds__(kThreads)
    box_kernel(DeformShape s, const A* __restrict__ offset, A* __restrict__ boxes) {
  FV_SHARED(values, A[4][kThreads]);
  const int64_t runs = ceil_div(s.pixels(), kDeformRun);
  for (int64_t block = blockIdx.x; block < s.batch * s.offset_groups * s.taps() * runs; block += gridDim.x) {
    const int64_t pixel = block % runs * kDeformRun + threadIdx.x, tap = block / runs % s.taps();
    A own[4] = {A(1e30), A(-1e30), A(1e30), A(-1e30)};
    if (pixel < s.pixels()) {
      const auto sample = deform_sample(s, offset, block / runs / s.taps(), tap, pixel);
      if (sample.inside) own[0] = own[1] = A(sample.y), own[2] = own[3] = A(sample.x);
    }
    for (int i = 0; i < 4; ++i) values[i][threadIdx.x] = own[i];
    __syncthreads();
    for (int step = kThreads / 2; step; step /= 2) {
      if (int(threadIdx.x) < step)
        for (int i = 0; i < 4; ++i) {
          const A a = values[i][threadIdx.x], b = values[i][threadIdx.x + step];
          values[i][threadIdx.x] = i % 2 ? max_of(a, b) : min_of(a, b);
        }
      __syncthreads();
    }
    if (threadIdx.x < 4) boxes[block * 4 + threadIdx.x] = values[threadIdx.x][0];
    __syncthreads();
  }
}

template <class T>
struct InputGradientShared {
  SampleGradients<T> samples;
  Accum<T> sums[kTile][kTile];  // (pixel of the tile, channel of the slice)
  Accum<T> weight[4][kTile];
  int place[4][kTile];  // in the tile, or -1
  int64_t list[kThreads + kTile];
};

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks<T>)
    input_kernel(DeformShape s, ChannelSlices slices, const T* __restrict__ grad, const Accum<T>* __restrict__ offset,
                 const Accum<T>* __restrict__ mask, const T* __restrict__ weight, const Accum<T>* __restrict__ boxes,
                 T* __restrict__ by_input) {
  using A = Accum<T>;
  FV_DYNAMIC_SHARED(InputGradientShared<T>, shared);
  const int64_t tiles_x = ceil_div(s.in_w, int64_t(kSide)), tiles_y = ceil_div(s.in_h, int64_t(kSide));
  const int64_t runs = ceil_div(s.pixels(), kDeformRun);
  for (int64_t block = blockIdx.x; block < s.batch * slices.count * tiles_y * tiles_x; block += gridDim.x) {
    const int64_t tile_x = block % tiles_x * kSide, tile_y = block / tiles_x % tiles_y * kSide;
    const int64_t image = block / tiles_x / tiles_y / slices.count;
    const ChannelSlice slice = slices.at(s, block / tiles_x / tiles_y % slices.count);
    const int64_t group = image * s.offset_groups + slice.offset_group;
    for (int k = threadIdx.x; k < kTile * kTile; k += kThreads) shared->sums[k / kTile][k % kTile] = A(0);
    __syncthreads();

    const auto add = [&](int64_t tap, int count) {
      if (int(threadIdx.x) < count) {
        const int64_t pixel = shared->list[threadIdx.x];
        const auto sample = deform_sample(s, offset, group, tap, pixel);
        const A factor = deform_mask(s, mask, group, tap, pixel);
        for (int i = 0; i < 4; ++i) {
          const int64_t y = sample.y + i / 2 - tile_y, x = sample.x + i % 2 - tile_x;
          const bool counts =
              sample.weight(i) != A(0) && sample.has(s, i) && y >= 0 && y < kSide && x >= 0 && x < kSide;
          shared->place[i][threadIdx.x] = counts ? int(y * kSide + x) : -1;
          shared->weight[i][threadIdx.x] = factor * sample.weight(i);
        }
      }
      multiply_samples(s, slice, image, tap, count, grad, weight, shared->samples,
                       [&](int k) { return shared->list[k]; });
      const int c = threadIdx.x % kTile, quarter = threadIdx.x / kTile;
      for (int k = 0; k < count; ++k)
        for (int i = 0; i < 4; ++i) {
          const int place = shared->place[i][k];
          if (place >= 0 && place / (kTile * kTile / kThreads) == quarter)
            shared->sums[place][c] =
                multiply_add(shared->weight[i][k], shared->samples.at[k][c], shared->sums[place][c]);
        }
      __syncthreads();
    };
    for (int64_t tap = 0; tap < s.taps(); ++tap) {
      int pending = 0;
      for (int64_t run = 0; run < runs; ++run) {
        const A* box = boxes + ((group * s.taps() + tap) * runs + run) * 4;
        if (box[1] < A(tile_y - 1) || box[0] >= A(tile_y + kSide) || box[3] < A(tile_x - 1) ||
            box[2] >= A(tile_x + kSide))
          continue;
        const int64_t pixel = run * kDeformRun + threadIdx.x;
        bool meets = false;
        if (pixel < s.pixels()) {
          const auto sample = deform_sample(s, offset, group, tap, pixel);
          meets = sample.inside && sample.y >= tile_y - 1 && sample.y < tile_y + kSide && sample.x >= tile_x - 1 &&
                  sample.x < tile_x + kSide;
        }
        pending += gather_in_order<kThreads>(meets, pixel, shared->list + pending);
        while (pending >= kTile) {
          add(tap, kTile);
          const int64_t next = shared->list[threadIdx.x + kTile];
          __syncthreads();
          shared->list[threadIdx.x] = next;
          __syncthreads();
          pending -= kTile;
        }
      }
      if (pending > 0) add(tap, pending);
    }
    for (int k = threadIdx.x; k < kTile * kTile; k += kThreads) {
      const int place = s.channels_last ? k / kTile : k % kTile, c = s.channels_last ? k % kTile : k / kTile;
      const int64_t y = tile_y + place / kSide, x = tile_x + place % kSide, channel = slice.first + c;
      if (y >= s.in_h || x >= s.in_w || c >= slice.count) continue;
      const int64_t to = s.channels_last ? ((image * s.in_h + y) * s.in_w + x) * s.in_channels + channel
                                         : ((image * s.in_channels + channel) * s.in_h + y) * s.in_w + x;
      by_input[to] = from_accum<T>(shared->sums[place][c]);
    }
    __syncthreads();
  }
}

}  // namespace
}  // namespace fastvision
