// Two vectors of boxes at a time meet one ground truth after another, without a branch: some box of a vector nearly
// always touches it. The largest overlap of each ground truth is a maximum over lanes and tasks, so it does not depend
// on their order. The low-quality pass goes again through boxes without a match, and there through ground truths whose
// largest overlap is not beyond that of these boxes.
#include "match_boxes.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "box_vector.h"

namespace fastvision {
namespace {

template <class T>
struct Truth {
  Box<T> box;
  T area;
  int64_t index;
};

// Of ordinary boxes, which are empty or have an area in this range, overlaps need no care: see iou() in box.h.
template <class T>
constexpr T kLeastArea = sizeof(T) == 4 ? T(1e-25) : T(1e-280);
template <class T>
constexpr T kMostArea = sizeof(T) == 4 ? T(1e37) : T(1e300);
template <class T>
bool is_ordinary(const Box<T>& b, T area) {
  return width(b) == T(0) || height(b) == T(0) || (area >= kLeastArea<T> && area <= kMostArea<T>);
}

template <class T>
struct BoxVector {
  Box<Vec<T>> boxes;
  Vec<T> areas;
  int64_t count;  // lanes beyond are copies of the last box

  BoxVector() = default;
  BoxVector(const T* p, int64_t n) : count(min_of(n, kLanes<T>)) {
    boxes = load_boxes(p, count);
    areas = area(boxes);
  }
  bool ordinary() const {
    const Vec<T> zero(T(0)), least(kLeastArea<T>), most(kMostArea<T>);
    const auto empty = either(width(boxes) == zero, height(boxes) == zero);
    return !any(!either(empty, both(areas >= least, areas <= most)));
  }
  // Of ordinary boxes; NaN, which is larger than nothing, for two that are empty.
  FV_HD Vec<T> ordinary_overlap(const Truth<T>& t) const {
    const Vec<T> inter = area(intersection(Box<Vec<T>>{t.box.x1, t.box.y1, t.box.x2, t.box.y2}, boxes));
    return inter / (Vec<T>(t.area) + areas - inter);
  }
  Vec<T> overlap(const Truth<T>& t) const {
    Vec<T> v(T(0));
    for (int k = 0; k < count; ++k) {
      const Box<T> box{boxes.x1[k], boxes.y1[k], boxes.x2[k], boxes.y2[k]};
      v.raw[k] = iou(t.box, t.area, box, areas[k]);
    }
    return v;
  }
};

// The best ground truth of each box so far, by its place in the list.
template <class T>
struct BestMatch {
  Vec<T> overlap{T(0)};
  IndexVec<T> place = all_lanes<T>(0);

