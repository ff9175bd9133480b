// Products of tiles (product_tile.cuh): 128 pixels (64 without tensor cores) by 64 channels of the result, where 32
// channels (16 of double) of the source for one tap are a step. Rows are gathered by 16-byte cp.async in channels_last,
// three stages deep for 16-bit types, and element by element otherwise; no column buffer exists. Scatter: stride^2
// dense convolutions, a dimension of the grid. Taps that lie outside the map for a whole tile are left out. A pixel
// outside the map is zeros, which turn a weight that is not finite into NaN: results that are NaN in a tile with such
// pixels are computed again one by one. The gradient by the weights: 64 by 64 weights of a tap over the pixels whose
// tap is inside. Results pass through shared memory, to be written as they lie. No atomics, no workspace:
// deterministic. Bound by arithmetic; with few channels by bytes.
#include <type_traits>

#include "convolution_dense.h"
#include "cuda.cuh"
#include "product_tile.cuh"

namespace fastvision {
namespace {

constexpr int kColumns = kProductTile;
constexpr int64_t kNowhere = INT64_MIN / 2;
template <class T>
constexpr int kStages = sizeof(T) == 2 ? 3 : 2;
template <class T>
constexpr int kPack = 16 / sizeof(T);

struct DenseRow {
  int64_t source, y, x;  // where the first tap reads, which may be outside
  int64_t result;        // or -1
};

template <class T, class Tile, bool kScatter>
struct DenseShared {
  using Stage = ProductStage<T, Tile::kRows, false, kScatter>;
  DensePlan plan;
  DenseRow rows[Tile::kRows];
  union {
    Stage stages[kStages<T>];
    alignas(16) T result[Tile::kRows][kColumns + kPack<T>];
  };
};

// Channels [0, channels) of a tap for every row. source: at the first of them.
template <int kRows, class T, class Factor>
__device__ void load_rows(Factor& to, const DenseRow* rows, const DenseProblem& p, const T* source, int64_t dy,
                          int64_t dx, int64_t channels) {
  constexpr int kDepth = kProductDepth<T>, kPacks = kDepth / kPack<T>;
  const int64_t shift = dy * p.source.row + dx * p.source.column;
  const auto inside = [&](const DenseRow& r) {
    return r.y + dy >= 0 && r.y + dy < p.source.height && r.x + dx >= 0 && r.x + dx < p.source.width;
  };
  if (p.packs) {
    for_threads<kRows * kPacks>([&](int k) {
      const DenseRow r = rows[k / kPacks];
      const int c = k % kPacks * kPack<T>;
      const bool counts = c < channels && inside(r);
      cp_async<16>(&to(k / kPacks, c), counts ? source + r.source + shift + c : source, counts ? 16 : 0);
    });
    return;
  }
  for (int k = threadIdx.x; k < kRows * kDepth; k += kThreads) {
    const int row = p.shape.channels_last ? k / kDepth : k % kRows, c = p.shape.channels_last ? k % kDepth : k / kRows;
    const DenseRow r = rows[row];
    const bool counts = c < channels && inside(r);
    copy_element(to(row, c), counts ? source + r.source + shift + c * p.source.channel : source, counts);
  }
}

// A tap's weights between [0, columns) channels of the result and [0, channels) of the source, from the first of both.
template <bool kScatter, class T, class Factor>
__device__ void load_weights(Factor& to, const DenseProblem& p, const T* weight, int columns, int64_t channels) {
  constexpr int kNeighbours = kScatter ? kColumns : kProductDepth<T>;  // large channels, which lie side by side
  const auto copy = [&](auto step, int first) {
    const int j = kScatter ? first % kNeighbours : first / kNeighbours;
    const int c = kScatter ? first / kNeighbours : first % kNeighbours;
    const bool counts = j < columns && c < channels;
    const T* const from = counts ? weight + j * p.weight_result + c * p.weight_source : weight;
    if constexpr (step() > 1) cp_async<16>(&to(j, c), from, counts ? 16 : 0);
    else copy_element(to(j, c), from, counts);
  };
  constexpr int kCount = kColumns * kProductDepth<T>;
  if (p.packs) {
    for_threads<kCount / kPack<T>>([&](int k) { copy(std::integral_constant<int, kPack<T>>(), k * kPack<T>); });
  } else {
    for (int k = threadIdx.x; k < kCount; k += kThreads) copy(std::integral_constant<int, 1>(), k);
  }
}

template <class T, class Tile, bool kScatter>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 1 : 2)
    dense_kernel(DenseProblem p, const T* __restrict__ source, const T* __restrict__ weight, const T* __restrict__ bias,
                 T* __restrict__ result) {
  using Shared = DenseShared<T, Tile, kScatter>;
  using A = Accum<T>;
  constexpr int kRows = Tile::kRows, kDepth = kProductDepth<T>;
  FV_DYNAMIC_SHARED(Shared, shared);
  const ConvolutionShape& s = p.shape;
  const DensePlan& plan = shared->plan;
  const DenseAxis &ys = plan.ys, &xs = plan.xs;
  const DenseTile& part = plan.tile;
  const auto weights_of = [&](int64_t jy, int64_t jx) {
    const int64_t tap = (ys.first_tap + jy * ys.tap_step) * s.kernel_x + xs.first_tap + jx * xs.tap_step;
    return weight + plan.weight + tap * p.weight_tap;
  };
  for (int64_t block = blockIdx.x; block < p.blocks; block += gridDim.x) {
    if (threadIdx.x == 0) shared->plan = dense_plan<kScatter>(p, block, kRows, kColumns);  // would fill the registers
    __syncthreads();
    if (threadIdx.x < kRows) {
      DenseRow row{0, kNowhere, kNowhere, -1};
      if (plan.first + threadIdx.x < plan.rows) {
        const DensePlace at = dense_place(s.batch, ys, xs, plan.first + threadIdx.x);
        row.y = ys.base + at.y * ys.base_step, row.x = xs.base + at.x * xs.base_step;
        row.source = plan.source + at.image * p.source.image + row.y * p.source.row + row.x * p.source.column;
        row.result = at.image * p.result.image + (ys.first + at.y * ys.step) * p.result.row +
                     (xs.first + at.x * xs.step) * p.result.column;
      }
      shared->rows[threadIdx.x] = row;
    }
    __syncthreads();

    // All taps of some channels, then the next channels: what the taps read overlaps.
    const int64_t steps = part.taps_y.size() * part.taps_x.size() * ceil_div(p.source_channels, int64_t(kDepth));
    int64_t jy = part.taps_y.begin, jx = part.taps_x.begin, c = 0;
    Tile tile;
    add_products<kStages<T>>(tile, shared->stages, steps, [&](typename Shared::Stage& stage) {
      load_rows<kRows>(stage.x, shared->rows, p, source + c * p.source.channel, jy * ys.offset_step,
                       jx * xs.offset_step, p.source_channels - c);
      load_weights<kScatter>(stage.y, p, weights_of(jy, jx) + c * p.weight_source, plan.columns, p.source_channels - c);
      if (++jx < part.taps_x.end) return;
      jx = part.taps_x.begin;
      if (++jy < part.taps_y.end) return;
      jy = part.taps_y.begin;
      c += kDepth;
    });

    const int columns = plan.columns;
    const T* const of_bias = bias ? bias + plan.channel : nullptr;
    tile.each([&](int i, int j, A sum) {
      shared->result[i][j] = from_accum<T>(of_bias && j < columns ? sum + to_accum(of_bias[j]) : sum);
    });
    __syncthreads();
    if (!part.all_inside) {
      for (int k = threadIdx.x; k < kRows * kColumns; k += kThreads) {
        const int i = k / kColumns, j = k % kColumns;
        const DenseRow r = shared->rows[i];
        const A with_zeros = to_accum(shared->result[i][j]);
        if (with_zeros == with_zeros || j >= columns || r.result < 0) continue;
        A sum(0);
        for (int64_t b = part.taps_y.begin; b < part.taps_y.end; ++b)
          for (int64_t a = part.taps_x.begin; a < part.taps_x.end; ++a) {
            const int64_t dy = b * ys.offset_step, dx = a * xs.offset_step;
            if (!ys.inside(r.y + dy) || !xs.inside(r.x + dx)) continue;
            const T* x = source + r.source + dy * p.source.row + dx * p.source.column;
            const T* y = weights_of(b, a) + j * p.weight_result;
            for (int64_t k = 0; k < p.source_channels; ++k)
              sum = multiply_add(to_accum(x[k * p.source.channel]), to_accum(y[k * p.weight_source]), sum);
          }
        shared->result[i][j] = from_accum<T>(of_bias ? sum + to_accum(of_bias[j]) : sum);
      }
      __syncthreads();
    }
    T* const to = result + plan.channel * p.result.channel;
    const int step = p.packs ? kPack<T> : 1;
    for (int k = threadIdx.x * step; k < kRows * kColumns; k += kThreads * step) {
      const int i = s.channels_last ? k / kColumns : k % kRows, j = s.channels_last ? k % kColumns : k / kRows;
      const int64_t place = shared->rows[i].result;
      if (place < 0 || j >= columns) continue;
      if (p.packs) store_pack(to + place + j, load_pack<kPack<T>>(&shared->result[i][j]));
      else to[place + j * p.result.channel] = shared->result[i][j];
    }
    __syncthreads();
  }
}

// The pixels of the small map, along one axis, whose tap is inside the large one.
FV_HD Range pixels_with_tap(int64_t tap, int64_t small, int64_t large, int64_t stride, int64_t padding,
                            int64_t dilation) {
  const int64_t offset = tap * dilation - padding;
  const int64_t begin = offset < 0 ? ceil_div(-offset, stride) : 0;
  const int64_t end = offset < large ? min_of(ceil_div(large - offset, stride), small) : 0;
  return {begin, max_of(begin, end)};
}

template <class T, class Tile>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 1 : 2)
    dense_product_kernel(ConvolutionShape s, const T* __restrict__ small, const T* __restrict__ large,
                         T* __restrict__ weight) {
  using Stage = ProductStage<T, kProductTile, true, true>;
  constexpr int kDepth = kProductDepth<T>, kLanes = kThreads / kDepth;
  FV_SHARED(stages, Stage[2]);
  const MapLayout of_small = small_layout(s), of_large = large_layout(s);
  const bool packs = s.channels_last && s.small_channels % kPack<T> == 0 && s.large_channels % kPack<T> == 0;
  const int64_t down = ceil_div(s.small_channels, int64_t(kProductTile));
  const int64_t across = ceil_div(s.large_channels, int64_t(kProductTile));
  // Each thread copies one pixel's channels: neighbouring threads neighbouring pixels or channels, as they lie.
  const int k = s.channels_last ? threadIdx.x / kLanes : threadIdx.x % kDepth;
  const int lane = s.channels_last ? threadIdx.x % kLanes : threadIdx.x / kDepth;
  for (int64_t block = blockIdx.x; block < s.taps() * across * down * s.groups; block += gridDim.x) {
    const int64_t tap = block % s.taps(), b = block / s.taps() % across * kProductTile;
    const int64_t a = block / s.taps() / across % down * kProductTile, group = block / s.taps() / across / down;
    const int64_t ky = tap / s.kernel_x, kx = tap % s.kernel_x;
    const Range ys = pixels_with_tap(ky, s.small_h, s.large_h, s.stride_y, s.padding_y, s.dilation_y);
    const Range xs = pixels_with_tap(kx, s.small_w, s.large_w, s.stride_x, s.padding_x, s.dilation_x);
    const int64_t pixels = s.batch * ys.size() * xs.size();
    int64_t pixel = k;
    Tile tile;
    add_products<2>(tile, stages, ceil_div(pixels, int64_t(kDepth)), [&](Stage& stage) {
      const auto copy = [&](auto& to, const T* from, const MapLayout& m, int64_t channels) {
        const int step = packs ? kPack<T> : 1;
        for (int c = lane * step; c < kProductTile; c += kLanes * step) {
          const bool counts = pixel < pixels && c < channels;
          if (packs) cp_async<16>(&to(c, k), counts ? from + c : from, counts ? 16 : 0);
          else copy_element(to(c, k), counts ? from + c * m.channel : from, counts);
        }
      };
      int64_t n = 0, y = 0, x = 0, large_y = 0, large_x = 0;
      if (pixel < pixels) {
        x = xs.begin + pixel % xs.size(), y = ys.begin + pixel / xs.size() % ys.size();
        n = pixel / xs.size() / ys.size();
        large_y = y * s.stride_y - s.padding_y + ky * s.dilation_y;
        large_x = x * s.stride_x - s.padding_x + kx * s.dilation_x;
      }
      copy(stage.x,
           small + n * of_small.image + (group * s.small_channels + a) * of_small.channel + y * of_small.row +
               x * of_small.column,
           of_small, s.small_channels - a);
      copy(stage.y,
           large + n * of_large.image + (group * s.large_channels + b) * of_large.channel + large_y * of_large.row +
               large_x * of_large.column,
           of_large, s.large_channels - b);
      pixel += kDepth;
    });
    tile.each([&](int i, int j, Accum<T> sum) {
      if (a + i < s.small_channels && b + j < s.large_channels)
        weight[s.weight(group, a + i, b + j) + tap] = from_accum<T>(sum);
    });
  }
}

