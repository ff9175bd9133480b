// Per group: boxes in score order, one array per coordinate. Tiles of candidates meet the boxes kept so far, a vector
// of candidates at a time and tiles in parallel; then each tile is resolved within itself. A candidate already
// suppressed costs nothing once its whole vector is.
#include "nms.h"

#include <vector>

#include "grouping.h"
#include "rotated_vector.h"
#include "simd.h"
#include "sort.h"

namespace fastvision {
namespace {

template <class T>
using Key = decltype(descending_key(T()));

constexpr int64_t kTile = 2048;

constexpr uint32_t all_lanes(int64_t lanes) { return lanes == 32 ? ~0u : (1u << lanes) - 1; }

// Which boxes of a group are out, one word of lane bits per vector; those that pad the last vector are from the start.
template <class T>
struct Dead {
  std::vector<uint32_t> words;

  void reset(int64_t n) {
    words.assign(size_t(ceil_div(n, kLanes<T>)), 0);
    if (n % kLanes<T>) words.back() = ~0u << n % kLanes<T>;
  }
  bool whole(int64_t vector) const { return words[size_t(vector)] == all_lanes(kLanes<T>); }
  bool at(int64_t i) const { return words[size_t(i / kLanes<T>)] >> i % kLanes<T> & 1; }
};

// One group in score order.
template <class B>
struct Group;

template <class T>
struct Group<Box<T>> {
  std::vector<T> x1, y1, x2, y2, areas;
  Dead<T> dead;
  int64_t size = 0;
  bool ordinary = true;  // no area that could overflow or vanish: see iou() in box.h

  void reset(int64_t n) {
    size = n;
    ordinary = true;
    for (auto* v : {&x1, &y1, &x2, &y2, &areas}) v->assign(size_t(ceil_div(n, kLanes<T>) * kLanes<T>), T(0));
    dead.reset(n);
  }
  void set(int64_t i, const Box<T>& b) {
    x1[i] = b.x1, y1[i] = b.y1, x2[i] = b.x2, y2[i] = b.y2, areas[i] = area(b);
    const T least = sizeof(T) == 4 ? T(1e-25) : T(1e-280), most = sizeof(T) == 4 ? T(1e37) : T(1e300);
    const bool empty = width(b) == T(0) || height(b) == T(0);
    ordinary &= empty || (areas[i] >= least && areas[i] <= most);
  }
  Box<T> at(int64_t i) const { return {x1[i], y1[i], x2[i], y2[i]}; }

  // Marks the candidates of vectors [begin, end) that box i suppresses.
  FV_HD void suppress(int64_t i, T threshold, int64_t begin, int64_t end) {
    const Box<T> kept = at(i);
    const T kept_area = areas[i];
    if (!ordinary) {
      for (int64_t j = begin * kLanes<T>; j < end * kLanes<T>; ++j)
        if (!dead.at(j) && suppresses(kept, kept_area, at(j), areas[j], threshold))
          dead.words[j / kLanes<T>] |= 1u << j % kLanes<T>;
      return;
    }
    const Box<Vec<T>> a{kept.x1, kept.y1, kept.x2, kept.y2};
    const Vec<T> area_a(kept_area), nearly(threshold * T(1 - 1e-5)), exact(threshold);
    for (int64_t v = begin; v < end; ++v) {
      if (dead.whole(v)) continue;
      const int64_t j = v * kLanes<T>;
      const Box<Vec<T>> b{Vec<T>::load(&x1[j]), Vec<T>::load(&y1[j]), Vec<T>::load(&x2[j]), Vec<T>::load(&y2[j])};
      const Vec<T> inter = area(intersection(a, b)), uni = area_a + Vec<T>::load(&areas[j]) - inter;
      // Most vectors end here, without a division.
      const auto candidates = both(inter > nearly * uni, inter > Vec<T>(T(0)));
      if (any(candidates)) dead.words[v] |= bits(both(candidates, inter / uni > exact));
    }
  }
};

template <class T>
struct Group<RotatedBox<T>> {
  RotatedArrays<T> boxes;
  Dead<T> dead;
  int64_t size = 0;

  void reset(int64_t n) {
    size = n;
    boxes.resize(n);
    dead.reset(n);
  }
  void set(int64_t i, const RotatedBox<T>& b) { boxes.set(i, b); }

