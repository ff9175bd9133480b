// Products of 64 x 64 tiles (product_tile.cuh) whose factors are made in shared memory, so that no column buffer
// exists. Where to read and how much of each corner is worked out once per pixel, tap and group of offsets of a tile;
// threads side by side read neighbouring channels. Forward: 64 pixels by 64 channels of the result, samples by weights.
// Gradient by the weight: 64 by 64 weights of a tap over all pixels. Gradient by offsets and mask: the gradient by 64
// samples of a tap is a product, whose sums over channels with the four corners are a fixed tree of a warp. No atomics:
// deterministic. Bound by arithmetic: a product in the forward, three in the backward.
#include "cuda.cuh"
#include "deform_conv2d.h"
#include "deform_input_gradient.cuh"
#include "deform_samples.cuh"

namespace fastvision {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks<T>)
    forward_kernel(DeformShape s, ChannelSlices slices, const T* __restrict__ input,
                   const Accum<T>* __restrict__ offset, const Accum<T>* __restrict__ mask, const T* __restrict__ weight,
                   const T* __restrict__ bias, T* __restrict__ out) {
  using A = Accum<T>;
  constexpr int kDepth = kProductDepth<T>;
  FV_SHARED(stage, ProductStage<T>);
  FV_SHARED(corners, Corners<A>);
  const int64_t tiles = ceil_div(s.pixels(), int64_t(kTile)), panels = ceil_div(s.group_out(), int64_t(kTile));
  for (int64_t block = blockIdx.x; block < s.batch * tiles * s.groups * panels; block += gridDim.x) {
    const int64_t panel = block % panels, group = block / panels % s.groups;
    const int64_t first = block / panels / s.groups % tiles * kTile, image = block / panels / s.groups / tiles;
    typename TileOf<T>::type tile;
    for (int64_t tap = 0; tap < s.taps(); ++tap) {
      int64_t offset_group = -1;
      for (int64_t i = slices.count / s.groups * group; i < slices.count / s.groups * (group + 1); ++i) {
        const ChannelSlice slice = slices.at(s, i);
        if (slice.offset_group != offset_group) {
          offset_group = slice.offset_group;
          const int64_t places = image * s.offset_groups + offset_group, pixel = first + threadIdx.x;
          if (threadIdx.x < kTile && pixel < s.pixels())
            corners.set(threadIdx.x, s, deform_sample(s, offset, places, tap, pixel),
                        deform_mask(s, mask, places, tap, pixel));
          __syncthreads();
        }
        const T* from = input + image * s.in_pixels() * s.in_channels + slice.first;
        const T* factors =
            weight + ((group * s.group_out()) * s.group_in() + slice.first % s.group_in()) * s.taps() + tap;
        for (int k = threadIdx.x; k < kTile * kDepth; k += kThreads) {
          const int row = k / kDepth, c = k % kDepth;
          const int64_t d = panel * kTile + row;
          const bool counts = c < slice.count;
          stage.x(row, c) =
              counts && first + row < s.pixels() ? from_accum<T>(corners.value(row, from + c, s.in_channels)) : T{};
          stage.y(row, c) = counts && d < s.group_out() ? factors[(d * s.group_in() + c) * s.taps()] : T{};
        }
        __syncthreads();
        tile.add(stage);
        __syncthreads();
      }
    }
    tile.each([&](int i, int j, A sum) {
      const int64_t pixel = first + i, d = panel * kTile + j, channel = group * s.group_out() + d;
      if (pixel >= s.pixels() || d >= s.group_out()) return;
      const int64_t place = s.channels_last ? (image * s.pixels() + pixel) * s.out_channels + channel
                                            : (image * s.out_channels + channel) * s.pixels() + pixel;
      out[place] = from_accum<T>(bias ? sum + to_accum(bias[channel]) : sum);
    });
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks<T>)
    weight_kernel(DeformShape s, ChannelSlices slices, const T* __restrict__ grad, const T* __restrict__ input,
                  const Accum<T>* __restrict__ offset, const Accum<T>* __restrict__ mask, T* __restrict__ by_weight) {
  using A = Accum<T>;
  constexpr int kDepth = kProductDepth<T>;
  FV_SHARED(stage, ProductStage<T>);
  FV_SHARED(corners, Corners<A>);
  const int64_t panels = ceil_div(s.group_out(), int64_t(kTile));
  for (int64_t block = blockIdx.x; block < slices.count * s.taps() * panels; block += gridDim.x) {
    const ChannelSlice slice = slices.at(s, block / panels / s.taps());
    const int64_t panel = block % panels, tap = block / panels % s.taps();
    typename TileOf<T>::type tile;
    for (int64_t image = 0; image < s.batch; ++image) {
      const int64_t places = image * s.offset_groups + slice.offset_group;
      const T* from = input + image * s.in_pixels() * s.in_channels + slice.first;
      const T* rows = grad + image * s.pixels() * s.out_channels + slice.group * s.group_out() + panel * kTile;
      for (int64_t first = 0; first < s.pixels(); first += kDepth) {
        const int64_t pixel = first + threadIdx.x;
        if (threadIdx.x < kDepth && pixel < s.pixels())
          corners.set(threadIdx.x, s, deform_sample(s, offset, places, tap, pixel),
                      deform_mask(s, mask, places, tap, pixel));
        __syncthreads();
        for (int k = threadIdx.x; k < kTile * kDepth; k += kThreads) {
          const int row = k % kTile, p = k / kTile;
          const bool counts = first + p < s.pixels();
          stage.x(row, p) =
              counts && panel * kTile + row < s.group_out() ? rows[(first + p) * s.out_channels + row] : T{};
          stage.y(row, p) =
              counts && row < slice.count ? from_accum<T>(corners.value(p, from + row, s.in_channels)) : T{};
        }
        __syncthreads();
        tile.add(stage);
        __syncthreads();
      }
    }
    tile.each([&](int i, int j, A sum) {
      const int64_t d = panel * kTile + i;
      if (d >= s.group_out() || j >= slice.count) return;
      const int64_t row = slice.group * s.group_out() + d;
      by_weight[(row * s.group_in() + slice.first % s.group_in() + j) * s.taps() + tap] = from_accum<T>(sum);
    });
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks<T>)
    offset_kernel(DeformShape s, ChannelSlices slices, const T* __restrict__ grad, const T* __restrict__ input,
                  const Accum<T>* __restrict__ offset, const Accum<T>* __restrict__ mask, const T* __restrict__ weight,
                  Accum<T>* __restrict__ by_offset, Accum<T>* __restrict__ by_mask) {
  using A = Accum<T>;
  FV_SHARED(samples, SampleGradients<T>);
  FV_SHARED(places, int64_t[4][kTile]);
  FV_SHARED(sums, A[4][kTile]);
  const int64_t tiles = ceil_div(s.pixels(), int64_t(kTile)), parts = slices.per_offset_group(s);
  for (int64_t block = blockIdx.x; block < s.batch * s.offset_groups * s.taps() * tiles; block += gridDim.x) {
    const int64_t first = block % tiles * kTile, tap = block / tiles % s.taps(), group = block / tiles / s.taps();
    const int64_t image = group / s.offset_groups;
    const int count = int(min_of(int64_t(kTile), s.pixels() - first));
    if (int(threadIdx.x) < count) {
      const auto sample = deform_sample(s, offset, group, tap, first + threadIdx.x);
      for (int i = 0; i < 4; ++i) {
        places[i][threadIdx.x] = sample.has(s, i) ? sample.pixel(s, i) : -1;
        sums[i][threadIdx.x] = A(0);
      }
    }
    for (int64_t part = 0; part < parts; ++part) {
      const ChannelSlice slice = slices.at(s, group % s.offset_groups * parts + part);
      multiply_samples(s, slice, image, tap, count, grad, weight, samples, [&](int k) { return first + k; });
      const T* from = input + image * s.in_pixels() * s.in_channels + slice.first;
      const int lane = threadIdx.x % 32;
      for (int k = threadIdx.x / 32; k < count; k += kThreads / 32)
        for (int i = 0; i < 4; ++i) {
          if (places[i][k] < 0) continue;
          A sum(0);
          for (int c = lane; c < slice.count; c += 32)
            sum = multiply_add(samples.at[k][c], to_accum(from[places[i][k] * s.in_channels + c]), sum);
          for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(kFullWarp, sum, step);
          if (lane == 0) sums[i][k] += sum;
        }
      __syncthreads();
    }
    if (int(threadIdx.x) < count) {
      const int64_t pixel = first + threadIdx.x;
      const auto sample = deform_sample(s, offset, group, tap, pixel);
      const A factor = deform_mask(s, mask, group, tap, pixel);
      A corner[4], value(0);
      for (int i = 0; i < 4; ++i) {
        corner[i] = sums[i][threadIdx.x];
        if (sample.weight(i) != A(0)) value = multiply_add(sample.weight(i), corner[i], value);
      }
      A* const to = by_offset + (group * s.taps() + tap) * 2 * s.pixels() + pixel;
      to[0] = sample.inside ? factor * sample.slope_down(corner) : A(0);
      to[s.pixels()] = sample.inside ? factor * sample.slope_right(corner) : A(0);
      if (by_mask) by_mask[(group * s.taps() + tap) * s.pixels() + pixel] = sample.inside ? value : A(0);
    }
    __syncthreads();
  }
}

}  // namespace

template <class T>
void deform_conv2d(const DeformShape& s, const T* input, const Accum<T>* offset, const Accum<T>* mask, const T* weight,
                   const T* bias, T* out, const CudaExec& exec) {
  const int64_t blocks =
      s.batch * ceil_div(s.pixels(), int64_t(kTile)) * s.groups * ceil_div(s.group_out(), int64_t(kTile));
  if (blocks > 0)
    launch(exec, forward_kernel<T>, grid_for(blocks, 1), kThreads, 0, s, ChannelSlices::of(s, kProductDepth<T>), input,
           offset, mask, weight, bias, out);
}

template <class T>
void deform_conv2d_input_gradient(const DeformShape& s, const T* grad, const T* input, const Accum<T>* offset,
                                  const Accum<T>* mask, const T* weight, Accum<T>* scratch, T* by_input,
                                  Accum<T>* by_offset, Accum<T>* by_mask, const CudaExec& exec) {
  const ChannelSlices slices = ChannelSlices::of(s, kDeformSlice);
  const int64_t groups = s.batch * s.offset_groups * s.taps();
  const int64_t tiles = s.batch * slices.count * ceil_div(s.in_h, int64_t(kSide)) * ceil_div(s.in_w, int64_t(kSide));
  if (tiles == 0) return;
  launch(exec, box_kernel<Accum<T>>, grid_for(groups * ceil_div(s.pixels(), kDeformRun), 1), kThreads, 0, s, offset,
         scratch);
  launch(exec, input_kernel<T>, grid_for(tiles, 1), kThreads, sizeof(InputGradientShared<T>), s, slices, grad, offset,
         mask, weight, scratch, by_input);
  launch(exec, offset_kernel<T>, grid_for(groups * ceil_div(s.pixels(), int64_t(kTile)), 1), kThreads, 0, s, slices,
         grad, input, offset, mask, weight, by_offset, by_mask);
}

template <class T>
void deform_conv2d_weight_gradient(const DeformShape& s, const T* grad, const T* input, const Accum<T>* offset,
                                   const Accum<T>* mask, T* by_weight, const CudaExec& exec) {
  const ChannelSlices slices = ChannelSlices::of(s, kDeformSlice);
  const int64_t blocks = slices.count * s.taps() * ceil_div(s.group_out(), int64_t(kTile));
  if (blocks > 0)
    launch(exec, weight_kernel<T>, grid_for(blocks, 1), kThreads, 0, s, slices, grad, input, offset, mask, by_weight);
}

#define INSTANTIATE(T)                                                                                                 \
  template void deform_conv2d(const DeformShape&, const T*, const Accum<T>*, const Accum<T>*, const T*, const T*, T*,  \
                              const CudaExec&);                                                                        \
  template void deform_conv2d_input_gradient(const DeformShape&, const T*, const T*, const Accum<T>*, const Accum<T>*, \
                                             const T*, Accum<T>*, T*, Accum<T>*, Accum<T>*, const CudaExec&);          \
  template void deform_conv2d_weight_gradient(const DeformShape&, const T*, const T*, const Accum<T>*,                 \
                                              const Accum<T>*, T*, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