template <bool kScatter, class T>
void convolve(const ConvolutionShape& s, const T* source, const T* weight, const T* bias, T* result,
              const CudaExec& exec) {
  const auto run = [&](auto tile) {
    using Tile = decltype(tile);
    const DenseProblem p = dense_problem(s, kScatter, Tile::kRows, kColumns, kPack<T>);
    if (p.blocks > 0)
      launch(exec, dense_kernel<T, Tile, kScatter>, grid_for(p.blocks, 1), kThreads,
             sizeof(DenseShared<T, Tile, kScatter>), p, source, weight, bias, result);
  };
  if constexpr (sizeof(T) == 2) run(TensorCoreTile<T, 128>());
  else if constexpr (sizeof(T) == 8) run(PlainTile<T>());
  else s.tf32 ? run(TensorCoreTile<T, 128>()) : run(PlainTile<T>());
}

}  // namespace

template <class T>
void dense_gather(const ConvolutionShape& s, const T* large, const T* weight, const T* bias, T* small,
                  const CudaExec& exec) {
  convolve<false>(s, large, weight, bias, small, exec);
}

template <class T>
void dense_scatter(const ConvolutionShape& s, const T* small, const T* weight, const T* bias, T* large,
                   const CudaExec& exec) {
  convolve<true>(s, small, weight, bias, large, exec);
}

template <class T>
void dense_product(const ConvolutionShape& s, const T* small, const T* large, T* weight, const CudaExec& exec) {
  const int64_t down = ceil_div(s.small_channels, int64_t(kProductTile));
  const int64_t blocks = s.taps() * ceil_div(s.large_channels, int64_t(kProductTile)) * down * s.groups;
  const auto multiply = [&](auto* kernel) {
    launch(exec, kernel, grid_for(blocks, 1), kThreads, 0, s, small, large, weight);
  };
  if constexpr (sizeof(T) == 2) multiply(dense_product_kernel<T, TensorCoreTile<T>>);
  else if constexpr (sizeof(T) == 8) multiply(dense_product_kernel<T, PlainTile<T>>);
  else multiply(s.tf32 ? dense_product_kernel<T, TensorCoreTile<T>> : dense_product_kernel<T, PlainTile<T>>);
}

#define INSTANTIATE(T)                                                                                     \
  template void dense_gather(const ConvolutionShape&, const T*, const T*, const T*, T*, const CudaExec&);  \
  template void dense_scatter(const ConvolutionShape&, const T*, const T*, const T*, T*, const CudaExec&); \
  template void dense_product(const ConvolutionShape&, const T*, const T*, T*, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
