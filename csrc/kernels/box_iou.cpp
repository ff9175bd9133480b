#include "box_iou.h"

#include <vector>

#include "simd.h"

namespace fastvision {
namespace {

// Boxes as one array per coordinate, padded with zeros to whole vectors.
template <class A>
struct BoxArrays {
  std::vector<A> x1, y1, x2, y2, angle;

  template <class T>
  BoxArrays(const T* boxes, int64_t n, bool angles) {
    const size_t padded = size_t(ceil_div(n, kLanes<A>) * kLanes<A>);
    for (auto* v : {&x1, &y1, &x2, &y2, &angle}) v->resize(padded);
    for (int64_t i = 0; i < n; ++i) {
      const Box<A> b = load_box(boxes + 4 * i);
      x1[i] = b.x1, y1[i] = b.y1, x2[i] = b.x2, y2[i] = b.y2;
      if (angles) angle[i] = diagonal_angle(b);
    }
  }
  Box<Vec<A>> at(int64_t i) const {
    return {Vec<A>::load(&x1[i]), Vec<A>::load(&y1[i]), Vec<A>::load(&x2[i]), Vec<A>::load(&y2[i])};
  }
  Vec<A> angle_at(int64_t i) const { return Vec<A>::load(&angle[i]); }
};

template <class A>
Box<Vec<A>> broadcast(const Box<A>& b) {
  return {b.x1, b.y1, b.x2, b.y2};
}
template <class A>
Box<A> lane(const Box<Vec<A>>& b, int i) {
  return {b.x1[i], b.y1[i], b.x2[i], b.y2[i]};
}

template <IouKind kKind, class A>
FV_HD Vec<A> iou_of(const Box<Vec<A>>& a, const Box<Vec<A>>& b, Vec<A> angle_a, Vec<A> angle_b, double eps) {
  auto t = iou_term<kKind>(a, b, angle_a, angle_b, A(eps));
  for (uint32_t left = bits(!t.normal); left; left &= left - 1) {
    const int i = __builtin_ctz(left);
    t.value.raw[i] = careful_iou_term<kKind>(lane(a, i), lane(b, i), eps);
  }
  return t.value;
}

template <IouKind kKind, class A>
FV_HD Box<Vec<A>> iou_gradient_of(const Box<Vec<A>>& a, const Box<Vec<A>>& b, Vec<A> angle_a, Vec<A> angle_b,
                                  double eps) {
  const auto t = iou_term<kKind>(a, b, angle_a, angle_b, A(eps));
  Box<Vec<A>> d = iou_gradient<kKind>(a, b, angle_a, angle_b, Vec<A>(A(eps)), Vec<A>(A(eps)));
  for (uint32_t left = bits(!both(t.normal, is_finite(d))); left; left &= left - 1) {
    const int i = __builtin_ctz(left);
    const Box<A> g = careful_iou_gradient<kKind>(lane(a, i), lane(b, i), eps);
    d.x1.raw[i] = g.x1, d.y1.raw[i] = g.y1, d.x2.raw[i] = g.x2, d.y2.raw[i] = g.y2;
  }
  return d;
}

template <class A>
FV_HD void add_scaled(Box<Vec<A>>& sum, const Box<Vec<A>>& d, Vec<A> g) {
  const auto zero_or = [&](Vec<A> v) { return select(g == Vec<A>(A(0)), Vec<A>(A(0)), v * g); };
  sum.x1 = sum.x1 + zero_or(d.x1), sum.y1 = sum.y1 + zero_or(d.y1);
  sum.x2 = sum.x2 + zero_or(d.x2), sum.y2 = sum.y2 + zero_or(d.y2);
}

// About 20 us of work per task.
template <class A>
int64_t grain_of(int64_t pairs_per_item) {
  return 1 + 4096 * kLanes<A> / (pairs_per_item + 1);
}

template <IouKind kKind, class T, class Isa>
void forward(const BoxIouShape& s, const T* boxes1, const T* boxes2, T* out, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  constexpr bool kAngles = kKind == IouKind::complete;
  for (int64_t n = 0; n < s.batch; ++n, boxes1 += 4 * s.rows, boxes2 += 4 * s.cols) {
    if (s.aligned) {
      exec(s.rows, grain_of<A>(1), [&](int64_t begin, int64_t end) {
        const BoxArrays<A> a(boxes1 + 4 * begin, end - begin, kAngles), b(boxes2 + 4 * begin, end - begin, kAngles);
        for (int64_t i = 0; i < end - begin; i += kLanes<A>)
          store_vector(out + n * s.rows + begin + i,
                       iou_of<kKind, A>(a.at(i), b.at(i), a.angle_at(i), b.angle_at(i), s.eps),
                       min_of<int64_t>(kLanes<A>, end - begin - i));
      });
      continue;
    }
    const BoxArrays<A> b(boxes2, s.cols, kAngles);
    const int64_t whole = s.cols / kLanes<A> * kLanes<A>;
    exec(s.rows, grain_of<A>(s.cols), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Box<A> box = load_box(boxes1 + 4 * i);
        const auto a = broadcast(box);
        const Vec<A> angle(kAngles ? diagonal_angle(box) : A(0));
        T* row = out + (n * s.rows + i) * s.cols;
        for (int64_t j = 0; j < whole; j += kLanes<A>)
          store_vector(row + j, iou_of<kKind, A>(a, b.at(j), angle, b.angle_at(j), s.eps));
        if (whole < s.cols)
          store_vector(row + whole, iou_of<kKind, A>(a, b.at(whole), angle, b.angle_at(whole), s.eps), s.cols - whole);
      }
    });
  }
}

