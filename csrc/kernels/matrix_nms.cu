// For a chunk of items at a time: a thread per pair computes the overlaps with the items before, then a warp per item
// finds its largest overlap, then, since that of every item before is known by now, what is left of its score. Bound by
// the overlaps, which are written once and read twice, mostly in the second-level cache: there are at most 4 million of
// them at a time, or 32 rows. Pairs of masks are counted as in mask_iou.cu.
#include "cuda.cuh"
#include "matrix_nms.h"

namespace fastvision {
namespace {

template <class T>
__device__ __forceinline__ T warp_max(T v) {
  FV_UNROLL
  for (int step = 16; step; step /= 2) v = max_of(v, __shfl_xor_sync(kFullWarp, v, step));
  return v;
}

// Rows are the positions from `begin` on, columns all before `begin + rows`.
template <class T>
__global__ void __launch_bounds__(kThreads) overlap_kernel(MatrixNmsShape s, MatrixNmsArguments<T> a,
                                                           MatrixNmsScratch<T> scratch, int64_t begin, int64_t rows) {
  const int64_t cols = begin + rows;
  FV_FOR(k, s.batch * rows * cols) {
    const int64_t line = k / cols, i = k % cols, base = line / rows * s.items, one = begin + line % rows;
    if (i >= one) continue;  // nobody reads those
    const int64_t at = line * s.items + i;
    T overlap = 0;
    if (!a.groups || a.groups[base + i] == a.groups[base + one]) {
      const int64_t item = base + a.order[base + one], other = base + a.order[base + i];
      if (takes_part(a, item) && takes_part(a, other)) {
        if (a.boxes) {
          const Box<T> p = load_aligned_box(a.boxes + 4 * item), q = load_aligned_box(a.boxes + 4 * other);
          overlap = iou(p, area(p), q, area(q));
        } else {
          overlap = mask_overlap_as<T>(scratch.intersections[at], a.areas[base + one], a.areas[base + i]);
        }
      }
    }
    scratch.overlaps[at] = overlap;
  }
}

// A warp takes a row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    compensation_kernel(MatrixNmsShape s, MatrixNmsScratch<T> scratch, int64_t begin, int64_t rows) {
  const int lane = threadIdx.x % 32;
  for (int64_t line = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32; line < s.batch * rows;
       line += int64_t(gridDim.x) * kThreads / 32) {
    const int64_t one = begin + line % rows;
    T most = 0;
    for (int64_t i = lane; i < one; i += 32) most = max_of(most, scratch.overlaps[line * s.items + i]);
    most = warp_max(most);
    if (lane == 0) scratch.compensation[line / rows * s.items + one] = most;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    score_kernel(MatrixNmsShape s, MatrixNmsArguments<T> a, MatrixNmsScratch<T> scratch, int64_t begin, int64_t rows) {
  const int lane = threadIdx.x % 32;
  for (int64_t line = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32; line < s.batch * rows;
       line += int64_t(gridDim.x) * kThreads / 32) {
    const int64_t base = line / rows * s.items, one = begin + line % rows;
    T excess = 0, factor = 1;
    for (int64_t i = lane; i < one; i += 32) {
      const T overlap = scratch.overlaps[line * s.items + i], before = scratch.compensation[base + i];
      if (s.kernel == MatrixNmsKernel::gaussian) excess = max_of(excess, squared_excess<T>(overlap, before));
      else factor = min_of(factor, linear_factor<T>(overlap, before));
    }
    excess = warp_max(excess);
    factor = -warp_max(-factor);
    const int64_t item = base + a.order[base + one];
    if (lane == 0) a.out[item] = takes_part(a, item) ? matrix_nms_score(s, a.scores[item], excess, factor) : T(0);
  }
}

}  // namespace

template <class T>
void matrix_nms(const MatrixNmsShape& s, const MatrixNmsArguments<T>& a, const MatrixNmsScratch<T>& scratch,
                const CudaExec& exec) {
  if (s.batch == 0) return;
  for (int64_t begin = 0; begin < s.items; begin += scratch.chunk) {
    const int64_t rows = min_of(scratch.chunk, s.items - begin), cols = begin + rows;
    if (!a.boxes) {
      const MaskPairs pairs{s.batch, rows, cols, a.mask_words, s.items, s.items, s.items, begin};
      count_intersections(pairs, a.words + begin * a.mask_words, a.words, scratch.intersections, exec);
    }
    launch(exec, overlap_kernel<T>, grid_for(s.batch * rows * cols), kThreads, 0, s, a, scratch, begin, rows);
    launch(exec, compensation_kernel<T>, grid_for(s.batch * rows * 32), kThreads, 0, s, scratch, begin, rows);
    launch(exec, score_kernel<T>, grid_for(s.batch * rows * 32), kThreads, 0, s, a, scratch, begin, rows);
  }
}

#define INSTANTIATE(T)                                                                                      \
  template void matrix_nms(const MatrixNmsShape&, const MatrixNmsArguments<T>&, const MatrixNmsScratch<T>&, \
                           const CudaExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
