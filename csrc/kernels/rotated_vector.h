// Vectors of pairs of rotated boxes, for the CPU twins.
#pragma once

#include <vector>

#include "rotated_box.h"
#include "simd.h"

namespace fastvision {

// Boxes as one array per number, padded to whole vectors with boxes that meet nothing.
template <class T, class Isa>
struct RotatedArraysOf {
  std::vector<T> x, y, w, h;
  std::vector<double> cos, sin;

  RotatedArraysOf() = default;
  RotatedArraysOf(const RotatedBox<T>* boxes, int64_t n) {
    resize(n);
    for (int64_t i = 0; i < n; ++i) set(i, boxes[i]);
  }
  void resize(int64_t n) {
    const size_t padded = size_t(ceil_div(n, int64_t(kLanes<T>)) * kLanes<T>);
    for (auto* v : {&x, &y}) v->assign(padded, T(0));
    for (auto* v : {&w, &h}) v->assign(padded, T(-1));
    for (auto* v : {&cos, &sin}) v->assign(padded, 1.0);
  }
  void set(int64_t i, const RotatedBox<T>& b) {
    x[size_t(i)] = b.x, y[size_t(i)] = b.y, w[size_t(i)] = b.w, h[size_t(i)] = b.h;
    cos[size_t(i)] = b.cos, sin[size_t(i)] = b.sin;
  }
  RotatedBox<T> at(int64_t i) const {
    return {x[size_t(i)], y[size_t(i)], w[size_t(i)], h[size_t(i)], cos[size_t(i)], sin[size_t(i)]};
  }
};
template <class T>
using RotatedArrays = RotatedArraysOf<T, FV_ISA>;

// One box in every lane, or the boxes from one place in the arrays on.
template <class T>
struct OneBox {
  RotatedBox<T> box;

  FV_HD RotatedBox<T> lane(int) const { return box; }
  FV_HD Vec<T> x() const { return box.x; }
  FV_HD Vec<T> y() const { return box.y; }
  FV_HD Vec<T> w() const { return box.w; }
  FV_HD Vec<T> h() const { return box.h; }
  FV_HD Vec<T> cos() const { return T(box.cos); }
  FV_HD Vec<T> sin() const { return T(box.sin); }
};
template <class T>
struct ManyBoxes {
  const RotatedArrays<T>& boxes;
  int64_t begin;

  FV_HD RotatedBox<T> lane(int i) const { return boxes.at(begin + i); }
  FV_HD Vec<T> x() const { return Vec<T>::load(&boxes.x[size_t(begin)]); }
  FV_HD Vec<T> y() const { return Vec<T>::load(&boxes.y[size_t(begin)]); }
  FV_HD Vec<T> w() const { return Vec<T>::load(&boxes.w[size_t(begin)]); }
  FV_HD Vec<T> h() const { return Vec<T>::load(&boxes.h[size_t(begin)]); }
  FV_HD Vec<T> cos() const { return narrowed(boxes.cos); }
  FV_HD Vec<T> sin() const { return narrowed(boxes.sin); }

 private:
  FV_HD Vec<T> narrowed(const std::vector<double>& from) const {
    T lanes[kLanes<T>];
    for (int i = 0; i < kLanes<T>; ++i) lanes[i] = T(from[size_t(begin + i)]);
    return Vec<T>::load(lanes);
  }
};

template <class T, class Frames, class Boxes>
FV_HD RotatedPair<Vec<T>, T> pair_of(const Frames& frames, const Boxes& boxes) {
  T x[kLanes<T>], y[kLanes<T>], cos[kLanes<T>], sin[kLanes<T>];
  for (int i = 0; i < kLanes<T>; ++i) {
    const Placement<T> p = place(frames.lane(i), boxes.lane(i));
    x[i] = p.x, y[i] = p.y, cos[i] = p.cos, sin[i] = p.sin;
  }
  return {frames.w(),
          frames.h(),
          boxes.w(),
          boxes.h(),
          {Vec<T>::load(x), Vec<T>::load(y), Vec<T>::load(cos), Vec<T>::load(sin)}};
}

// Lanes whose boxes are near enough to meet, with sides larger than (or as large as) nothing.
template <class T, class Frames, class Boxes>
FV_HD auto near_lanes(const Frames& frames, const Boxes& boxes, bool points_too) {
  const Vec<T> half(T(0.5)), most = (frames.w() + frames.h() + boxes.w() + boxes.h()) * half * Vec<T>(T(1.00002));
  const Vec<T> least = min_of(min_of(frames.w(), frames.h()), min_of(boxes.w(), boxes.h()));
  const auto near = both(abs_of(boxes.x() - frames.x()) <= most, abs_of(boxes.y() - frames.y()) <= most);
  return both(near, points_too ? least >= Vec<T>(T(0)) : least > Vec<T>(T(0)));
}

// The same bits as iou() of the lanes one by one.
template <class T, class Frames, class Boxes>
FV_HD Vec<T> iou_of(const Frames& frames, const Boxes& boxes) {
  const Vec<T> zero(T(0));
  const auto near = near_lanes<T>(frames, boxes, false);
  if (!any(near)) return zero;
  const auto pair = pair_of<T>(frames, boxes);
  Vec<T> value = select(near, pair.iou(pair.intersection()), zero);
  for (uint32_t left = bits(both(near, !pair.normal())); left; left &= left - 1) {
    const int i = __builtin_ctz(left);
    value.raw[i] = careful_rotated_iou(frames.lane(i), boxes.lane(i));
  }
  return value;
}

template <class T, class Frames, class Boxes>
FV_HD RotatedGradient<Vec<T>> iou_gradient_of(const Frames& frames, const Boxes& boxes) {
  const Vec<T> zero(T(0));
  const auto near = near_lanes<T>(frames, boxes, true);
  RotatedGradient<Vec<T>> d{zero, zero, zero, zero, zero};
  if (!any(near)) return d;
  const auto pair = pair_of<T>(frames, boxes);
  d = iou_gradient(pair, frames.cos(), frames.sin());
  for (Vec<T>* v : {&d.x, &d.y, &d.w, &d.h, &d.angle}) *v = select(near, *v, zero);
  for (uint32_t left = bits(both(near, !pair.normal())); left; left &= left - 1) {
    const int i = __builtin_ctz(left);
    const RotatedGradient<T> g = careful_rotated_gradient(frames.lane(i), boxes.lane(i));
    d.x.raw[i] = g.x, d.y.raw[i] = g.y, d.w.raw[i] = g.w, d.h.raw[i] = g.h, d.angle.raw[i] = g.angle;
  }
  return d;
}

}  // namespace fastvision
