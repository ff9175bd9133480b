// A block takes a group (or a whole row without groups) in tiles of its thread count, one candidate per thread, in
// order of score. A tile meets the boxes that the group has kept, read through shared memory; then its warps resolve
// one after another: inside a warp 32 x 32 bits and a walk over the survivors, between warps the survivors only. Work
// is (candidates still alive) x (kept boxes), 13 operations each; memory is linear. A single large group would use one
// multiprocessor, so there the host launches tile by tile: one block resolves a tile, then all blocks test the
// candidates behind it against what it kept.
#include "cuda.cuh"
#include "nms.h"

namespace fastvision {
namespace {

constexpr int64_t kOneBlock = 8192;  // larger ungrouped rows go tile by tile
constexpr int kNarrow = 256;
template <class B>
constexpr int kWide = 1024;
template <class T>
constexpr int kWide<RotatedBox<T>> = 512;  // their overlap takes more than 64 registers
constexpr int kCollect = 1024;

template <class B>
struct Candidate {
  B box;
  Scalar<B> area;
  bool alive;
};

template <class T>
__device__ Box<T> load_whole(const Box<T>* box) {
  return load_aligned_box(&box->x1);
}
template <class T>
__device__ RotatedBox<T> load_whole(const RotatedBox<T>* box) {
  return *box;
}

template <class B>
__device__ Candidate<B> load_candidate(const NmsShape& s, const NmsArguments<B>& a, const NmsOrder<B>& order,
                                       int64_t row, int64_t rank) {
  const int64_t i = row * s.boxes + order.by_rank[row * s.boxes + rank];
  const B box = load_whole(a.boxes + i);
  return {box, area(box), (!a.valid || a.valid[i]) && takes_part(box, a.scores[i], s.score_threshold)};
}

// Tests one candidate per thread against count boxes, staged through shared memory by the whole block.
template <int kTile, class B>
__device__ void meet(Candidate<B>& c, const B* kept, int64_t count, Scalar<B> threshold, B* staged) {
  for (int64_t begin = 0; begin < count; begin += kTile) {
    __syncthreads();
    if (begin + threadIdx.x < count) staged[threadIdx.x] = kept[begin + threadIdx.x];
    __syncthreads();
    const int here = int(min_of(count - begin, int64_t(kTile)));
    for (int k = 0; k < here && c.alive; ++k)
      if (suppresses(staged[k], area(staged[k]), c.box, c.area, threshold)) c.alive = false;
  }
}

// Resolves a tile within itself. Returns the number of boxes kept; c.alive and *place tell whether and where the
// thread's own candidate is among them.
template <int kTile, class B>
__device__ int resolve_tile(Candidate<B>& c, Scalar<B> threshold, B* tile, int* place) {
  FV_SHARED(kept_lanes, unsigned[kTile / 32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();
  tile[threadIdx.x] = c.box;
  __syncthreads();
  unsigned behind = 0;  // lanes of this warp that this candidate suppresses if it is kept
  if (c.alive)
    for (int k = lane + 1; k < 32; ++k) {
      const B other = tile[warp * 32 + k];
      if (suppresses(c.box, c.area, other, area(other), threshold)) behind |= 1u << k;
    }
  for (int w = 0; w < kTile / 32; ++w) {
    if (warp == w) {
      unsigned pending = __ballot_sync(kFullWarp, c.alive), kept = 0;
      while (pending) {
        const int first = __ffs(int(pending)) - 1;
        kept |= 1u << first;
        pending &= ~(1u << first) & ~__shfl_sync(kFullWarp, behind, first);
      }
      c.alive = kept >> lane & 1;
      if (lane == 0) kept_lanes[w] = kept;
    }
    __syncthreads();
    if (warp > w && c.alive)
      for (unsigned left = kept_lanes[w]; left; left &= left - 1) {
        const B other = tile[w * 32 + __ffs(int(left)) - 1];
        if (suppresses(other, area(other), c.box, c.area, threshold)) {
          c.alive = false;
          break;
        }
      }
  }
  int total = 0;
  *place = 0;
  for (int w = 0; w < kTile / 32; ++w) {
    if (w == warp) *place = total + __popc(kept_lanes[w] & ((1u << lane) - 1));
    total += __popc(kept_lanes[w]);
  }
  return total;
}

// A block owns the groups that start in its stretch of positions; without groups, block 0 of a row owns it.
template <int kTile, class B>
__global__ void __launch_bounds__(kTile)
    group_kernel(NmsShape s, NmsArguments<B> a, NmsOrder<B> order, int64_t stretches, Scalar<B> threshold) {
  FV_SHARED(staged, B[kTile]);
  const int64_t row = blockIdx.x / stretches, base = row * s.boxes, first = blockIdx.x % stretches * kTile;
  const int64_t* groups = order.groups ? order.groups + base : nullptr;
  for (int64_t start = first; start < min_of(first + kTile, groups ? s.boxes : int64_t(1)); ++start) {
    if (groups && start > 0 && groups[start] == groups[start - 1]) continue;
    B* kept = order.kept_boxes + base + start;
    int64_t count = 0;
    for (int64_t tile = start; tile < s.boxes && count < s.max_output; tile += kTile) {
      const int64_t position = tile + threadIdx.x;
      const bool inside = position < s.boxes && (!groups || groups[position] == groups[start]);
      const int64_t rank = inside && groups ? order.by_position[base + position] : position;
      Candidate<B> c{};
      if (inside) c = load_candidate(s, a, order, row, rank);
      meet<kTile>(c, kept, count, threshold, staged);
      int place;
      const int here = resolve_tile<kTile>(c, threshold, staged, &place);
      if (c.alive) {
        kept[count + place] = c.box;
        order.alive[base + rank] = true;
      }
      count += here;
      if (!__syncthreads_and(inside)) break;
    }
  }
}

// One tile of a large row without groups: which of its candidates are kept. kept_counts: of this tile, of all so far.
template <class B>
__global__ void __launch_bounds__(kWide<B>)
    resolve_kernel(NmsShape s, NmsArguments<B> a, NmsOrder<B> order, int64_t tile, Scalar<B> threshold) {
  constexpr int kTile = kWide<B>;
  FV_SHARED(staged, B[kTile]);
  const int64_t row = blockIdx.x, base = row * s.boxes, rank = tile + threadIdx.x;
  int64_t* counts = order.kept_counts + 2 * row;
  const int64_t so_far = tile == 0 ? 0 : counts[1];
  Candidate<B> c{};
  if (rank < s.boxes && order.alive[base + rank] && so_far < s.max_output) c = load_candidate(s, a, order, row, rank);
  int place;
  const int here = resolve_tile<kTile>(c, threshold, staged, &place);
  if (rank < s.boxes) order.alive[base + rank] = c.alive;
  if (c.alive) order.kept_boxes[base + tile + place] = c.box;
  if (threadIdx.x == 0) {
    counts[0] = here;
    counts[1] = so_far + here;
  }
}

// The candidates behind that tile against what it kept.
template <class B>
__global__ void __launch_bounds__(kNarrow)
    suppress_kernel(NmsShape s, NmsArguments<B> a, NmsOrder<B> order, int64_t tile, int64_t stretches,
                    Scalar<B> threshold) {
  FV_SHARED(staged, B[kNarrow]);
  const int64_t row = blockIdx.x / stretches, base = row * s.boxes;
  const int64_t rank = tile + kWide<B> + blockIdx.x % stretches * kNarrow + threadIdx.x;
  Candidate<B> c{};
  if (rank < s.boxes && order.alive[base + rank]) c = load_candidate(s, a, order, row, rank);
  const bool was_alive = c.alive;
  meet<kNarrow>(c, order.kept_boxes + base + tile, order.kept_counts[2 * row], threshold, staged);
  if (was_alive && !c.alive) order.alive[base + rank] = false;
}

// The kept boxes of a row in order of score, then -1.
template <class B>
__global__ void __launch_bounds__(kCollect) collect_kernel(NmsShape s, NmsArguments<B> a, NmsOrder<B> order) {
  FV_SHARED(warp_counts, int[kCollect / 32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t row = blockIdx.x, base = row * s.boxes;
  int64_t* keep = a.keep + row * s.max_output;
  int64_t count = 0;
  for (int64_t tile = 0; tile < s.boxes && count < s.max_output; tile += kCollect) {
    const int64_t rank = tile + threadIdx.x;
    const bool alive = rank < s.boxes && order.alive[base + rank];
    const unsigned ballot = __ballot_sync(kFullWarp, alive);
    __syncthreads();
    if (lane == 0) warp_counts[warp] = __popc(ballot);
    __syncthreads();
    int64_t place = count + __popc(ballot & ((1u << lane) - 1));
    for (int w = 0; w < kCollect / 32; ++w) {
      if (w < warp) place += warp_counts[w];
      count += warp_counts[w];
    }
    if (alive && place < s.max_output) keep[place] = order.by_rank[base + rank];
  }
  count = min_of(count, s.max_output);
  for (int64_t i = count + threadIdx.x; i < s.max_output; i += kCollect) keep[i] = -1;
  if (threadIdx.x == 0) a.count[row] = count;
}

}  // namespace

template <class B>
void nms(const NmsShape& s, const NmsArguments<B>& a, const NmsOrder<B>& order, const CudaExec& exec) {
  if (s.batch == 0) return;
  const Scalar<B> threshold = threshold_in(s.iou_threshold, Scalar<B>());
  const unsigned rows = unsigned(s.batch);
  const size_t flags = size_t(s.batch * s.boxes);
  if (s.boxes > 0 && order.groups) {
    const int64_t stretches = ceil_div(s.boxes, int64_t(kNarrow));
    fill_bytes(exec, order.alive, 0, flags);
    launch(exec, group_kernel<kNarrow, B>, unsigned(rows * stretches), kNarrow, 0, s, a, order, stretches, threshold);
  } else if (s.boxes > 0 && s.boxes <= kOneBlock) {
    fill_bytes(exec, order.alive, 0, flags);
    launch(exec, group_kernel<kWide<B>, B>, rows, kWide<B>, 0, s, a, order, int64_t(1), threshold);
  } else if (s.boxes > 0) {
    fill_bytes(exec, order.alive, 1, flags);
    for (int64_t tile = 0; tile < s.boxes; tile += kWide<B>) {
      launch(exec, resolve_kernel<B>, rows, kWide<B>, 0, s, a, order, tile, threshold);
      const int64_t stretches = ceil_div(s.boxes - tile - kWide<B>, int64_t(kNarrow));
      if (stretches > 0)
        launch(exec, suppress_kernel<B>, unsigned(rows * stretches), kNarrow, 0, s, a, order, tile, stretches,
               threshold);
    }
  }
  launch(exec, collect_kernel<B>, rows, kCollect, 0, s, a, order);
}

#define INSTANTIATE(B) template void nms(const NmsShape&, const NmsArguments<B>&, const NmsOrder<B>&, const CudaExec&);
FV_NMS_BOXES(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
