// Per group: one array per coordinate and one of scores. Keeping a box is one pass over the group that lowers the
// scores and finds the next best at once, a vector of boxes at a time; vectors without a living or overlapping box end
// early, and once half of the boxes are gone the rest moves together. Groups and batch rows run in parallel.
#include "soft_nms.h"

#include <vector>

#include "grouping.h"
#include "simd.h"
#include "sort.h"

namespace fastvision {
namespace {

// The boxes of one group that are left, in order of their index, filled up to whole vectors with scores of -infinity.
template <class T>
struct SoftGroup {
  std::vector<T> x1, y1, x2, y2, areas, scores;
  std::vector<uint32_t> boxes;
  int64_t vectors = 0;

  void reset(int64_t n) {
    vectors = ceil_div(n, kLanes<T>);
    for (auto* v : {&x1, &y1, &x2, &y2, &areas}) v->assign(size_t(vectors * kLanes<T>), T(0));
    scores.assign(size_t(vectors * kLanes<T>), T(-INFINITY));
    boxes.assign(size_t(vectors * kLanes<T>), 0);
  }
  void set(int64_t i, uint32_t box, const Box<T>& b, T score) {
    x1[i] = b.x1, y1[i] = b.y1, x2[i] = b.x2, y2[i] = b.y2, areas[i] = area(b), scores[i] = score, boxes[i] = box;
  }
  Box<T> at(int64_t i) const { return {x1[i], y1[i], x2[i], y2[i]}; }
  Box<Vec<T>> vector_at(int64_t i) const {
    return {Vec<T>::load(&x1[i]), Vec<T>::load(&y1[i]), Vec<T>::load(&x2[i]), Vec<T>::load(&y2[i])};
  }

  void drop_the_dead() {
    int64_t n = 0;
    for (int64_t i = 0; i < vectors * kLanes<T>; ++i)
      if (scores[i] > T(-INFINITY)) {
        x1[n] = x1[i], y1[n] = y1[i], x2[n] = x2[i], y2[n] = y2[i];
        areas[n] = areas[i], scores[n] = scores[i], boxes[n] = boxes[i];
        ++n;
      }
    vectors = ceil_div(n, kLanes<T>);
    for (; n < vectors * kLanes<T>; ++n) scores[n] = T(-INFINITY);
  }
};

// The largest value that was offered, and the first place that has it.
template <class T>
struct Best {
  Vec<T> values{T(-INFINITY)};
  IndexVec<T> at = all_lanes<T>(0);  // number of the vector

