// channels_last: a thread has 16 bytes of channels of a pixel, a warp 32 times as many, and a block keeps their weights
// in shared memory. NCHW: a block copies whole planes, or the rows that a band of a plane's result depends on, to
// shared memory, where every tap finds them. The maps are read and written once; bound by instructions (docs/kernels).
// The taps are added up in the order of gather_kernel and scatter_kernel.
#include "convolution_depthwise.h"
#include "cuda.cuh"
#include "tensor_core.cuh"

namespace fastvision {
namespace {

template <class T>
constexpr int kPack = 16 / sizeof(T);

// Along one axis, a pixel of the result meets the taps first, first + step and so on, which read pixel, pixel + shift
// and so on of the source; those may be outside.
template <bool kScatter, class I>
struct Axis {
  I stride, padding, dilation, step, shift;

  struct Start {
    I tap, pixel;
  };
  __device__ Axis(int64_t s, int64_t p, int64_t d, int64_t kernel)
      : stride(I(s)), padding(I(p)), dilation(I(d)), step(1), shift(I(kScatter ? -d : d)) {
    if (!kScatter || s == 1) return;
    const int64_t to_next = min_of(taps_at(0, s, d, kernel).step, kernel);  // more would not fit, and means the same
    step = I(to_next);
    shift = I(-(to_next * d / s));
  }
  __device__ Start start(I at, int64_t kernel) const {
    if (!kScatter) return {0, at * stride - padding};
    const I position = at + padding;
    if (stride == 1) return {0, position};
    if (dilation == 1) return {position % stride, position / stride};
    const I first = I(taps_at(position, stride, dilation, kernel).first);
    return {first, (position - first * dilation) / stride};  // exact where there is a tap
  }
};
template <bool kScatter, class I>
__device__ Axis<kScatter, I> axis_y(const ConvolutionShape& s) {
  return {s.stride_y, s.padding_y, s.dilation_y, s.kernel_y};
}
template <bool kScatter, class I>
__device__ Axis<kScatter, I> axis_x(const ConvolutionShape& s) {
  return {s.stride_x, s.padding_x, s.dilation_x, s.kernel_x};
}

template <bool kScatter>
FV_HD MapLayout source_layout(const ConvolutionShape& s) {
  return kScatter ? small_layout(s) : large_layout(s);
}
template <bool kScatter>
FV_HD MapLayout result_layout(const ConvolutionShape& s) {
  return kScatter ? large_layout(s) : small_layout(s);
}

constexpr int64_t kMostTaps = 25, kPixels = 128;
template <class T>
constexpr int kChannels = 32 * kPack<T>;

template <class T>
struct Weights {
  Accum<T> at[kMostTaps][kChannels<T>];
};

template <class T, bool kScatter>
__global__ void __launch_bounds__(kThreads, 2)  // without a number ptxas spills to make room for more blocks
    packs_kernel(ConvolutionShape s, const T* __restrict__ source, const T* __restrict__ weight,
                 const T* __restrict__ bias, T* __restrict__ result) {
  using A = Accum<T>;
  FV_SHARED(weights, Weights<T>);
  const MapLayout from = source_layout<kScatter>(s), to = result_layout<kScatter>(s);
  const auto ys = axis_y<kScatter, int64_t>(s), xs = axis_x<kScatter, int64_t>(s);
  const int64_t slabs = ceil_div(s.groups, int64_t(kChannels<T>)), taps = s.taps();
  const int64_t pixels = s.batch * to.height * to.width, chunks = ceil_div(pixels, kPixels);
  const int mine = threadIdx.x % 32 * kPack<T>;
  for (int64_t block = blockIdx.x; block < slabs * chunks; block += gridDim.x) {
    const int64_t first = block % slabs * kChannels<T>, begin = block / slabs * kPixels;
    const int64_t count = min_of(int64_t(kChannels<T>), s.groups - first), end = min_of(begin + kPixels, pixels);
    for (int k = threadIdx.x; k < count * taps; k += kThreads)
      weights.at[k % taps][k / taps] = to_accum(weight[first * taps + k]);
    __syncthreads();
    for (int64_t pixel = begin + threadIdx.x / 32; pixel < end && mine < count; pixel += kThreads / 32) {
      const int64_t line = pixel / to.width, n = line / to.height;
      const auto at_y = ys.start(line - n * to.height, s.kernel_y);
      const auto at_x = xs.start(pixel - line * to.width, s.kernel_x);
      const T* const image = source + n * from.image + first + mine;
      A sum[kPack<T>];
      FV_UNROLL
      for (int j = 0; j < kPack<T>; ++j) sum[j] = bias ? to_accum(bias[first + mine + j]) : A(0);
      for (int64_t ky = at_y.tap, y = at_y.pixel; ky < s.kernel_y; ky += ys.step, y += ys.shift) {
        if (y < 0 || y >= from.height) continue;
        for (int64_t kx = at_x.tap, x = at_x.pixel; kx < s.kernel_x; kx += xs.step, x += xs.shift) {
          if (x < 0 || x >= from.width) continue;
          const auto pack = load_pack<kPack<T>>(image + y * from.row + x * from.column);
          const A* const w = weights.at[ky * s.kernel_x + kx] + mine;
          FV_UNROLL
          for (int j = 0; j < kPack<T>; ++j) sum[j] = multiply_add(w[j], to_accum(pack.at[j]), sum[j]);
        }
      }
      Pack<T, kPack<T>> out;
      FV_UNROLL
      for (int j = 0; j < kPack<T>; ++j) out.at[j] = from_accum<T>(sum[j]);
      store_pack(result + pixel * to.column + first + mine, out);
    }
    __syncthreads();
  }
}

constexpr int64_t kTileBytes = 40 * 1024;  // five blocks to a multiprocessor of the H100
constexpr int64_t kResults = 8192;         // of a tile of several planes
constexpr int64_t kMostResults = 1 << 20;  // of a plane
constexpr int64_t kLeastRows = 8;          // of a band; fewer are not worth the rows around them
constexpr int kTogether = 4;               // planes that a thread sums at once: they share their taps' places

// A tile is some whole planes (one band), or a band of rows of the result of one plane.
struct PlaneTiles {
  int64_t planes, rows, bands, tiles;
};

struct Rows {
  int64_t begin, end;
};
// The rows of the source from the first to the last that a tap of these rows of the result can meet.
template <bool kScatter>
FV_HD Rows source_rows(const ConvolutionShape& s, Rows of) {
  const int64_t halo = (s.kernel_y - 1) * s.dilation_y, height = kScatter ? s.small_h : s.large_h;
  int64_t begin, end;
  if constexpr (kScatter) {
    begin = ceil_div(max_of(of.begin + s.padding_y - halo, int64_t(0)), s.stride_y);
    end = (of.end - 1 + s.padding_y) / s.stride_y + 1;
  } else {
    begin = max_of(of.begin * s.stride_y - s.padding_y, int64_t(0));
    end = (of.end - 1) * s.stride_y - s.padding_y + halo + 1;
  }
  end = max_of(min_of(end, height), int64_t(0));
  return {min_of(begin, end), end};
}

// Whether 32 bits are enough for a plane's elements, the taps, and where they are, inside and outside.
inline bool has_short_places(const ConvolutionShape& s) {
  const int64_t y = max_of(s.small_h * s.stride_y, s.large_h) + s.padding_y + s.kernel_y * s.dilation_y;
  const int64_t x = max_of(s.small_w * s.stride_x, s.large_w) + s.padding_x + s.kernel_x * s.dilation_x;
  return max_of(max_of(y, x), max_of(s.large_h * s.large_w, s.taps())) < (1 << 30);
}

template <class T, bool kScatter>
PlaneTiles plane_tiles(const ConvolutionShape& s) {
  const MapLayout from = source_layout<kScatter>(s), to = result_layout<kScatter>(s);
  const int64_t planes = s.batch * s.groups, room = kTileBytes / int64_t(sizeof(T)) - kPack<T>;
  if (planes == 0 || to.channel == 0 || to.channel > kMostResults || !has_short_places(s)) return {};
  if (from.channel <= room) {
    const int64_t fit = min_of(room / max_of(from.channel, int64_t(1)), kResults / to.channel);
    const int64_t count = max_of(fit < kTogether ? fit : fit / kTogether * kTogether, int64_t(1));
    return {count, to.height, 1, ceil_div(planes, count)};
  }
  const int64_t halo = (s.kernel_y - 1) * s.dilation_y, fit = room / from.width;
  const int64_t most = kScatter ? (fit - 1) * s.stride_y - halo : (fit - 1 - halo) / s.stride_y + 1;
  if (most < min_of(kLeastRows, to.height)) return {};
  const int64_t rows = ceil_div(to.height, ceil_div(to.height, most)), bands = ceil_div(to.height, rows);
  return {1, rows, bands, planes * bands};
}

// Elements [begin, end) of `source`, of `total`: element i to to[i - begin / kPack * kPack], so that packs stay packs.
template <class T>
__device__ void load_run(const T* source, int64_t total, int64_t begin, int64_t end, T* to) {
  const int64_t first = begin / kPack<T> * kPack<T>;
  for (int64_t i = first + threadIdx.x * kPack<T>; i < end; i += kThreads * kPack<T>)
    if (i + kPack<T> <= total) cp_async<16>(to + (i - first), source + i);
    else
      for (int64_t k = i; k < end; ++k) to[k - first] = source[k];
  cp_async_wait_all();
}

template <class T, bool kScatter>
__global__ void __launch_bounds__(kThreads)
    planes_kernel(ConvolutionShape s, PlaneTiles tiles, const T* __restrict__ source, const T* __restrict__ weight,
                  const T* __restrict__ bias, T* __restrict__ result) {
  FV_SHARED(tile, T[kTileBytes / sizeof(T)]);
  const MapLayout from = source_layout<kScatter>(s), to = result_layout<kScatter>(s);
  const auto ys = axis_y<kScatter, int>(s), xs = axis_x<kScatter, int>(s);
  const int64_t planes = s.batch * s.groups;
  const int width = int(to.width), step_x = kThreads % width, step_line = kThreads / width, taps = int(s.taps());
  const int from_height = int(from.height), from_width = int(from.width), from_plane = int(from.channel);
  for (int64_t block = blockIdx.x; block < tiles.tiles; block += gridDim.x) {
    const int64_t plane = block / tiles.bands * tiles.planes, first_row = block % tiles.bands * tiles.rows;
    const int count = int(min_of(tiles.planes, planes - plane)), rows = int(min_of(tiles.rows, to.height - first_row));
    const Rows read = tiles.bands == 1 ? Rows{0, from.height} : source_rows<kScatter>(s, {first_row, first_row + rows});
    const int64_t begin = plane * from.channel + read.begin * from.row;
    const int64_t end = begin + (count - 1) * from.channel + (read.end - read.begin) * from.row;
    load_run(source, planes * from.channel, begin, end, tile);
    __syncthreads();
    const int lines = ceil_div(count, kTogether) * rows;
    for (int line = threadIdx.x / width, x = threadIdx.x % width; line < lines;) {
      const int row = line % rows, first = line / rows * kTogether, many = min_of(count - first, kTogether);
      const auto at_y = ys.start(int(first_row) + row, s.kernel_y), at_x = xs.start(x, s.kernel_x);
      const T* const pixels = tile + (int(begin % kPack<T>) + first * from_plane - int(read.begin) * from_width);
      const T* w[kTogether];
      Accum<T> sum[kTogether];
      FV_UNROLL
      for (int j = 0; j < kTogether; ++j) {
        const int64_t channel = (plane + first + min_of(j, many - 1)) % s.groups;
        w[j] = weight + channel * taps;
        sum[j] = bias ? to_accum(bias[channel]) : Accum<T>(0);
      }
      for (int ky = at_y.tap, y = at_y.pixel; ky < s.kernel_y; ky += ys.step, y += ys.shift) {
        if (y < 0 || y >= from_height) continue;
        for (int kx = at_x.tap, of_x = at_x.pixel; kx < s.kernel_x; kx += xs.step, of_x += xs.shift) {
          if (of_x < 0 || of_x >= from_width) continue;
          const T* const pixel = pixels + y * from_width + of_x;
          const int tap = ky * int(s.kernel_x) + kx;
          FV_UNROLL
          for (int j = 0; j < kTogether; ++j)
            if (j < many) sum[j] = multiply_add(to_accum(w[j][tap]), to_accum(pixel[j * from_plane]), sum[j]);
        }
      }
      T* const out = result + (plane + first) * to.channel + (first_row + row) * to.row + x;
      FV_UNROLL
      for (int j = 0; j < kTogether; ++j)
        if (j < many) out[j * to.channel] = from_accum<T>(sum[j]);
      line += step_line, x += step_x;
      if (x >= width) x -= width, ++line;
    }
    __syncthreads();
  }
}

template <bool kScatter, class T>
bool depthwise(const ConvolutionShape& s, const T* source, const T* weight, const T* bias, T* result,
               const CudaExec& exec) {
  if (s.small_channels != 1 || s.large_channels != 1) return false;
  if (s.channels_last) {
    if (s.groups % kPack<T> != 0 || s.taps() > kMostTaps) return false;
    const MapLayout to = result_layout<kScatter>(s);
    const int64_t pixels = s.batch * to.height * to.width;
    const int64_t blocks = ceil_div(s.groups, int64_t(kChannels<T>)) * ceil_div(pixels, kPixels);
    if (blocks > 0)
      launch(exec, packs_kernel<T, kScatter>, grid_for(blocks, 1), kThreads, 0, s, source, weight, bias, result);
    return true;
  }
  const PlaneTiles tiles = plane_tiles<T, kScatter>(s);
  if (tiles.tiles == 0) return false;
  launch(exec, planes_kernel<T, kScatter>, grid_for(tiles.tiles, 1), kThreads, 0, s, tiles, source, weight, bias,
         result);
  return true;
}

}  // namespace

template <class T>
bool depthwise_gather(const ConvolutionShape& s, const T* large, const T* weight, const T* bias, T* small,
                      const CudaExec& exec) {
  return depthwise<false>(s, large, weight, bias, small, exec);
}

template <class T>
bool depthwise_scatter(const ConvolutionShape& s, const T* small, const T* weight, const T* bias, T* large,
                       const CudaExec& exec) {
  return depthwise<true>(s, small, weight, bias, large, exec);
}

#define INSTANTIATE(T)                                                                                        \
  template bool depthwise_gather(const ConvolutionShape&, const T*, const T*, const T*, T*, const CudaExec&); \
  template bool depthwise_scatter(const ConvolutionShape&, const T*, const T*, const T*, T*, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
