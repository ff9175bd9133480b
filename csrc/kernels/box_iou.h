// Intersection over union and its generalized (Rezatofighi et al., CVPR 2019), distance and complete (Zheng et al.,
// AAAI 2020) forms, for all pairs of two sets of boxes or for boxes side by side.
#pragma once

#include <type_traits>

#include "box.h"

namespace fastvision {

enum class IouKind : int { plain, generalized, distance, complete };

struct BoxIouShape {
  int64_t batch, rows, cols;  // boxes1: (batch, rows, 4), boxes2: (batch, cols, 4)
  bool aligned;               // pair row i with column i: out is (batch, rows), rows == cols; else (batch, rows, cols)
  IouKind kind;
  double eps;  // added to the squared diagonal, and to the trade-off of the complete form

  FV_HD int64_t out_size() const { return aligned ? batch * rows : batch * rows * cols; }
};

// Angle of a box's diagonal, which the complete form compares; 0 for a point.
template <class A>
FV_HD A diagonal_angle(const Box<A>& b) {
  return atan2(width(b), height(b));
}

// The value for one pair, and whether it came through without overflow or loss. angle: diagonal_angle, or anything
// for the other kinds. area_eps is added to the areas that are divided by, which the losses do. A is a scalar or a
// vector.
template <class A>
struct IouTerm {
  A value;
  decltype(A() < A()) normal;
};
template <IouKind kKind, class A, class S>
FV_HD IouTerm<A> iou_term(const Box<A>& a, const Box<A>& b, A angle_a, A angle_b, S eps, S area_eps = S(0)) {
  const A inter = area(intersection(a, b)), uni = area(a) + area(b) - inter;
  const A divisor = kKind == IouKind::plain ? uni : uni + A(area_eps);
  A value = inter / divisor;
  auto normal = both(divisor >= A(NormalRange<S>::kMin), divisor <= A(NormalRange<S>::kMax));
  if constexpr (kKind != IouKind::plain) {
    const Box<A> h = hull(a, b);
    if constexpr (kKind == IouKind::generalized) {
      const A hull_area = area(h);
      value = value - (hull_area - uni) / (hull_area + A(area_eps));
      normal = both(normal, hull_area <= A(NormalRange<S>::kMax));
    } else {
      const A iou = value;
      const A diagonal = width(h) * width(h) + height(h) * height(h) + A(eps);
      const A dx = (a.x1 + a.x2) * A(0.5) - (b.x1 + b.x2) * A(0.5),
              dy = (a.y1 + a.y2) * A(0.5) - (b.y1 + b.y2) * A(0.5);
      value = value - (dx * dx + dy * dy) / diagonal;
      normal = both(normal, both(diagonal <= A(NormalRange<S>::kMax), diagonal >= A(NormalRange<S>::kMin)));
      if constexpr (kKind == IouKind::complete) {
        const A turn = (angle_a - angle_b) * A(0.63661977236758134308);  // 2 / pi
        const A v = turn * turn, rest = A(1) - iou + v + A(eps);
        value = value - select(rest > A(0), v * v / rest, A(0));
        // The gradient divides by the squared diagonal of each box, which eps does not help.
        const auto vanishes = [](A w, A h) { return both(A(NormalRange<S>::kMin) > w * w + h * h, w + h > A(0)); };
        normal = both(normal, both(!vanishes(width(a), height(a)), !vanishes(width(b), height(b))));
      }
    }
  }
  return {value, normal};
}

// One pair, whatever its coordinates. Not finite: 0. Empty union: the overlap counts as 0.
template <IouKind kKind, class A>
static FV_COLD A careful_iou_term(Box<A> a, Box<A> b, double eps, double area_eps = 0) {
  const BoxPair p = careful_pair(a, b);
  if (!p.finite) return A(0);
  const double scaled_eps = area_eps * p.scale * p.scale;
  const double inter = area(intersection(p.a, p.b)), uni = area(p.a) + area(p.b) - inter;
  const double iou = divide_or_zero(inter, uni + scaled_eps);
  const Box<double> h = hull(p.a, p.b);
  if (kKind == IouKind::plain) return A(iou);
  if (kKind == IouKind::generalized) return A(iou - divide_or_zero(area(h) - uni, area(h) + scaled_eps));
  const double diagonal = width(h) * width(h) + height(h) * height(h) + eps * p.scale * p.scale;
  const double dx = (p.a.x1 + p.a.x2) * 0.5 - (p.b.x1 + p.b.x2) * 0.5;
  const double dy = (p.a.y1 + p.a.y2) * 0.5 - (p.b.y1 + p.b.y2) * 0.5;
  double value = iou - divide_or_zero(dx * dx + dy * dy, diagonal);
  if (kKind == IouKind::complete) {
    const double turn = (diagonal_angle(p.a) - diagonal_angle(p.b)) * 0.63661977236758134308, v = turn * turn;
    value -= divide_or_zero(v * v, 1 - iou + v + eps);
  }
  return A(value);
}

template <IouKind kKind, class A>
FV_HD A iou_of(const Box<A>& a, const Box<A>& b, A angle_a, A angle_b, double eps) {
  const IouTerm<A> t = iou_term<kKind>(a, b, angle_a, angle_b, A(eps));
  return t.normal ? t.value : careful_iou_term<kKind>(a, b, eps);
}

// Gradient of one value with respect to the first box; exchange the boxes for the second. Minima and maxima share the
// gradient equally on ties, as torch.maximum does; a negative side or overlap passes none. The trade-off factor of the
// complete form is constant (Zheng et al., section 3.3). diagonal_eps and eps: see BoxIouShape::eps; area_eps: see
// iou_term.
template <IouKind kKind, class A>
FV_HD Box<A> iou_gradient(const Box<A>& a, const Box<A>& b, A angle_a, A angle_b, A diagonal_eps, A eps,
                          A area_eps = A(0)) {
  const auto share = [](A x, A y) { return select(x > y, A(1), select(x < y, A(0), A(0.5))); };
  const auto passes = [](A x) { return select(x >= A(0), A(1), A(0)); };
  const Box<A> overlap = intersection(a, b);
  const A wa = width(a), ha = height(a), wi = width(overlap), hi = height(overlap);
  const A inter = wi * hi, uni = wa * ha + width(b) * height(b) - inter;
  // d(inter) and d(area a) by each coordinate of a; d(uni) = d(area a) - d(inter).
  const A on_wa = passes(a.x2 - a.x1), on_ha = passes(a.y2 - a.y1);
  const A on_wi = passes(overlap.x2 - overlap.x1) * hi, on_hi = passes(overlap.y2 - overlap.y1) * wi;
  const Box<A> d_inter{-on_wi * share(a.x1, b.x1), -on_hi * share(a.y1, b.y1), on_wi * share(b.x2, a.x2),
                       on_hi * share(b.y2, a.y2)};
  const Box<A> d_area{-on_wa * ha, -on_ha * wa, on_wa * ha, on_ha * wa};
  const A divisor = kKind == IouKind::plain ? uni : uni + area_eps;
  const A inverse = select(divisor > A(0), A(1) / divisor, A(0)), iou = inter * inverse;
  const auto d_iou = [&](A di, A da) { return (di * (A(1) + iou) - da * iou) * inverse; };
  Box<A> d{d_iou(d_inter.x1, d_area.x1), d_iou(d_inter.y1, d_area.y1), d_iou(d_inter.x2, d_area.x2),
           d_iou(d_inter.y2, d_area.y2)};
  if constexpr (kKind == IouKind::plain) return d;

  const Box<A> h = hull(a, b);
  const A wh = width(h), hh = height(h);
  // d(side of the hull) by the two ends of a along that axis.
  const auto d_side = [&](A a1, A a2, A b1, A b2, A* d1, A* d2) {
    const A upright = share(a2, a1), inverted = A(1) - upright;
    const A on_low = share(min_of(b1, b2), min_of(a1, a2)), on_high = share(max_of(a1, a2), max_of(b1, b2));
    *d1 = inverted * on_high - upright * on_low;
    *d2 = upright * on_high - inverted * on_low;
  };
  Box<A> d_hull;
  d_side(a.x1, a.x2, b.x1, b.x2, &d_hull.x1, &d_hull.x2);
  d_side(a.y1, a.y2, b.y1, b.y2, &d_hull.y1, &d_hull.y2);
  if constexpr (kKind == IouKind::generalized) {
    const A hull_divisor = wh * hh + area_eps;
    const A inverse_hull = select(hull_divisor > A(0), A(1) / hull_divisor, A(0)), fill = divisor * inverse_hull;
    const auto add = [&](A di, A da, A dh) { return (da - di - fill * dh) * inverse_hull; };
    d.x1 = d.x1 + add(d_inter.x1, d_area.x1, d_hull.x1 * hh);
    d.y1 = d.y1 + add(d_inter.y1, d_area.y1, d_hull.y1 * wh);
    d.x2 = d.x2 + add(d_inter.x2, d_area.x2, d_hull.x2 * hh);
    d.y2 = d.y2 + add(d_inter.y2, d_area.y2, d_hull.y2 * wh);
    return d;
  }
  const A diagonal = wh * wh + hh * hh + diagonal_eps,
          inverse_diagonal = select(diagonal > A(0), A(1) / diagonal, A(0));
  const A dx = (a.x1 + a.x2) * A(0.5) - (b.x1 + b.x2) * A(0.5), dy = (a.y1 + a.y2) * A(0.5) - (b.y1 + b.y2) * A(0.5);
  const A ratio = (dx * dx + dy * dy) * inverse_diagonal;
  const auto add = [&](A delta, A side, A d_side) { return (A(2) * ratio * side * d_side - delta) * inverse_diagonal; };
  d.x1 = d.x1 + add(dx, wh, d_hull.x1);
  d.y1 = d.y1 + add(dy, hh, d_hull.y1);
  d.x2 = d.x2 + add(dx, wh, d_hull.x2);
  d.y2 = d.y2 + add(dy, hh, d_hull.y2);
  if constexpr (kKind == IouKind::complete) {
    const A scale = A(0.63661977236758134308), turn = (angle_a - angle_b) * scale, v = turn * turn;
    const A rest = A(1) - iou + v + eps, trade_off = select(rest > A(0), v / rest, A(0));
    const A square = wa * wa + ha * ha;
    const A factor = select(square > A(0), A(-2) * trade_off * turn * scale / square, A(0));
    d.x1 = d.x1 - factor * ha * on_wa;
    d.x2 = d.x2 + factor * ha * on_wa;
    d.y1 = d.y1 + factor * wa * on_ha;
    d.y2 = d.y2 - factor * wa * on_ha;
  }
  return d;
}

// The gradient of any pair of finite boxes is finite; of any other, zero. Also for pairs whose value came through
// without overflow, but not the quotient of a side and the union.
template <IouKind kKind, class A>
static FV_COLD Box<A> careful_iou_gradient(Box<A> a, Box<A> b, double eps, double area_eps = 0) {
  const BoxPair p = careful_pair(a, b);
  if (!p.finite) return {};
  const Box<double> d = iou_gradient<kKind>(p.a, p.b, diagonal_angle(p.a), diagonal_angle(p.b), eps * p.scale * p.scale,
                                            eps, area_eps * p.scale * p.scale);
  const auto back = [&](double v) {  // saturate: a gradient grows as the boxes shrink
    v *= p.scale;
    const double most = NormalRange<A>::kMax;
    return A(v > most ? most : v < -most ? -most : v);
  };
  return {back(d.x1), back(d.y1), back(d.x2), back(d.y2)};
}
template <IouKind kKind, class A>
FV_HD Box<A> iou_gradient_of(const Box<A>& a, const Box<A>& b, A angle_a, A angle_b, double eps) {
  const IouTerm<A> t = iou_term<kKind>(a, b, angle_a, angle_b, A(eps));
  if (t.normal) {
    const Box<A> d = iou_gradient<kKind>(a, b, angle_a, angle_b, A(eps), A(eps));
    if (is_finite(d)) return d;
  }
  return careful_iou_gradient<kKind>(a, b, eps);
}

// Calls f with the kind as a constant.
template <class F>
FV_HD void with_kind(IouKind kind, F&& f) {
  switch (kind) {
    case IouKind::plain: return f(std::integral_constant<IouKind, IouKind::plain>());
    case IouKind::generalized: return f(std::integral_constant<IouKind, IouKind::generalized>());
    case IouKind::distance: return f(std::integral_constant<IouKind, IouKind::distance>());
    case IouKind::complete: return f(std::integral_constant<IouKind, IouKind::complete>());
  }
}

// Twins: same name and arguments, told apart by where they run. out: out_size() values. grad1 and grad2 have the boxes'
// shapes and are written whole; every sum has a fixed order.
template <class T, class Isa>
void box_iou(const BoxIouShape&, const T* boxes1, const T* boxes2, T* out, const Cpu<Isa>&);
template <class T, class Isa>
void box_iou_backward(const BoxIouShape&, const T* grad, const T* boxes1, const T* boxes2, T* grad1, T* grad2,
                      const Cpu<Isa>&);
template <class T>
void box_iou(const BoxIouShape&, const T* boxes1, const T* boxes2, T* out, const CudaExec&);
template <class T>
void box_iou_backward(const BoxIouShape&, const T* grad, const T* boxes1, const T* boxes2, T* grad1, T* grad2,
                      const CudaExec&);

}  // namespace fastvision