  FV_HD void offer(Vec<T> v, int64_t vector) {
    const auto better = v > values;
    values = select(better, v, values);
    at = select(better, vector, at);
  }
  FV_HD int64_t place() const {
    int64_t best = int64_t(at[0]) * kLanes<T>;
    T value = values[0];
    for (int lane = 1; lane < kLanes<T>; ++lane) {
      const int64_t here = int64_t(at[lane]) * kLanes<T> + lane;
      if (values[lane] > value || (values[lane] == value && here < best)) best = here, value = values[lane];
    }
    return best;
  }
};

// Calls keep(box, score) for the boxes of the group that are kept, at most `most`.
template <SoftNmsMethod kMethod, class T, class F>
FV_HD void resolve(SoftGroup<T>& g, const Decay<T>& decay, int64_t most, F&& keep) {
  const Vec<T> dead{T(-INFINITY)}, zero{T(0)}, least{NormalRange<T>::kMin}, greatest{NormalRange<T>::kMax};
  Best<T> best;
  for (int64_t v = 0; v < g.vectors; ++v) best.offer(Vec<T>::load(&g.scores[v * kLanes<T>]), v);
  for (int64_t count = 0; count < most && g.vectors > 0; ++count) {
    const int64_t chosen = best.place();
    if (!(g.scores[chosen] > T(-INFINITY))) return;
    keep(g.boxes[chosen], g.scores[chosen] + T(0));  // never -0.0
    const Box<T> kept = g.at(chosen);
    const Box<Vec<T>> a{kept.x1, kept.y1, kept.x2, kept.y2};
    const T kept_area = g.areas[chosen];
    g.scores[chosen] = T(-INFINITY);
    best = Best<T>();
    int64_t left = 0;
    for (int64_t v = 0; v < g.vectors; ++v) {
      const int64_t j = v * kLanes<T>;
      Vec<T> scores = Vec<T>::load(&g.scores[j]);
      auto alive = scores > dead;
      if (!any(alive)) continue;
      const Vec<T> inter = area(intersection(a, g.vector_at(j))),
                   uni = Vec<T>(kept_area) + Vec<T>::load(&g.areas[j]) - inter;
      const auto strange = !both(uni >= least, uni <= greatest);
      if (any(both(alive, either(inter > zero, strange)))) {
        Vec<T> overlap = inter / uni;
        for (uint32_t lanes = bits(both(alive, strange)); lanes; lanes &= lanes - 1) {
          const int lane = __builtin_ctz(lanes);
          overlap.raw[lane] = careful_iou(kept, g.at(j + lane));
        }
        scores = select(alive, decayed<kMethod>(scores, overlap, decay), dead);
        scores.store(&g.scores[j]);
        alive = scores > dead;
      }
      left += __builtin_popcount(bits(alive));
      best.offer(scores, v);
    }
    if (g.vectors > 4 && 2 * left < g.vectors * kLanes<T>) {
      g.drop_the_dead();
      best = Best<T>();
      for (int64_t v = 0; v < g.vectors; ++v) best.offer(Vec<T>::load(&g.scores[v * kLanes<T>]), v);
    }
  }
}

template <SoftNmsMethod kMethod, class T, class Isa>
void soft_nms_row(const SoftNmsShape& s, const SoftNmsArguments<T>& row, const Cpu<Isa>& exec) {
  std::vector<uint32_t> taking_part;
  for (int64_t i = 0; i < s.boxes; ++i)
    if ((!row.valid || row.valid[i]) && takes_part(load_box(row.boxes + 4 * i), row.scores[i], s.score_threshold))
      taking_part.push_back(uint32_t(i));

  const Decay<T> decay(s);
  const Grouping grouping(taking_part.size(), [&](size_t place) { return taking_part[place]; }, row.groups);
  std::vector<T> final_scores(size_t(s.boxes), T(-INFINITY));
  exec(int64_t(grouping.offsets.size()) - 1, 4, [&](int64_t first, int64_t last) {
    SoftGroup<T> group;
    for (int64_t k = first; k < last; ++k) {
      const uint32_t begin = grouping.offsets[k], end = grouping.offsets[k + 1];
      group.reset(end - begin);
      for (uint32_t p = begin; p < end; ++p) {
        const uint32_t i = taking_part[grouping.members[p]];
        group.set(p - begin, i, load_box(row.boxes + 4 * i), row.scores[i]);
      }
      resolve<kMethod>(group, decay, s.max_output, [&](uint32_t box, T score) { final_scores[box] = score; });
    }
  });

  std::vector<Keyed<decltype(descending_key(T()))>> kept, spare;
  for (const uint32_t i : taking_part)
    if (final_scores[i] > T(-INFINITY)) kept.push_back({descending_key(final_scores[i]), i});
  sort_by_key(kept, spare);
  *row.count = min_of(int64_t(kept.size()), s.max_output);
  for (int64_t k = 0; k < s.max_output; ++k) {
    const bool filled = k < *row.count;
    row.keep[k] = filled ? int64_t(kept[k].index) : -1;
    row.kept_scores[k] = filled ? final_scores[kept[k].index] : T(0);
  }
}

}  // namespace

template <class T, class Isa>
void soft_nms(const SoftNmsShape& s, const SoftNmsArguments<T>& a, const Cpu<Isa>& exec) {
  exec(s.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      SoftNmsArguments<T> row = a;
      row.boxes += 4 * n * s.boxes;
      row.scores += n * s.boxes;
      if (row.valid) row.valid += n * s.boxes;
      if (row.groups) row.groups += n * s.boxes;
      row.keep += n * s.max_output;
      row.kept_scores += n * s.max_output;
      row.count += n;
      with_method(s.method, [&](auto method) { soft_nms_row<decltype(method)::value>(s, row, exec); });
    }
  });
}

#define INSTANTIATE(T) template void soft_nms(const SoftNmsShape&, const SoftNmsArguments<T>&, const CpuExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
