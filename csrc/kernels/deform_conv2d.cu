// Products of 64 x 64 tiles (product_tile.cuh) whose factors are made in shared memory, so that no column buffer
// exists. Where to read and how much of each corner is worked out once per pixel, tap and group of offsets of a tile;
// threads side by side read neighbouring channels. Forward: 64 pixels by 64 channels of the result, samples by weights.
// Gradient by the weight: 64 by 64 weights of a tap over all pixels. Gradient by offsets and mask: the gradient by 64
// samples of a tap is a product, whose sums over channels with the four corners are a fixed tree of a warp. Gradient by
// the input: a block owns 8 x 8 pixels by 64 channels. A first launch writes the box of what each run of 256 samples
// reads; runs that meet the tile are searched in order for samples that do, and for every 64 found the gradient by them
// is a product again, which each thread adds to the pixels that it owns, in order. No atomics: deterministic. Bound by
// arithmetic: a product in the forward, three in the backward.
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
