// One pass over the scores collects those above a bar: the threshold at first, then the k-th of what was collected
// whenever there is twice as much. Few scores pass, so that reading them is what takes the time.
#include "top_scores.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <vector>

#include "ranked.h"
#include "simd.h"

namespace fastvision {
namespace {

// The largest number of type A up to the threshold: a score is above both or neither.
template <class A>
A bar_of(double threshold) {
  constexpr A kLargest = std::numeric_limits<A>::max();
  if (threshold > double(kLargest)) return kLargest;
  const A nearest = A(threshold);
  return double(nearest) > threshold ? std::nextafter(nearest, -std::numeric_limits<A>::infinity()) : nearest;
}

// Adds the best k of scores [begin, end) that are above the bar.
template <class T>
void collect(const T* scores, int64_t begin, int64_t end, int64_t k, Accum<T> bar,
             std::vector<Ranked<Accum<T>>>& found) {
  using A = Accum<T>;
  using V = Vec<A>;
  const size_t most = size_t(2 * k + 512);
  for (int64_t i = begin; i < end; i += V::kLanes) {
    const int64_t count = min_of<int64_t>(end - i, V::kLanes);
    const V x = count == V::kLanes ? load_vector(scores + i) : load_vector(scores + i, count);
    for (uint32_t above = bits(both(x > V(bar), lanes_in_range<A>(count))); above; above &= above - 1) {
      const int lane = __builtin_ctz(above);
      found.push_back({x[lane], i + lane});
    }
    if (found.size() < most) continue;
    keep_best(found, k);
    bar = found.back().score;
  }
}

template <class T>
void finish_row(const TopScoresShape& s, const T* scores, Accum<T> bar, std::vector<Ranked<Accum<T>>>& found,
                int64_t* top) {
  keep_best(found, s.k);
  std::sort(found.begin(), found.end(), InOrder<Accum<T>>());
  for (const auto& one : found) *top++ = one.index;
  // Too few: all that pass are there, then come the others.
  int64_t missing = s.k - int64_t(found.size());
  for (int64_t i = 0; missing > 0; ++i)
    if (!(to_accum(scores[i]) > bar)) *top++ = i, --missing;
}

}  // namespace

template <class T, class Isa>
void top_scores(const TopScoresShape& s, const T* scores, int64_t* top, const Cpu<Isa>& exec) {
  using Found = std::vector<Ranked<Accum<T>>>;
  constexpr int64_t kBlock = 4096;
  const auto bar = bar_of<Accum<T>>(s.threshold);
  if (s.k == 0) return;
  if (s.rows > 1) {
    exec(s.rows, 1 + 8 * kBlock / s.scores, [&](int64_t begin, int64_t end) {
      Found found;
      for (int64_t row = begin; row < end; ++row) {
        found.clear();
        collect(scores + row * s.scores, 0, s.scores, s.k, bar, found);
        finish_row(s, scores + row * s.scores, bar, found, top + row * s.k);
      }
    });
    return;
  }
  // The total order makes the result that of any division into parts.
  Found found;
  std::mutex merging;
  exec(ceil_div(s.scores, kBlock), 16, [&](int64_t begin, int64_t end) {
    Found part;
    collect(scores, begin * kBlock, min_of(end * kBlock, s.scores), s.k, bar, part);
    const std::lock_guard<std::mutex> lock(merging);
    found.insert(found.end(), part.begin(), part.end());
  });
  finish_row(s, scores, bar, found, top);
}

#define INSTANTIATE(T) template void top_scores(const TopScoresShape&, const T*, int64_t*, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
