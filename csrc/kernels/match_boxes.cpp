// Vectors of boxes meet one ground truth after another; most do not touch, which costs no division. The largest overlap
// of each ground truth is a maximum over tasks, so it does not depend on their order.
#include "match_boxes.h"

#include <limits>
#include <mutex>
#include <vector>

#include "simd.h"

namespace fastvision {
namespace {

template <class T>
constexpr int64_t kLanes = Vec<T>::kLanes;

template <class T>
struct Truth {
  Box<T> box;
  T area;
  int64_t index;
  bool ordinary;  // see iou() in box.h
};

template <class T>
bool is_ordinary(const Box<T>& b, T area) {
  const T least = sizeof(T) == 4 ? T(1e-25) : T(1e-280), most = sizeof(T) == 4 ? T(1e37) : T(1e300);
  return width(b) == T(0) || height(b) == T(0) || (area >= least && area <= most);
}

template <class T>
struct BoxVector {
  Box<Vec<T>> boxes;
  Vec<T> areas;
  int64_t count;
  bool ordinary = true;

  BoxVector(const T* p, int64_t n) : count(min_of(n, kLanes<T>)) {
    T x1[kLanes<T>] = {}, y1[kLanes<T>] = {}, x2[kLanes<T>] = {}, y2[kLanes<T>] = {};
    for (int64_t k = 0; k < count; ++k) {
      x1[k] = p[4 * k], y1[k] = p[4 * k + 1], x2[k] = p[4 * k + 2], y2[k] = p[4 * k + 3];
      ordinary &= is_ordinary(load_box(p + 4 * k), area(load_box(p + 4 * k)));
    }
    boxes = {Vec<T>::load(x1), Vec<T>::load(y1), Vec<T>::load(x2), Vec<T>::load(y2)};
    areas = area(boxes);
  }

  Vec<T> overlap(const Truth<T>& t) const {
    if (ordinary && t.ordinary) {
      const Box<Vec<T>> a{t.box.x1, t.box.y1, t.box.x2, t.box.y2};
      const Vec<T> inter = area(intersection(a, boxes)), zero(T(0));
      const auto touch = inter > zero;
      if (!any(touch)) return zero;
      return select(touch, inter / (Vec<T>(t.area) + areas - inter), zero);
    }
    Vec<T> v(T(0));
    for (int k = 0; k < count; ++k) {
      const Box<T> box{boxes.x1[k], boxes.y1[k], boxes.x2[k], boxes.y2[k]};
      v.raw[k] = iou(t.box, t.area, box, areas[k]);
    }
    return v;
  }
};

template <class T, class Isa>
void match_row(const MatchShape& s, const T* truth, const T* boxes, const bool* valid, int64_t* match, T* overlap,
               T* best_of_truth, const Cpu<Isa>& exec) {
  std::vector<Truth<T>> truths;
  for (int64_t j = 0; j < s.truths; ++j) {
    const Box<T> b = load_box(truth + 4 * j);
    if (!valid || valid[j]) truths.push_back({b, area(b), j, is_ordinary(b, area(b))});
    best_of_truth[j] = T(0);
  }
  const int64_t vectors = ceil_div(s.boxes, kLanes<T>);
  const int64_t grain = 1 + 16384 / (int64_t(truths.size()) + 1);
  std::mutex merging;
  exec(vectors, grain, [&](int64_t begin, int64_t end) {
    std::vector<T> best_here(truths.size(), T(0));
    for (int64_t v = begin; v < end; ++v) {
      const int64_t i = v * kLanes<T>;
      const BoxVector<T> group(boxes + 4 * i, s.boxes - i);
      Vec<T> best(T(0));
      IndexVec<T> index = all_lanes<T>(truths.empty() ? kBelowLow : truths[0].index);
      for (size_t j = 0; j < truths.size(); ++j) {
        const Vec<T> o = group.overlap(truths[j]);
        const auto better = o > best;
        best = select(better, o, best);
        index = select(better, truths[j].index, index);
        if (s.allow_low_quality && any(o > Vec<T>(best_here[j])))
          for (int k = 0; k < group.count; ++k) best_here[j] = max_of(best_here[j], o[k]);
      }
      for (int k = 0; k < group.count; ++k) {
        overlap[i + k] = best[k];
        match[i + k] = truths.empty() ? kBelowLow : match_code(best[k], int64_t(index[k]), s);
      }
    }
    const std::lock_guard lock(merging);
    for (size_t j = 0; j < truths.size(); ++j)
      best_of_truth[truths[j].index] = max_of(best_of_truth[truths[j].index], best_here[j]);
  });
  if (!s.allow_low_quality) return;
  T least = std::numeric_limits<T>::infinity();  // a box that overlaps every ground truth less is the best of none
  for (const Truth<T>& t : truths)
    if (best_of_truth[t.index] > T(0)) least = min_of(least, best_of_truth[t.index]);
  exec(vectors, grain, [&](int64_t begin, int64_t end) {
    for (int64_t v = begin; v < end; ++v) {
      const int64_t i = v * kLanes<T>, count = min_of(kLanes<T>, s.boxes - i);
      bool open = false;  // a box without a match that may be the best of a ground truth
      for (int64_t k = 0; k < count; ++k) open |= match[i + k] < 0 && overlap[i + k] >= least;
      if (!open) continue;
      const BoxVector<T> group(boxes + 4 * i, count);
      uint32_t chosen = 0;
      for (const Truth<T>& t : truths) {
        const T best = best_of_truth[t.index];
        if (best > T(0)) chosen |= bits(group.overlap(t) == Vec<T>(best));
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
