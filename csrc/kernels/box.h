// Boxes and their overlap, for scalars and for vectors of them (simd.h). Boxes are (x1, y1, x2, y2); a side is
// max(x2 - x1, 0), so an inverted box is empty.
#pragma once

#include <math.h>

#include "common.h"

namespace fastvision {

#if defined(__CUDACC__)
#define FV_COLD __host__ __device__ __noinline__
#else
#define FV_COLD __attribute__((noinline, cold))
#endif

template <class A>
struct Box {
  A x1, y1, x2, y2;
};

template <class T>
FV_HD Box<Accum<T>> load_box(const T* p) {
  return {to_accum(p[0]), to_accum(p[1]), to_accum(p[2]), to_accum(p[3])};
}
// For the CUDA twins: p is aligned to 16 bytes, which the bindings see to.
template <class T>
struct alignas(16) AlignedBox {
  T at[4];
};
template <class T>
FV_HD Box<T> load_aligned_box(const T* p) {
  const AlignedBox<T> b = *reinterpret_cast<const AlignedBox<T>*>(p);
  return {b.at[0], b.at[1], b.at[2], b.at[3]};
}
template <class T>
FV_HD void store_box(T* p, const Box<Accum<T>>& b) {
  p[0] = from_accum<T>(b.x1);
  p[1] = from_accum<T>(b.y1);
  p[2] = from_accum<T>(b.x2);
  p[3] = from_accum<T>(b.y2);
}

template <class A>
FV_HD A width(const Box<A>& b) {
  return max_of(b.x2 - b.x1, A(0));
}
template <class A>
FV_HD A height(const Box<A>& b) {
  return max_of(b.y2 - b.y1, A(0));
}
template <class A>
FV_HD A area(const Box<A>& b) {
  return width(b) * height(b);
}
template <class A>
FV_HD Box<A> intersection(const Box<A>& a, const Box<A>& b) {
  return {max_of(a.x1, b.x1), max_of(a.y1, b.y1), min_of(a.x2, b.x2), min_of(a.y2, b.y2)};
}
// The smallest box around both, all four corners counted, so that it covers inverted boxes too.
template <class A>
FV_HD Box<A> hull(const Box<A>& a, const Box<A>& b) {
  return {min_of(min_of(a.x1, a.x2), min_of(b.x1, b.x2)), min_of(min_of(a.y1, a.y2), min_of(b.y1, b.y2)),
          max_of(max_of(a.x1, a.x2), max_of(b.x1, b.x2)), max_of(max_of(a.y1, a.y2), max_of(b.y1, b.y2))};
}
FV_HD bool is_finite(float v) { return fabsf(v) <= 3.4028234663852886e38f; }
FV_HD bool is_finite(double v) { return fabs(v) <= 1.7976931348623157e308; }
// Of a scalar or of each lane: the difference of an infinity or a NaN and itself is not zero.
template <class A>
FV_HD auto is_finite(const Box<A>& b) {
  return (b.x1 - b.x1) + (b.y1 - b.y1) + (b.x2 - b.x2) + (b.y2 - b.y2) == A(0);
}

// Areas between these neither overflow nor lose digits; pairs outside are redone with care (see careful_pair).
template <class A>
struct NormalRange;
template <>
struct NormalRange<float> {
  static constexpr float kMin = 1e-30f, kMax = 3.4028234663852886e38f;
};
template <>
struct NormalRange<double> {
  static constexpr double kMin = 1e-290, kMax = 1.7976931348623157e308;
};
template <class A>
FV_HD bool is_normal_area(A v) {  // false for NaN
  return v >= NormalRange<A>::kMin && v <= NormalRange<A>::kMax;
}

// Both boxes in double, scaled by a power of two to where no product can overflow or vanish.
struct BoxPair {
  Box<double> a, b;
  double scale;
  bool finite;
};
template <class A>
FV_HD BoxPair careful_pair(const Box<A>& a, const Box<A>& b) {
  BoxPair p{{a.x1, a.y1, a.x2, a.y2}, {b.x1, b.y1, b.x2, b.y2}, 1.0, is_finite(a) && is_finite(b)};
  double largest = 0;
  for (const double v : {p.a.x1, p.a.y1, p.a.x2, p.a.y2, p.b.x1, p.b.y1, p.b.x2, p.b.y2})
    largest = max_of(largest, fabs(v));
  if (largest > 0x1p400) p.scale = 0x1p-700;
  else if (largest < 0x1p-100) p.scale = largest < 0x1p-600 ? 0x1p600 : 0x1p100;
  for (double* v : {&p.a.x1, &p.a.y1, &p.a.x2, &p.a.y2, &p.b.x1, &p.b.y1, &p.b.x2, &p.b.y2}) *v *= p.scale;
  return p;
}

template <class A>
FV_HD A divide_or_zero(A a, A b) {
  return b > A(0) ? a / b : A(0);
}

// Intersection over union of a pair whose union is not a normal number: 0 if a coordinate is not finite or the union
// is empty, otherwise right to the last digits at any scale.
template <class A>
static FV_COLD A careful_iou(Box<A> a, Box<A> b) {
  const BoxPair p = careful_pair(a, b);
  if (!p.finite) return A(0);
  const double inter = area(intersection(p.a, p.b));
  return A(divide_or_zero(inter, area(p.a) + area(p.b) - inter));
}

// Areas are arguments because most callers have them from an earlier pair.
template <class A>
FV_HD A iou(const Box<A>& a, A area_a, const Box<A>& b, A area_b) {
  const A inter = area(intersection(a, b)), uni = area_a + area_b - inter;
  if (is_normal_area(uni)) return inter / uni;
  return careful_iou(a, b);
}

// For x in A and any real t: x > t exactly when x > round_down(t).
FV_HD double threshold_in(double t, double) { return t; }
FV_HD float threshold_in(double t, float) {
  const float f = float(t);
  return double(f) > t ? nextafterf(f, -INFINITY) : f;
}

}  // namespace fastvision
