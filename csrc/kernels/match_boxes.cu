// A thread per box meets every ground truth, staged through shared memory. The largest overlap of each ground truth is
// reduced over a warp by shuffles (only where a box of the warp touches it), over the block in shared memory and over
// blocks by an atomic maximum of its bits; a maximum does not depend on its order. The low-quality rule is a second
// launch that recomputes the overlaps of boxes still without a match: 13 operations a pair, no matrix, 24 bytes a box.
#include "cuda.cuh"
#include "match_boxes.h"

namespace fastvision {
namespace {

constexpr int kStaged = 128;

template <class T>
struct BitsOf;
template <>
struct BitsOf<float> {
  using type = unsigned;
};
template <>
struct BitsOf<double> {
  using type = unsigned long long;
};

// The larger of two floats >= 0, whose bits order as the floats do.
template <class T>
__device__ void atomic_max(T* p, T v) {
  using Bits = typename BitsOf<T>::type;
  atomicMax(reinterpret_cast<Bits*>(p), bit_cast<Bits>(v));
}

template <class T>
struct Stage {
  Box<T> box[kStaged];
  bool usable[kStaged];
};

// Ground truths [first, first + kStaged) for the whole block. Returns how many there are.
template <class T>
__device__ int fill_stage(Stage<T>& stage, const T* truth, const bool* valid, int64_t first, int64_t truths) {
  const int count = int(min_of(truths - first, int64_t(kStaged)));
  __syncthreads();
  for (int k = threadIdx.x; k < count; k += kThreads) {
    stage.box[k] = load_aligned_box(truth + 4 * (first + k));
    stage.usable[k] = !valid || valid[first + k];
  }
  __syncthreads();
  return count;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    match_kernel(MatchShape s, int64_t blocks_per_row, const T* __restrict__ truth, const T* __restrict__ boxes,
                 const bool* __restrict__ valid, int64_t* __restrict__ match, T* __restrict__ overlap,
                 T* __restrict__ best_of_truth) {
  FV_SHARED(stage, Stage<T>);
  FV_SHARED(warp_best, T[kThreads / 32][kStaged]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t row = blockIdx.x / blocks_per_row, i = blockIdx.x % blocks_per_row * kThreads + threadIdx.x;
  const bool active = i < s.boxes;
  const Box<T> box = active ? load_aligned_box(boxes + 4 * (row * s.boxes + i)) : Box<T>{};
  const T box_area = area(box);
  T best(0);
  int64_t index = -1;
  for (int64_t first = 0; first < s.truths; first += kStaged) {
    const int count =
        fill_stage(stage, truth + 4 * row * s.truths, valid ? valid + row * s.truths : nullptr, first, s.truths);
    for (int k = 0; k < count; ++k) {
      const bool usable = stage.usable[k];
      const T o = usable && active ? iou(stage.box[k], area(stage.box[k]), box, box_area) : T(0);
      if (usable && (index < 0 || o > best)) best = o, index = first + k;
      if (s.allow_low_quality) {
        T most = o;
        if (__any_sync(kFullWarp, o > T(0)))
          for (int step = 16; step; step /= 2) most = max_of(most, __shfl_xor_sync(kFullWarp, most, step));
        if (lane == 0) warp_best[warp][k] = most;
      }
    }
    if (!s.allow_low_quality) continue;
    __syncthreads();
    for (int k = threadIdx.x; k < count; k += kThreads) {
      T most(0);
      for (int w = 0; w < kThreads / 32; ++w) most = max_of(most, warp_best[w][k]);
      if (most > T(0)) atomic_max(best_of_truth + row * s.truths + first + k, most);
    }
  }
  if (!active) return;
  overlap[row * s.boxes + i] = best;
  match[row * s.boxes + i] = index < 0 ? kBelowLow : match_code(best, index, s);
}

template <class T>
__global__ void __launch_bounds__(kThreads, 2)
    low_quality_kernel(MatchShape s, int64_t blocks_per_row, const T* __restrict__ truth, const T* __restrict__ boxes,
                       const bool* __restrict__ valid, int64_t* __restrict__ match, const T* __restrict__ overlap,
                       const T* __restrict__ best_of_truth) {
  FV_SHARED(stage, Stage<T>);
  const int64_t row = blockIdx.x / blocks_per_row, i = blockIdx.x % blocks_per_row * kThreads + threadIdx.x;
  const T own = i < s.boxes && match[row * s.boxes + i] < 0 ? overlap[row * s.boxes + i] : T(0);
  const bool open = own > T(0);
  if (!__syncthreads_or(open)) return;
  const Box<T> box = open ? load_aligned_box(boxes + 4 * (row * s.boxes + i)) : Box<T>{};
  const T box_area = area(box);
  int64_t index = -1;
  bool chosen = false;
  for (int64_t first = 0; first < s.truths; first += kStaged) {
    const int count =
        fill_stage(stage, truth + 4 * row * s.truths, valid ? valid + row * s.truths : nullptr, first, s.truths);
    for (int k = 0; k < count && open; ++k) {
      if (!stage.usable[k]) continue;
      const T o = iou(stage.box[k], area(stage.box[k]), box, box_area);
      if (index < 0 && o == own) index = first + k;
      chosen |= o > T(0) && o == best_of_truth[row * s.truths + first + k];
    }
  }
  if (open && chosen) match[row * s.boxes + i] = index;
}

}  // namespace

template <class T>
void match_boxes(const MatchShape& s, const T* truth, const T* boxes, const bool* valid, int64_t* match, T* overlap,
                 T* best_of_truth, const CudaExec& exec) {
  if (s.batch * s.boxes == 0) return;
  const int64_t blocks = ceil_div(s.boxes, int64_t(kThreads));
  fill_bytes(exec, best_of_truth, 0, size_t(s.batch * s.truths) * sizeof(T));
  launch(exec, match_kernel<T>, unsigned(s.batch * blocks), kThreads, 0, s, blocks, truth, boxes, valid, match, overlap,
         best_of_truth);
  if (s.allow_low_quality)
    launch(exec, low_quality_kernel<T>, unsigned(s.batch * blocks), kThreads, 0, s, blocks, truth, boxes, valid, match,
           overlap, best_of_truth);
}

#define INSTANTIATE(T) \
  template void match_boxes(const MatchShape&, const T*, const T*, const bool*, int64_t*, T*, T*, const CudaExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