template <IouKind kKind, class T, class Isa>
void backward(const BoxIouShape& s, const T* grad, const T* boxes1, const T* boxes2, T* grad1, T* grad2,
              const Cpu<Isa>& exec) {
  using A = Accum<T>;
  constexpr bool kAngles = kKind == IouKind::complete;
  const auto store_lanes = [](T* to, const Box<Vec<A>>& d, int64_t n) {
    for (int i = 0; i < n; ++i) store_box(to + 4 * i, lane(d, i));
  };
  for (int64_t n = 0; n < s.batch; ++n, boxes1 += 4 * s.rows, boxes2 += 4 * s.cols) {
    T* const to1 = grad1 + 4 * n * s.rows;
    T* const to2 = grad2 + 4 * n * s.cols;
    const BoxArrays<A> a(boxes1, s.rows, kAngles), b(boxes2, s.cols, kAngles);
    const int64_t row_vectors = ceil_div(s.rows, kLanes<A>), col_vectors = ceil_div(s.cols, kLanes<A>);
    if (s.aligned) {
      const T* g = grad + n * s.rows;
      exec(row_vectors, grain_of<A>(kLanes<A>), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin * kLanes<A>; i < end * kLanes<A>; i += kLanes<A>) {
          const int64_t count = min_of<int64_t>(kLanes<A>, s.rows - i);
          const Vec<A> gi = load_vector(g + i, count);
          Box<Vec<A>> da{A(0), A(0), A(0), A(0)}, db = da;
          add_scaled(da, iou_gradient_of<kKind, A>(a.at(i), b.at(i), a.angle_at(i), b.angle_at(i), s.eps), gi);
          add_scaled(db, iou_gradient_of<kKind, A>(b.at(i), a.at(i), b.angle_at(i), a.angle_at(i), s.eps), gi);
          store_lanes(to1 + 4 * i, da, count);
          store_lanes(to2 + 4 * i, db, count);
        }
      });
      continue;
    }
    const T* g = grad + n * s.rows * s.cols;
    exec(s.rows, grain_of<A>(s.cols), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Box<A> box = load_box(boxes1 + 4 * i);
        const auto ai = broadcast(box);
        Box<Vec<A>> sum{A(0), A(0), A(0), A(0)};
        for (int64_t j = 0; j < s.cols; j += kLanes<A>)
          add_scaled(sum, iou_gradient_of<kKind, A>(ai, b.at(j), Vec<A>(a.angle[i]), b.angle_at(j), s.eps),
                     load_vector(g + i * s.cols + j, min_of<int64_t>(kLanes<A>, s.cols - j)));
        store_box<T>(to1 + 4 * i, {sum_of(sum.x1), sum_of(sum.y1), sum_of(sum.x2), sum_of(sum.y2)});
      }
    });
    exec(col_vectors, grain_of<A>(s.rows * kLanes<A>), [&](int64_t begin, int64_t end) {
      for (int64_t j = begin * kLanes<A>; j < min_of(end * kLanes<A>, s.cols); j += kLanes<A>) {
        const int64_t count = min_of<int64_t>(kLanes<A>, s.cols - j);
        Box<Vec<A>> sum{A(0), A(0), A(0), A(0)};
        for (int64_t i = 0; i < s.rows; ++i)
          add_scaled(sum,
                     iou_gradient_of<kKind, A>(b.at(j), broadcast(Box<A>{a.x1[i], a.y1[i], a.x2[i], a.y2[i]}),
                                               b.angle_at(j), Vec<A>(a.angle[i]), s.eps),
                     load_vector(g + i * s.cols + j, count));
        store_lanes(to2 + 4 * j, sum, count);
      }
    });
  }
}

}  // namespace

template <class T, class Isa>
void box_iou(const BoxIouShape& s, const T* boxes1, const T* boxes2, T* out, const Cpu<Isa>& exec) {
  with_kind(s.kind, [&](auto kind) { forward<kind.value>(s, boxes1, boxes2, out, exec); });
}

template <class T, class Isa>
void box_iou_backward(const BoxIouShape& s, const T* grad, const T* boxes1, const T* boxes2, T* grad1, T* grad2,
                      const Cpu<Isa>& exec) {
  with_kind(s.kind, [&](auto kind) { backward<kind.value>(s, grad, boxes1, boxes2, grad1, grad2, exec); });
}

#define INSTANTIATE(T)                                                               \
  template void box_iou(const BoxIouShape&, const T*, const T*, T*, const CpuExec&); \
  template void box_iou_backward(const BoxIouShape&, const T*, const T*, const T*, T*, T*, const CpuExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
