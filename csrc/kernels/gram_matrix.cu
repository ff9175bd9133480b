// A block multiplies a 64 x 64 tile of the result over its part of the pixels, 32 at a time through two buffers in
// shared memory; symmetric products have only the tiles on and above the diagonal. 16-bit types and, where allowed,
// float32 as tf32 use the tensor cores (eight warps, 16 x 32 results each); float32 otherwise and float64 use ordinary
// arithmetic, 4 x 4 results per thread. A second launch adds the parts up in order, scales, and writes both halves:
// deterministic, equal to its transpose bit for bit; or compares with a target on the way. Bound by reading the
// features once for up to 64 channels; above that each row of tiles reads them again, mostly from L2.
#include "gram_matrix.h"
#include "product_tile.cuh"
#include "reduction.cuh"

namespace fastvision {
namespace {

constexpr int kTile = GramShape::kTile;
static_assert(kTile == kProductTile);
template <class T>
using Stage = ProductStage<T>;
template <class T>
constexpr int kDepth = kProductDepth<T>;

// Channels [c0, c0 + 64) of pixels [p0, p0 + kDepth) to shared memory, zeros beyond the channels and beyond `end`.
template <class T>
__device__ void load_tile(ProductFactor<T, kTile, false>& to, const GramShape& s, const T* features, int64_t channels,
                          int64_t c0, int64_t p0, int64_t end) {
  constexpr int kPack = 16 / sizeof(T), kPacks = kDepth<T> / kPack;
  if (!s.channels_last && s.pixels % kPack == 0) {
    for (int k = threadIdx.x; k < kTile * kPacks; k += kThreads) {
      const int c = k / kPacks, p = k % kPacks * kPack;
      const bool inside = c0 + c < channels && p0 + p < end;
      cp_async<16>(&to(c, p), inside ? features + (c0 + c) * s.pixels + p0 + p : features, inside ? 16 : 0);
    }
    return;
  }
  for (int k = threadIdx.x; k < kTile * kDepth<T>; k += kThreads) {
    const int c = s.channels_last ? k % kTile : k / kDepth<T>, p = s.channels_last ? k / kTile : k % kDepth<T>;
    const bool inside = c0 + c < channels && p0 + p < end;
    const int64_t place = s.channels_last ? (p0 + p) * channels + c0 + c : (c0 + c) * s.pixels + p0 + p;
    to(c, p) = inside ? features[place] : T{};
  }
}

template <class T, class Tile>
__global__ void __launch_bounds__(kThreads)
    product_kernel(GramShape s, const T* __restrict__ x, const T* __restrict__ y, Accum<T>* __restrict__ partial) {
  FV_SHARED(stages, Stage<T>[2]);
  const int64_t parts = s.parts(), per_part = s.pixels_per_part();
  for (int64_t block = blockIdx.x; block < s.batch * s.tiles() * parts; block += gridDim.x) {
    const GramPiece piece = gram_piece(s, block, parts);
    const int64_t begin = piece.part * per_part, end = min_of(begin + per_part, s.pixels);
    const T* of_x = x + piece.image * s.rows * s.pixels;
    const T* of_y = y + piece.image * s.columns * s.pixels;
    int64_t p = begin;
    Tile tile;
    add_products<2>(tile, stages, ceil_div(end - begin, int64_t(kDepth<T>)), [&](Stage<T>& stage) {
      load_tile(stage.x, s, of_x, s.rows, piece.row, p, end);
      load_tile(stage.y, s, of_y, s.columns, piece.column, p, end);
      p += kDepth<T>;
    });
    Accum<T>* to = partial + piece.part * s.results() + piece.image * s.rows * s.columns;
    tile.each([&](int i, int j, Accum<T> sum) {
      const int64_t row = piece.row + i, column = piece.column + j;
      if (row < s.rows && column < s.columns) to[row * s.columns + column] = sum;
    });
  }
}

// The sum of all parts for one result. Of a symmetric product only the upper half of `partial` is ever written.
template <class A>
__device__ A gram_result(const GramShape& s, const A* partial, int64_t i, int64_t parts) {
  const int64_t row = i / s.columns % s.rows, column = i % s.columns;
  if (s.symmetric && column < row) i += (column - row) * s.columns + (row - column);
  A sum(0);
  for (int64_t k = 0; k < parts; ++k) sum += partial[k * s.results() + i];
  return sum * A(s.scale);
}

// The squared difference of one result; sets its slope.
template <class A>
__device__ double gram_difference(const GramShape& s, const A* partial, const GramLoss<A>& loss, int64_t i,
                                  int64_t parts) {
  const int64_t size = s.rows * s.rows, row = i / s.rows % s.rows, column = i % s.rows;
  const A* const target = loss.target + (loss.one_target ? 0 : i / size * size);
  const A sum = gram_result(s, partial, i, parts);
  const A difference = sum - target[row * s.rows + column], mirrored = sum - target[column * s.rows + row];
  loss.slopes[i] = A(2 * s.scale / double(size)) * (difference + mirrored);
  return double(difference) * double(difference);
}

template <class A>
__global__ void __launch_bounds__(kThreads)
    sum_kernel(GramShape s, const A* __restrict__ partial, A* __restrict__ out) {
  const int64_t parts = s.parts();
  FV_FOR(i, s.results()) out[i] = gram_result(s, partial, i, parts);
}

template <class A>
__global__ void __launch_bounds__(kThreads)
    difference_kernel(GramShape s, const A* __restrict__ partial, GramLoss<A> loss) {
  const int64_t parts = s.parts();
  for (int64_t row = blockIdx.x; row < s.batch * s.rows; row += gridDim.x) {
    double own = 0;
    for (int64_t c = threadIdx.x; c < s.rows; c += kThreads)
      own += gram_difference(s, partial, loss, row * s.rows + c, parts);
    const double sum = block_sum(own);
    if (threadIdx.x == 0) loss.row_sums[row] = sum;
  }
}

template <class A>
__global__ void __launch_bounds__(kThreads) finish_kernel(GramShape s, GramLoss<A> loss) {
  for (int64_t n = blockIdx.x; n < s.batch; n += gridDim.x) {
    double own = 0;
    for (int64_t row = threadIdx.x; row < s.rows; row += kThreads) own += loss.row_sums[n * s.rows + row];
    const double sum = block_sum(own);
    if (threadIdx.x == 0) loss.losses[n] = A(sum / double(max_of(s.rows * s.rows, int64_t(1))));
  }
}

template <class T>
void sum_parts(const GramShape& s, const T* x, const T* y, Accum<T>* partial, const CudaExec& exec) {
  const int64_t blocks = s.batch * s.tiles() * s.parts();
  if (blocks == 0) return;
  const auto multiply = [&](auto* kernel) { launch(exec, kernel, grid_for(blocks, 1), kThreads, 0, s, x, y, partial); };
  if constexpr (sizeof(T) == 2) multiply(product_kernel<T, TensorCoreTile<T>>);
  else if constexpr (sizeof(T) == 8) multiply(product_kernel<T, PlainTile<T>>);
  else multiply(s.tf32 ? product_kernel<T, TensorCoreTile<T>> : product_kernel<T, PlainTile<T>>);
}

}  // namespace

template <class T>
void gram_matrix(const GramShape& s, const T* x, const T* y, Accum<T>* partial, Accum<T>* out, const CudaExec& exec) {
  if (s.results() == 0) return;
  sum_parts(s, x, y, partial, exec);
  launch(exec, sum_kernel<Accum<T>>, grid_for(s.results()), kThreads, 0, s, partial, out);
}

template <class T>
void gram_loss(const GramShape& s, const T* x, Accum<T>* partial, const GramLoss<Accum<T>>& loss,
               const CudaExec& exec) {
  if (s.batch == 0) return;
  sum_parts(s, x, x, partial, exec);
  if (s.rows > 0)
    launch(exec, difference_kernel<Accum<T>>, grid_for(s.batch * s.rows, 1), kThreads, 0, s, partial, loss);
  launch(exec, finish_kernel<Accum<T>>, grid_for(s.batch, 1), kThreads, 0, s, loss);
}

#define INSTANTIATE(T)                                                                                    \
  template void gram_matrix(const GramShape&, const T*, const T*, Accum<T>*, Accum<T>*, const CudaExec&); \
  template void gram_loss(const GramShape&, const T*, Accum<T>*, const GramLoss<Accum<T>>&, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
