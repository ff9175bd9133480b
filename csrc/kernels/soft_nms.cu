// A block takes a group, or a whole row without groups. Thread t owns the positions t, t + threads, ... and alone reads
// and writes their scores. Keeping a box takes one pass and one barrier: each thread lowers its scores by the box kept
// last and remembers its best; warps reduce by redux, their results meet in shared memory (two places in turn, so that
// the next step needs no second barrier), and every warp finds the best of them itself. Bound by that chain, about
// 0.3 us a step, and by (boxes alive) x (boxes kept) overlaps; groups run side by side. Memory is linear.
#include "cuda.cuh"
#include "soft_nms.h"

namespace fastvision {
namespace {

constexpr int kWide = 512, kNarrow = 128;
constexpr int64_t kStretch = 32;  // positions per block, of which it owns the groups that start there
constexpr uint32_t kNowhere = ~0u;

// Unsigned numbers in the order of the scores; 0 for none.
__device__ __forceinline__ uint32_t rising_key(float v) {
  const uint32_t u = bit_cast<uint32_t>(v == 0.0f ? 0.0f : v);
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}
__device__ __forceinline__ uint64_t rising_key(double v) {
  const uint64_t u = bit_cast<uint64_t>(v == 0.0 ? 0.0 : v);
  return u >> 63 ? ~u : u | 0x8000000000000000ull;
}
__device__ __forceinline__ float score_of(uint32_t key) {
  return bit_cast<float>(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}
__device__ __forceinline__ double score_of(uint64_t key) {
  return bit_cast<double>(key >> 63 ? key & 0x7fffffffffffffffull : ~key);
}

__device__ __forceinline__ uint32_t warp_max(uint32_t key) { return __reduce_max_sync(kFullWarp, key); }
__device__ __forceinline__ uint64_t warp_max(uint64_t key) {
  const uint32_t high = __reduce_max_sync(kFullWarp, uint32_t(key >> 32));
  const uint32_t low = __reduce_max_sync(kFullWarp, uint32_t(key >> 32) == high ? uint32_t(key) : 0u);
  return uint64_t(high) << 32 | low;
}

// A score and where it stands: within the group, so that 32 bits do.
template <class Key>
struct Candidate {
  Key key;
  uint32_t place;
};
template <class Key>
__device__ __forceinline__ Candidate<Key> warp_best(Candidate<Key> c) {
  const Key key = warp_max(c.key);
  return {key, __reduce_min_sync(kFullWarp, c.key == key ? c.place : kNowhere)};
}

template <int kBlock, SoftNmsMethod kMethod, class T>
__global__ void __launch_bounds__(kBlock)
    soft_nms_kernel(SoftNmsShape s, SoftNmsArguments<T> a, SoftNmsOrder<T> order, int64_t stretches, Decay<T> decay) {
  using Key = decltype(rising_key(T()));
  FV_SHARED(found, Candidate<Key>[2][kBlock / 32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t row = blockIdx.x / stretches, base = row * s.boxes, first = blockIdx.x % stretches * kStretch;
  const int64_t* groups = order.groups ? order.groups + base : nullptr;
  int turn = 0;
  for (int64_t start = first; start < min_of(first + kStretch, groups ? s.boxes : int64_t(1)); ++start) {
    if (groups && start > 0 && groups[start] == groups[start - 1]) continue;
    const T* boxes = (groups ? order.boxes : a.boxes) + 4 * (base + start);
    T* current = order.current + base + start;
    const int64_t* indices = groups ? order.by_position + base + start : nullptr;

    Candidate<Key> mine{0, kNowhere};
    uint32_t end = threadIdx.x;  // behind the last place that this thread owns
    for (; start + end < s.boxes && (!groups || groups[start + end] == groups[start]); end += kBlock) {
      const int64_t i = base + (indices ? indices[end] : end);
      const Box<T> box = load_aligned_box(a.boxes + 4 * i);
      const T score = a.scores[i];
      const bool alive = (!a.valid || a.valid[i]) && takes_part(box, score, s.score_threshold);
      if (groups) store_box(order.boxes + 4 * (base + start + end), box);
      current[end] = alive ? score : T(-INFINITY);
      order.final_scores[i] = T(-INFINITY);
      if (alive && rising_key(score) > mine.key) mine = {rising_key(score), end};
    }
    for (int64_t count = 0;; ++count, turn ^= 1) {
      const Candidate<Key> of_warp = warp_best(mine);
      if (lane == 0) found[turn][warp] = of_warp;
      __syncthreads();
      Candidate<Key> best{0, kNowhere};
      if (lane < kBlock / 32) best = found[turn][lane];
      best = warp_best(best);
      if (best.key == 0 || count == s.max_output) break;
      if (best.place % kBlock == threadIdx.x) {
        order.final_scores[base + (indices ? indices[best.place] : best.place)] = score_of(best.key);
        current[best.place] = T(-INFINITY);
      }
      const Box<T> kept = load_aligned_box(boxes + 4 * int64_t(best.place));
      mine = {0, kNowhere};
      for (uint32_t place = threadIdx.x; place < end; place += kBlock) {
        T score = current[place];
        if (!(score > T(-INFINITY))) continue;
        const Box<T> box = load_aligned_box(boxes + 4 * int64_t(place));
        const T overlap = iou(kept, area(kept), box, area(box));
        if (overlap > T(0)) {
          score = decayed<kMethod>(score, overlap, decay);
          current[place] = score;
        }
        if (score > T(-INFINITY) && rising_key(score) > mine.key) mine = {rising_key(score), place};
      }
    }
    turn ^= 1;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    collect_kernel(SoftNmsShape s, const T* __restrict__ sorted, const int64_t* __restrict__ by_score,
                   SoftNmsArguments<T> a) {
  FV_FOR(i, s.batch * (s.max_output + 1)) {
    const int64_t row = i / (s.max_output + 1), k = i % (s.max_output + 1), base = row * s.boxes;
    const bool filled = k < s.boxes && sorted[base + k] > T(-INFINITY);
    if (k < s.max_output) {
      a.keep[row * s.max_output + k] = filled ? by_score[base + k] : -1;
      a.kept_scores[row * s.max_output + k] = filled ? sorted[base + k] : T(0);
    }
    // The count is the place of the first that is not kept, which one thread of the row finds.
    const bool all_before = k == 0 || (k <= s.boxes && sorted[base + k - 1] > T(-INFINITY));
    if (all_before && (!filled || k == s.max_output)) a.count[row] = k;
  }
}

}  // namespace

template <class T>
void soft_nms(const SoftNmsShape& s, const SoftNmsArguments<T>& a, const SoftNmsOrder<T>& order, const CudaExec& exec) {
  if (s.batch == 0 || s.boxes == 0) return;
  const Decay<T> decay(s);
  with_method(s.method, [&](auto method) {
    constexpr SoftNmsMethod k = decltype(method)::value;
    const int64_t stretches = order.groups ? ceil_div(s.boxes, kStretch) : 1;
    const unsigned blocks = unsigned(s.batch * stretches);
    if (order.groups) launch(exec, soft_nms_kernel<kNarrow, k, T>, blocks, kNarrow, 0, s, a, order, stretches, decay);
    else launch(exec, soft_nms_kernel<kWide, k, T>, blocks, kWide, 0, s, a, order, stretches, decay);
  });
}

template <class T>
void soft_nms_collect(const SoftNmsShape& s, const T* sorted, const int64_t* by_score, const SoftNmsArguments<T>& a,
                      const CudaExec& exec) {
  const int64_t places = s.batch * (s.max_output + 1);
  if (places > 0) launch(exec, collect_kernel<T>, grid_for(places), kThreads, 0, s, sorted, by_score, a);
}

#define INSTANTIATE(T)                                                                                              \
  template void soft_nms(const SoftNmsShape&, const SoftNmsArguments<T>&, const SoftNmsOrder<T>&, const CudaExec&); \
  template void soft_nms_collect(const SoftNmsShape&, const T*, const int64_t*, const SoftNmsArguments<T>&,         \
                                 const CudaExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
