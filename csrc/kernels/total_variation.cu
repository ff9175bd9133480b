// Forward: a block takes 8 rows of a plane (and up to 32 of its channels in channels_last), a warp for each, its
// threads neighbouring pixels; the rows below and the pixels to the right come from the cache. Sums go from the threads
// through shared memory in a fixed tree to one number per block, and a second launch adds up the blocks. Bound by
// reading x once. Backward: a thread per pixel recomputes the slopes that it needs: x is read once from memory and the
// result written.
#include "cuda.cuh"
#include "total_variation.h"

namespace fastvision {
namespace {

template <class T>
__device__ __forceinline__ Differences<Accum<T>> differences_at(const TotalVariationShape& s, const T* p, int64_t y,
                                                                int64_t x) {
  using A = Accum<T>;
  const A here = to_accum(*p);
  return {y + 1 < s.height ? to_accum(p[s.row()]) - here : A(0),
          x + 1 < s.width ? to_accum(p[s.channels]) - here : A(0)};
}

// lanes: a power of two, how many threads side by side take neighbouring channels.
template <Penalty kind, class T>
__global__ void __launch_bounds__(kThreads)
    sum_kernel(TotalVariationShape s, int lanes, const T* __restrict__ x, double* __restrict__ partial) {
  using A = Accum<T>;
  static_assert(kThreads == 32 * TotalVariationShape::kRows);
  FV_SHARED(sums, double[kThreads]);
  const int64_t groups = ceil_div(s.channels, int64_t(lanes));
  for (int64_t block = blockIdx.x; block < s.planes * s.pieces() * groups; block += gridDim.x) {
    const int64_t piece = block / groups % s.pieces(), plane = block / groups / s.pieces();
    const int64_t c = block % groups * lanes + threadIdx.x % lanes;
    const int64_t y = piece * s.kRows + threadIdx.x / 32;
    const T* row = x + (plane * s.height + y) * s.row() + c;
    A sum(0);
    if (y < s.height && c < s.channels)
      for (int64_t i = threadIdx.x % 32 / lanes; i < s.width; i += 32 / lanes)
        sum += penalty_of<kind>(differences_at(s, row + i * s.channels, y, i), s.beta);
    sums[threadIdx.x] = double(sum);
    __syncthreads();
    for (int step = kThreads / 2; step >= lanes; step /= 2) {
      if (int(threadIdx.x) < step) sums[threadIdx.x] += sums[threadIdx.x + step];
      __syncthreads();
    }
    if (int(threadIdx.x) < lanes && c < s.channels)
      partial[(plane * s.pieces() + piece) * s.channels + c] = sums[threadIdx.x];
  }
}

template <class A>
__global__ void __launch_bounds__(kThreads)
    total_kernel(TotalVariationShape s, const double* __restrict__ partial, A* __restrict__ sums) {
  FV_FOR(i, s.planes * s.channels) {
    const double* from = partial + i / s.channels * s.pieces() * s.channels + i % s.channels;
    double total = 0;
    for (int64_t k = 0; k < s.pieces(); ++k) total += from[k * s.channels];
    sums[i] = A(total);
  }
}

template <Penalty kind, class T>
__global__ void __launch_bounds__(kThreads) backward_kernel(TotalVariationShape s, const Accum<T>* __restrict__ grad,
                                                            const T* __restrict__ x, T* __restrict__ grad_x) {
  using A = Accum<T>;
  FV_FOR(i, s.planes * s.height * s.row()) {
    const int64_t column = i / s.channels % s.width, y = i / s.row() % s.height;
    const auto slope = [&](const T* p, int64_t y, int64_t x) {
      return slope_of<kind>(differences_at(s, p, y, x), s.beta);
    };
    const auto own = slope(x + i, y, column);
    const A above = y > 0 ? slope(x + i - s.row(), y - 1, column).y : A(0);
    const A left = column > 0 ? slope(x + i - s.channels, y, column - 1).x : A(0);
    const A factor = grad[i / (s.height * s.row()) * s.channels + i % s.channels];
    grad_x[i] = from_accum<T>(factor * ((above - own.y) + (left - own.x)));
  }
}

}  // namespace

template <class T>
void total_variation(const TotalVariationShape& s, Penalty penalty, const T* x, double* scratch, Accum<T>* sums,
                     const CudaExec& exec) {
  int lanes = 1;
  while (lanes < s.channels && lanes < 32) lanes *= 2;
  const int64_t blocks = s.planes * s.pieces() * ceil_div(s.channels, int64_t(lanes));
  if (s.planes * s.channels == 0) return;
  with_penalty(penalty, [&](auto kind) {
    if (blocks > 0)
      launch(exec, sum_kernel<decltype(kind)::value, T>, grid_for(blocks, 1), kThreads, 0, s, lanes, x, scratch);
  });
  launch(exec, total_kernel<Accum<T>>, grid_for(s.planes * s.channels), kThreads, 0, s, scratch, sums);
}

template <class T>
void total_variation_backward(const TotalVariationShape& s, Penalty penalty, const Accum<T>* grad, const T* x,
                              T* grad_x, const CudaExec& exec) {
  const int64_t items = s.planes * s.height * s.row();
  if (items == 0) return;
  with_penalty(penalty, [&](auto kind) {
    launch(exec, backward_kernel<decltype(kind)::value, T>, grid_for(items), kThreads, 0, s, grad, x, grad_x);
  });
}

#define INSTANTIATE(T)                                                                                               \
  template void total_variation(const TotalVariationShape&, Penalty, const T*, double*, Accum<T>*, const CudaExec&); \
  template void total_variation_backward(const TotalVariationShape&, Penalty, const Accum<T>*, const T*, T*,         \
                                         const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
