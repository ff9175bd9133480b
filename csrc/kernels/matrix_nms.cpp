// Per group, in chunks of items: the overlaps of a chunk with all items before, then from these what is left of the
// scores, since the compensation of every item before is known by then. Each pair is looked at once, memory is linear;
// items of a chunk run in parallel.
#include "matrix_nms.h"

#include <vector>

#include "simd.h"

namespace fastvision {
namespace {

constexpr int64_t kChunk = 128;

template <class T>
FV_HD T largest(Vec<T> v) {
  T most = v[0];
  for (int lane = 1; lane < kLanes<T>; ++lane) most = max_of(most, T(v[lane]));
  return most;
}

// The boxes of a group, one array per coordinate, filled up with empty boxes; so are those that take no part.
template <class T>
struct GroupBoxes {
  std::vector<T> x1, y1, x2, y2, areas;

  GroupBoxes(const MatrixNmsArguments<T>& a, const int64_t* order, int64_t n) {
    for (auto* v : {&x1, &y1, &x2, &y2, &areas}) v->resize(size_t(ceil_div(n, kLanes<T>) * kLanes<T>));
    for (int64_t i = 0; i < n; ++i) {
      if (!takes_part(a, order[i])) continue;
      const Box<T> b = load_box(a.boxes + 4 * order[i]);
      x1[i] = b.x1, y1[i] = b.y1, x2[i] = b.x2, y2[i] = b.y2, areas[i] = area(b);
    }
  }
  Box<T> at(int64_t i) const { return {x1[i], y1[i], x2[i], y2[i]}; }

  FV_HD Vec<T> overlaps(int64_t one, int64_t i) const {
    const Box<Vec<T>> a{x1[one], y1[one], x2[one], y2[one]};
    const Box<Vec<T>> b{Vec<T>::load(&x1[i]), Vec<T>::load(&y1[i]), Vec<T>::load(&x2[i]), Vec<T>::load(&y2[i])};
    const Vec<T> inter = area(intersection(a, b)), uni = Vec<T>(areas[one]) + Vec<T>::load(&areas[i]) - inter;
    const auto normal = both(uni >= Vec<T>(NormalRange<T>::kMin), uni <= Vec<T>(NormalRange<T>::kMax));
    Vec<T> overlap = inter / uni;
    for (uint32_t lanes = bits(!normal); lanes; lanes &= lanes - 1) {
      const int lane = __builtin_ctz(lanes);
      overlap.raw[lane] = careful_iou(at(one), at(i + lane));
    }
    return overlap;
  }
};

// a.scores, a.boxes and a.out are of one batch row; order, words and areas start at the group's first position.
template <class T, class Isa>
void matrix_nms_group(const MatrixNmsShape& s, const MatrixNmsArguments<T>& a, int64_t n, const Cpu<Isa>& exec) {
  const int64_t padded = ceil_div(n, kLanes<T>) * kLanes<T>, chunk = min_of(kChunk, n);
  std::vector<T> overlaps(size_t(chunk * padded)), compensation(size_t(padded), T(0));
  std::vector<uint32_t> counts(a.boxes ? 0 : size_t(chunk * padded));
  const GroupBoxes<T> boxes(a, a.order, a.boxes ? n : 0);
  for (int64_t begin = 0; begin < n; begin += chunk) {
    const int64_t rows = min_of(chunk, n - begin), grain = 1 + 4096 * kLanes<T> / (begin + rows);
    if (!a.boxes) {
      const MaskPairs pairs{1, rows, begin + rows, a.mask_words, 0, 0, padded, begin};
      count_intersections(pairs, a.words + begin * a.mask_words, a.words, counts.data(), exec);
    }
    exec(rows, grain, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        const int64_t one = begin + r;
        T* row = &overlaps[r * padded];
        Vec<T> most(T(0));
        for (int64_t i = 0; i < one; i += kLanes<T>) {
          Vec<T> v(T(0));
          if (a.boxes) {
            v = boxes.overlaps(one, i);
          } else if (takes_part(a, a.order[one])) {
            for (int lane = 0; lane < min_of(kLanes<T>, one - i); ++lane)
              if (takes_part(a, a.order[i + lane]))
                v.raw[lane] = mask_overlap_as<T>(counts[r * padded + i + lane], a.areas[one], a.areas[i + lane]);
          }
          for (int64_t lane = one - i; lane < kLanes<T>; ++lane) v.raw[lane] = T(0);  // not before this one
          most = max_of(most, v);
          v.store(row + i);
        }
        compensation[one] = largest(most);
      }
    });
    exec(rows, grain, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        const int64_t one = begin + r, item = a.order[one];
        Vec<T> excess(T(0)), factor(T(1));
        for (int64_t i = 0; i < one; i += kLanes<T>) {
          const Vec<T> overlap = Vec<T>::load(&overlaps[r * padded + i]), before = Vec<T>::load(&compensation[i]);
          if (s.kernel == MatrixNmsKernel::gaussian) excess = max_of(excess, squared_excess<T>(overlap, before));
          else factor = min_of(factor, linear_factor<T>(overlap, before));
        }
        const bool counts_at_all = takes_part(a, item);
        a.out[item] = counts_at_all ? matrix_nms_score(s, a.scores[item], largest(excess), -largest(-factor)) : T(0);
      }
    });
  }
}

}  // namespace

template <class T, class Isa>
void matrix_nms(const MatrixNmsShape& s, const MatrixNmsArguments<T>& a, const Cpu<Isa>& exec) {
  exec(s.batch, 1, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t base = row * s.items;
      const int64_t* groups = a.groups ? a.groups + base : nullptr;
      for (int64_t begin = 0, end; begin < s.items; begin = end) {
        end = groups ? begin + 1 : s.items;
        while (end < s.items && groups[end] == groups[begin]) ++end;
        MatrixNmsArguments<T> group = a;
        if (a.boxes) group.boxes += 4 * base;
        else group.words += (base + begin) * a.mask_words, group.areas += base + begin;
        group.scores += base;
        group.order += base + begin;
        group.out += base;
        matrix_nms_group(s, group, end - begin, exec);
      }
    }
  });
}

#define INSTANTIATE(T) template void matrix_nms(const MatrixNmsShape&, const MatrixNmsArguments<T>&, const CpuExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