  FV_HD void add(const Vec<T>& o, const IndexVec<T>& at) {
    const auto better = o > overlap;
    overlap = select(better, o, overlap);
    place = better.raw ? at : place;
  }
};

constexpr int kGroups = 2;

// best_here: the largest overlap of each ground truth in each lane, or null.
template <bool kOrdinary, class T>
FV_HD void match_groups(const std::vector<Truth<T>>& truths, const BoxVector<T> (&groups)[kGroups],
                        BestMatch<T> (&best)[kGroups], Vec<T>* best_here) {
  IndexVec<T> at = all_lanes<T>(0);
  for (size_t j = 0; j < truths.size(); ++j, at += 1) {
    Vec<T> most = best_here ? best_here[j] : Vec<T>(T(0));
    for (int g = 0; g < kGroups; ++g) {
      const Vec<T> o = kOrdinary ? groups[g].ordinary_overlap(truths[j]) : groups[g].overlap(truths[j]);
      best[g].add(o, at);
      most = max_of(most, o);
    }
    if (best_here) best_here[j] = most;
  }
}

template <class T, class Isa>
void match_row(const MatchShape& s, const T* truth, const T* boxes, const bool* valid, int64_t* match, T* overlap,
               T* best_of_truth, const Cpu<Isa>& exec) {
  std::vector<Truth<T>> truths;
  bool ordinary = true;
  for (int64_t j = 0; j < s.truths; ++j) {
    const Box<T> b = load_box(truth + 4 * j);
    if (!valid || valid[j]) {
      truths.push_back({b, area(b), j});
      ordinary &= is_ordinary(b, area(b));
    }
    best_of_truth[j] = T(0);
  }
  if (truths.empty()) {
    std::fill_n(match, s.boxes, kBelowLow);
    std::fill_n(overlap, s.boxes, T(0));
    return;
  }
  constexpr int64_t kStep = kGroups * kLanes<T>;
  const int64_t steps = ceil_div(s.boxes, kStep), grain = 1 + 16384 / int64_t(truths.size());
  std::mutex merging;
  exec(steps, grain, [&](int64_t begin, int64_t end) {
    std::vector<Vec<T>> best_here(s.allow_low_quality ? truths.size() : 0, Vec<T>(T(0)));
    Vec<T>* const best_of_lanes = s.allow_low_quality ? best_here.data() : nullptr;
    for (int64_t i = begin * kStep; i < min_of(end * kStep, s.boxes); i += kStep) {
      BoxVector<T> groups[kGroups];
      BestMatch<T> best[kGroups];
      bool all_ordinary = ordinary;
      for (int g = 0; g < kGroups; ++g) {
        const int64_t from = min_of(i + g * kLanes<T>, s.boxes - 1);  // a group beyond the end: the last box again
        groups[g] = BoxVector<T>(boxes + 4 * from, s.boxes - from);
        all_ordinary &= groups[g].ordinary();
      }
      if (all_ordinary) match_groups<true>(truths, groups, best, best_of_lanes);
      else match_groups<false>(truths, groups, best, best_of_lanes);
      for (int g = 0; g < kGroups; ++g)
        for (int64_t k = 0, o = i + g * kLanes<T>; k < kLanes<T> && o < s.boxes; ++k, ++o) {
          overlap[o] = best[g].overlap[k];
          match[o] = match_code(overlap[o], truths[best[g].place[k]].index, s);
        }
    }
    const std::lock_guard lock(merging);
    for (size_t j = 0; j < best_here.size(); ++j)
      for (int k = 0; k < kLanes<T>; ++k)
        best_of_truth[truths[j].index] = max_of(best_of_truth[truths[j].index], T(best_here[j][k]));
  });
  if (!s.allow_low_quality) return;
  // By their largest overlap, those that nothing overlaps left out: a box is the best of none that has a larger one.
  std::vector<Truth<T>> ranked;
  for (const Truth<T>& t : truths)
    if (best_of_truth[t.index] > T(0)) ranked.push_back(t);
  if (ranked.empty()) return;
  std::sort(ranked.begin(), ranked.end(), [best_of_truth](const Truth<T>& a, const Truth<T>& b) {
    return best_of_truth[a.index] < best_of_truth[b.index];
  });
  const T least = best_of_truth[ranked[0].index];
  exec(ceil_div(s.boxes, kLanes<T>), grain, [&](int64_t begin, int64_t end) {
    for (int64_t v = begin; v < end; ++v) {
      const int64_t i = v * kLanes<T>, count = min_of(kLanes<T>, s.boxes - i);
      T most(0);  // of boxes without a match
      for (int64_t k = 0; k < count; ++k) most = match[i + k] < 0 ? max_of(most, overlap[i + k]) : most;
      if (!(most >= least)) continue;
      const BoxVector<T> group(boxes + 4 * i, count);
      const bool all_ordinary = ordinary && group.ordinary();
      uint32_t chosen = 0;
      for (const Truth<T>& t : ranked) {
        const T best = best_of_truth[t.index];
        if (best > most) break;
        chosen |= bits((all_ordinary ? group.ordinary_overlap(t) : group.overlap(t)) == Vec<T>(best));
      }
      for (int64_t k = 0; k < count; ++k) {
        if (!(chosen >> k & 1) || match[i + k] >= 0) continue;
        const Box<T> box = load_box(boxes + 4 * (i + k));  // the index of its best was overwritten by a code
        for (const Truth<T>& t : truths)
          if (iou(t.box, t.area, box, area(box)) == overlap[i + k]) {
            match[i + k] = t.index;
            break;
          }
      }
    }
  });
}

}  // namespace

template <class T, class Isa>
void match_boxes(const MatchShape& s, const T* truth, const T* boxes, const bool* valid, int64_t* match, T* overlap,
                 T* best_of_truth, const Cpu<Isa>& exec) {
  exec(s.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      match_row(s, truth + 4 * n * s.truths, boxes + 4 * n * s.boxes, valid ? valid + n * s.truths : nullptr,
                match + n * s.boxes, overlap + n * s.boxes, best_of_truth + n * s.truths, exec);
  });
}

#define INSTANTIATE(T) \
  template void match_boxes(const MatchShape&, const T*, const T*, const bool*, int64_t*, T*, T*, const CpuExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
