// Rotated boxes and their overlap, for scalars and for vectors of them (simd.h). A box is (centre x, centre y, width,
// height, angle) with y pointing down, as in images.
//
// Everything about a pair is computed in the frame of its first box: the centre and the direction of the second are
// brought there in double, so that only differences that matter are rounded; from there on lengths are of the size of
// the boxes, whatever their coordinates. No tolerance appears in a comparison of lengths.
#pragma once

#include <initializer_list>

#include "box.h"

namespace fastvision {

FV_HD bool either(bool a, bool b) { return a || b; }

struct AngleUnit {
  bool degrees;    // otherwise radians
  bool clockwise;  // as seen in an image; otherwise counter-clockwise

  FV_HD double to_radians() const { return degrees ? 0.017453292519943295 : 1.0; }
};

// Direction of a box's width in the image. Its height points along (-sin, cos).
struct Direction {
  double cos, sin;
};

// Written out, so that every backend gets the same bits. Exact at multiples of 90 degrees.
FV_HD Direction direction_of(double angle, AngleUnit unit) {
  const auto nearest = [](double v) { return (v + 0x1.8p52) - 0x1.8p52; };
  double quarters, r;
  if (unit.degrees) {
    if (fabs(angle) > 0x1p30) angle = fmod(angle, 360.0);
    quarters = nearest(angle / 90.0);
    r = (angle - quarters * 90.0) * 0.017453292519943295;
  } else {
    if (fabs(angle) > 0x1p20) angle = fmod(angle, 6.283185307179586);
    quarters = nearest(angle * 0.6366197723675814);
    // pi / 2 in three parts, the first two short enough for exact products.
    r = ((angle - quarters * 0x1.921fb544p+0) - quarters * 0x1.0b4611a6p-34) - quarters * 0x1.3198a2e037073p-69;
  }
  // Taylor series; |r| <= pi / 4, so that the terms left out are below 1e-17.
  const double z = r * r;
  double s = 1.0 / 355687428096000, c = -1.0 / 6402373705728000;
  for (const double k : {-1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800, 1.0 / 362880, -1.0 / 5040, 1.0 / 120,
                         -1.0 / 6, 1.0})
    s = s * z + k;
  for (const double k : {1.0 / 20922789888000, -1.0 / 87178291200, 1.0 / 479001600, -1.0 / 3628800, 1.0 / 40320,
                         -1.0 / 720, 1.0 / 24, -0.5, 1.0})
    c = c * z + k;
  s = s * r;
  const int64_t quadrant = static_cast<int64_t>(quarters) & 3;
  const double cos = quadrant & 1 ? s : c, sin = quadrant & 1 ? c : s;
  const Direction d{quadrant == 1 || quadrant == 2 ? -cos : cos, quadrant >= 2 ? -sin : sin};
  return {d.cos, unit.clockwise ? d.sin : -d.sin};
}

// A box as the kernels take it, with its direction worked out once. Sides stay as given; a box with a number that is
// not finite has sides of -infinity.
template <class T>
struct alignas(16) RotatedBox {
  T x, y, w, h;
  double cos, sin;
};

template <class T>
FV_HD bool is_finite(const RotatedBox<T>& b) {
  return b.w >= -NormalRange<T>::kMax;
}
template <class T>
FV_HD RotatedBox<T> load_rotated_box(const T* p, AngleUnit unit) {
  if (!(is_finite(p[0]) && is_finite(p[1]) && is_finite(p[2]) && is_finite(p[3]) && is_finite(p[4])))
    return {T(0), T(0), T(-INFINITY), T(-INFINITY), 1.0, 0.0};
  const Direction d = direction_of(double(p[4]), unit);
  return {p[0], p[1], p[2], p[3], d.cos, d.sin};
}
template <class T>
FV_HD T area(const RotatedBox<T>& b) {
  return max_of(b.w, T(0)) * max_of(b.h, T(0));
}

// Half of the diagonal and a little more: boxes farther apart than the sum of theirs do not meet.
template <class T>
FV_HD T reach(const RotatedBox<T>& b) {
  return (b.w * T(0.5) + b.h * T(0.5)) * T(1.00001);
}

// The second box of a pair seen from the first: its centre, and the direction of its width.
template <class A>
struct Placement {
  A x, y, cos, sin;
};
template <class T>
FV_HD Placement<T> place(const RotatedBox<T>& frame, const RotatedBox<T>& box) {
  const double dx = double(box.x) - double(frame.x), dy = double(box.y) - double(frame.y);
  return {T(frame.cos * dx + frame.sin * dy), T(frame.cos * dy - frame.sin * dx),
          T(frame.cos * box.cos + frame.sin * box.sin), T(frame.cos * box.sin - frame.sin * box.cos)};
}

// Sides between these, of boxes that meet, make no product overflow or vanish; other pairs are redone with care.
template <class A>
struct NormalSide;
template <>
struct NormalSide<float> {
  static constexpr float kMin = 1e-15f, kMax = 1e15f;
};
template <>
struct NormalSide<double> {
  static constexpr double kMin = 1e-140, kMax = 1e140;
};

// A pair of boxes that may meet, all sides positive or zero: sides of the first (frame) and of the second box, where
// the second lies. S is the scalar type of A, a scalar or a vector.
template <class A, class S>
struct RotatedPair {
  A frame_w, frame_h, w, h;
  Placement<A> at;