  FV_HD void suppress(int64_t i, T threshold, int64_t begin, int64_t end) {
    const OneBox<T> kept{boxes.at(i)};
    for (int64_t v = begin; v < end; ++v)
      if (!dead.whole(v))
        dead.words[size_t(v)] |= bits(iou_of<T>(kept, ManyBoxes<T>{boxes, v * kLanes<T>}) > Vec<T>(threshold));
  }
};

// Appends the places of the kept boxes, in order, until there are `most`.
template <class B, class Isa>
void resolve(Group<B>& g, Scalar<B> threshold, int64_t most, std::vector<uint32_t>& kept, const Cpu<Isa>& exec) {
  using T = Scalar<B>;
  kept.clear();
  const int64_t vectors = int64_t(g.dead.words.size()), tile_vectors = kTile / kLanes<T>;
  for (int64_t begin = 0; begin < vectors && int64_t(kept.size()) < most; begin += tile_vectors) {
    const int64_t end = min_of(begin + tile_vectors, vectors);
    if (!kept.empty())
      exec(end - begin, ceil_div(int64_t(1) << 16, int64_t(kept.size())), [&](int64_t first, int64_t last) {
        // A strip of candidates that stays in the first-level cache meets every kept box.
        for (int64_t strip = begin + first; strip < begin + last; strip += 16)
          for (const uint32_t i : kept) g.suppress(i, threshold, strip, min_of(strip + 16, begin + last));
      });
    for (int64_t i = begin * kLanes<T>; i < min_of(end * kLanes<T>, g.size); ++i) {
      if (g.dead.at(i)) continue;
      kept.push_back(uint32_t(i));
      if (int64_t(kept.size()) == most) return;
      g.suppress(i, threshold, i / kLanes<T>, end);  // boxes before i have had their turn
    }
  }
}

template <class B, class Isa>
void nms_row(const NmsShape& s, const NmsArguments<B>& row, const Cpu<Isa>& exec) {
  using T = Scalar<B>;
  std::vector<Keyed<Key<T>>> by_rank, spare;
  by_rank.reserve(size_t(s.boxes));
  for (int64_t i = 0; i < s.boxes; ++i)
    if ((!row.valid || row.valid[i]) && takes_part(row.boxes[i], row.scores[i], s.score_threshold))
      by_rank.push_back({descending_key(row.scores[i]), uint32_t(i)});
  sort_by_key(by_rank, spare);

  const Grouping grouping(by_rank.size(), [&](size_t rank) { return by_rank[rank].index; }, row.groups);
  const T threshold = threshold_in(s.iou_threshold, T());
  std::vector<uint8_t> alive(by_rank.size(), 0);
  exec(int64_t(grouping.offsets.size()) - 1, 4, [&](int64_t first, int64_t last) {
    Group<B> group;
    std::vector<uint32_t> kept;
    for (int64_t k = first; k < last; ++k) {
      const uint32_t begin = grouping.offsets[k], end = grouping.offsets[k + 1];
      group.reset(end - begin);
      for (uint32_t p = begin; p < end; ++p) group.set(p - begin, row.boxes[by_rank[grouping.members[p]].index]);
      resolve(group, threshold, s.max_output, kept, exec);
      for (const uint32_t p : kept) alive[grouping.members[begin + p]] = 1;
    }
  });

  int64_t count = 0;
  for (size_t r = 0; r < by_rank.size() && count < s.max_output; ++r)
    if (alive[r]) row.keep[count++] = by_rank[r].index;
  *row.count = count;
  for (int64_t i = count; i < s.max_output; ++i) row.keep[i] = -1;
}

}  // namespace

template <class B, class Isa>
void nms(const NmsShape& s, const NmsArguments<B>& a, const Cpu<Isa>& exec) {
  exec(s.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      NmsArguments<B> row = a;
      row.boxes += n * s.boxes;
      row.scores += n * s.boxes;
      if (row.groups) row.groups += n * s.boxes;
      if (row.valid) row.valid += n * s.boxes;
      row.keep += n * s.max_output;
      row.count += n;
      nms_row(s, row, exec);
    }
  });
}

#define INSTANTIATE(B) template void nms(const NmsShape&, const NmsArguments<B>&, const CpuExec&);
FV_NMS_BOXES(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