  FV_HD auto normal() const {
    return both(min_of(min_of(frame_w, frame_h), min_of(w, h)) >= A(NormalSide<S>::kMin),
                max_of(max_of(frame_w, frame_h), max_of(w, h)) <= A(NormalSide<S>::kMax));
  }

  // Whether a line along a side of either box separates them.
  FV_HD auto apart() const {
    const A half(S(0.5)), a = frame_w * half, b = frame_h * half, p = w * half, q = h * half;
    const A c = abs_of(at.cos), s = abs_of(at.sin);
    const A along = at.x * at.cos + at.y * at.sin, across = at.y * at.cos - at.x * at.sin;
    return either(either(abs_of(at.x) >= a + p * c + q * s, abs_of(at.y) >= b + p * s + q * c),
                  either(abs_of(along) >= p + a * c + b * s, abs_of(across) >= q + a * s + b * c));
  }

  // Area that the boxes share. By Green's theorem it is the integral of -y dx along the second box's border, with x
  // and y clamped to the first box: each edge gives one continuous term, so that nothing needs to be decided about
  // edges that touch or coincide, and rounding moves the area by no more than it moves the corners.
  FV_HD A intersection() const {
    const A half(S(0.5)), zero(S(0)), a = frame_w * half, b = frame_h * half;
    const A pc = w * half * at.cos, ps = w * half * at.sin, qc = h * half * at.cos, qs = h * half * at.sin;
    const A across_w = A(S(0.5)) / pc, across_h = A(S(-0.5)) / qs;  // inverse extents along x; infinite where upright
    const auto clamp = [](A v, A most) { return max_of(-most, min_of(most, v)); };
    const auto edge = [&](A x0, A y0, A x1, A dy, A inverse) {
      const A one(S(1)), from = clamp(x0, a), to = clamp(x1, a);
      // max_of and min_of make a NaN, from an upright edge, a number; its term has no width.
      const A y_from = y0 + min_of(one, max_of(zero, (from - x0) * inverse)) * dy;
      const A y_to = y0 + min_of(one, max_of(zero, (to - x0) * inverse)) * dy;
      const A c_from = clamp(y_from, b), c_to = clamp(y_to, b);
      const A low = min_of(y_from, y_to), high = max_of(y_from, y_to);
      // The edge lies in part above, within and below the first box: the mean of its clamped height.
      const A above = max_of(high - max_of(low, b), zero), below = max_of(min_of(high, -b) - low, zero);
      const A within = abs_of(c_to - c_from), span = above + below + within, middle = (c_from + c_to) * half;
      const A mean = (middle * within + b * (above - below)) / span;
      return (from - to) * select(span > A(NormalRange<S>::kMin), mean, middle);
    };
    const A x0 = at.x - pc + qs, y0 = at.y - ps - qc, x1 = at.x + pc + qs, y1 = at.y + ps - qc;
    const A x2 = at.x + pc - qs, y2 = at.y + ps + qc, x3 = at.x - pc - qs, y3 = at.y - ps + qc;
    const A two(S(2));
    const A sum = (edge(x0, y0, x1, two * ps, across_w) + edge(x2, y2, x3, two * -ps, -across_w)) +
                  (edge(x1, y1, x2, two * qc, across_h) + edge(x3, y3, x0, two * -qc, -across_h));
    return select(apart(), zero, min_of(max_of(sum, zero), min_of(frame_w * frame_h, w * h)));
  }
  // At most 1: the shared area is no larger than either.
  FV_HD A iou(A inter) const { return inter / (frame_w * frame_h + (w * h - inter)); }
};

// Gradient with respect to (x, y, w, h, angle); the angle in radians, clockwise in the image.
template <class A>
struct RotatedGradient {
  A x, y, w, h, angle;
};

// Of the shared area, with respect to the second box, in the frame of the first. A border that moves outward adds its
// length inside the other box. An edge on an edge of the other box counts half, as torch.maximum shares ties.
template <class A, class S>
FV_HD RotatedGradient<A> intersection_gradient(const RotatedPair<A, S>& pair) {
  const A half(S(0.5)), zero(S(0));
  const A a = pair.frame_w * half, b = pair.frame_h * half, p = pair.w * half, q = pair.h * half;
  const Placement<A>& at = pair.at;
  RotatedGradient<A> d{zero, zero, zero, zero, zero};
  // The edge through the middle (x, y) along (kx, ky), `reach` to each side, which faces (nx, ny).
  const auto edge = [&](A x, A y, A kx, A ky, A reach, A nx, A ny, A& side, S turn) {
    A low = -reach, high = reach, weight(S(1));
    const auto cut = [&](A e, A k, A limit) {
      const auto parallel = abs_of(k) < A(NormalRange<S>::kMin);
      const A inverse = A(S(1)) / k, u = (-limit - e) * inverse, v = (limit - e) * inverse, e_abs = abs_of(e);
      const A share = select(e_abs < limit, A(S(1)), select(e_abs > limit, zero, half));
      weight = weight * select(parallel, share, A(S(1)));
      low = min_of(reach, max_of(low, select(parallel, low, min_of(u, v))));
      high = max_of(-reach, min_of(high, select(parallel, high, max_of(u, v))));
    };
    cut(x, kx, a);
    cut(y, ky, b);
    const A length = max_of(high - low, zero) * weight;
    d.x = d.x + nx * length;
    d.y = d.y + ny * length;
    side = side + half * length;
    d.angle = d.angle + A(turn) * length * (low + high) * half;
  };
  const A c = at.cos, s = at.sin;
  edge(at.x + p * c, at.y + p * s, -s, c, q, c, s, d.w, S(-1));
  edge(at.x - p * c, at.y - p * s, -s, c, q, -c, -s, d.w, S(1));
  edge(at.x - q * s, at.y + q * c, c, s, p, -s, c, d.h, S(1));
  edge(at.x + q * s, at.y - q * c, c, s, p, s, -c, d.h, S(-1));
  return d;
}

// Of the IoU, in the image.
template <class A, class S>
FV_HD RotatedGradient<A> iou_gradient(const RotatedPair<A, S>& pair, A frame_cos, A frame_sin) {
  const A zero(S(0)), inter = pair.intersection(), uni = pair.frame_w * pair.frame_h + (pair.w * pair.h - inter);
  const A inverse = select(uni > zero, A(S(1)) / uni, zero), iou = inter * inverse;
  const RotatedGradient<A> d = intersection_gradient(pair);
  const auto d_iou = [&](A d_inter, A d_area) { return (d_inter * (A(S(1)) + iou) - d_area * iou) * inverse; };
  return {d_iou(d.x * frame_cos - d.y * frame_sin, zero), d_iou(d.x * frame_sin + d.y * frame_cos, zero),
          d_iou(d.w, pair.h), d_iou(d.h, pair.w), d_iou(d.angle, zero)};
}

// Both boxes in double and, where double itself is at its end, scaled by a power of two.
struct CarefulPair {
  RotatedPair<double, double> pair;
  double scale;
};
template <class T>
FV_HD CarefulPair careful_pair(const RotatedBox<T>& frame, const RotatedBox<T>& box) {
  const double largest = max_of(max_of(double(frame.w), double(frame.h)), max_of(double(box.w), double(box.h)));
  const double smallest = min_of(min_of(double(frame.w), double(frame.h)), min_of(double(box.w), double(box.h)));
  double scale = 1;
  if (largest > NormalSide<double>::kMax) scale = 0x1p-700;
  else if (smallest < NormalSide<double>::kMin && largest < 1) scale = largest < 0x1p-600 ? 0x1p600 : 0x1p300;
  // The difference first: the boxes may be far from the origin.
  const double dx = (double(box.x) * 0.5 - double(frame.x) * 0.5) * scale * 2;
  const double dy = (double(box.y) * 0.5 - double(frame.y) * 0.5) * scale * 2;
  const RotatedBox<double> origin{0, 0, 0, 0, frame.cos, frame.sin}, moved{dx, dy, 0, 0, box.cos, box.sin};
  return {{frame.w * scale, frame.h * scale, box.w * scale, box.h * scale, place(origin, moved)}, scale};
}
template <class T>
static FV_COLD T careful_rotated_iou(RotatedBox<T> frame, RotatedBox<T> box) {
  const CarefulPair p = careful_pair(frame, box);
  const double inter = p.pair.intersection();
  return inter > 0 ? T(p.pair.iou(inter)) : T(0);
}
template <class T>
static FV_COLD RotatedGradient<T> careful_rotated_gradient(RotatedBox<T> frame, RotatedBox<T> box) {
  const CarefulPair p = careful_pair(frame, box);
  const RotatedGradient<double> d = iou_gradient(p.pair, frame.cos, frame.sin);
  const auto back = [](double v) {  // saturate: a gradient grows as the boxes shrink
    const double most = NormalRange<T>::kMax;
    return T(v > most ? most : v < -most ? -most : v);
  };
  return {back(d.x * p.scale), back(d.y * p.scale), back(d.w * p.scale), back(d.h * p.scale), back(d.angle)};
}

// 0 where a number is not finite or a box has no area.
template <class T>
FV_HD T iou(const RotatedBox<T>& frame, const RotatedBox<T>& box) {
  const bool areas = min_of(min_of(frame.w, frame.h), min_of(box.w, box.h)) > T(0);
  const T most = reach(frame) + reach(box);
  if (!(areas && abs_of(box.x - frame.x) <= most && abs_of(box.y - frame.y) <= most)) return T(0);
  const RotatedPair<T, T> pair{frame.w, frame.h, box.w, box.h, place(frame, box)};
  return pair.normal() ? pair.iou(pair.intersection()) : careful_rotated_iou(frame, box);
}

// Gradient of the IoU with respect to `box`, zero where that is 0 for its numbers or for a negative side.
template <class T>
FV_HD RotatedGradient<T> iou_gradient(const RotatedBox<T>& frame, const RotatedBox<T>& box) {
  const bool sides = min_of(min_of(frame.w, frame.h), min_of(box.w, box.h)) >= T(0);
  const T most = reach(frame) + reach(box);
  if (!(sides && abs_of(box.x - frame.x) <= most && abs_of(box.y - frame.y) <= most)) return {};
  const RotatedPair<T, T> pair{frame.w, frame.h, box.w, box.h, place(frame, box)};
  if (!pair.normal()) return careful_rotated_gradient(frame, box);
  return iou_gradient(pair, T(frame.cos), T(frame.sin));
}

}  // namespace fastvision
