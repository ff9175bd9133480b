// The parametrisation that R-CNN regresses boxes in (Girshick et al., CVPR 2014, appendix C): offset of the centre in
// units of the reference's sides, and logarithm of the ratio of the sides.
#pragma once

#include "box.h"

namespace fastvision {

struct BoxCoderShape {
  int64_t references;     // (references, 4)
  int64_t per_reference;  // boxes or codes: (references, per_reference, 4)
  double weight[4];       // of x, y, width, height
  double clip;            // largest code of a side, before the exponential
  bool clamp;             // decoded boxes to [0, image_width] x [0, image_height]
  double image_height, image_width;
};

template <class A>
struct CenteredBox {
  A x, y, width, height;
};
template <class A>
FV_HD CenteredBox<A> centered(const Box<A>& b) {
  const A w = b.x2 - b.x1, h = b.y2 - b.y1;
  return {b.x1 + A(0.5) * w, b.y1 + A(0.5) * h, w, h};
}

// Of any number, as <math.h> has them; box_coder.cpp has them for vectors.
FV_HD float exp_of(float v) { return float(exp(v)); }
FV_HD double exp_of(double v) { return exp(v); }
FV_HD float log_of_any(float v) { return float(log(v)); }
FV_HD double log_of_any(double v) { return log(v); }

// Codes and gradients use Box as four numbers: x, y, width, height in x1, y1, x2, y2.
template <class A>
FV_HD Box<A> encode_box(const Box<A>& reference, const Box<A>& box, const BoxCoderShape& s) {
  const CenteredBox<A> r = centered(reference), b = centered(box);
  return {A(s.weight[0]) * (b.x - r.x) / r.width, A(s.weight[1]) * (b.y - r.y) / r.height,
          A(s.weight[2]) * log_of_any(b.width / r.width), A(s.weight[3]) * log_of_any(b.height / r.height)};
}

template <class A>
FV_HD Box<A> decode_box(const Box<A>& reference, const Box<A>& code, const BoxCoderShape& s) {
  const CenteredBox<A> r = centered(reference);
  const A x = code.x1 / A(s.weight[0]) * r.width + r.x, y = code.y1 / A(s.weight[1]) * r.height + r.y;
  const A half_w = A(0.5) * exp_of(min_of(code.x2 / A(s.weight[2]), A(s.clip))) * r.width;
  const A half_h = A(0.5) * exp_of(min_of(code.y2 / A(s.weight[3]), A(s.clip))) * r.height;
  Box<A> b{x - half_w, y - half_h, x + half_w, y + half_h};
  if (s.clamp) {
    b.x1 = min_of(max_of(b.x1, A(0)), A(s.image_width));
    b.x2 = min_of(max_of(b.x2, A(0)), A(s.image_width));
    b.y1 = min_of(max_of(b.y1, A(0)), A(s.image_height));
    b.y2 = min_of(max_of(b.y2, A(0)), A(s.image_height));
  }
  return b;
}

template <class A>
struct CoderGradient {
  Box<A> reference, other;  // other: the box of encode, the code of decode
};

template <class A>
FV_HD CoderGradient<A> encode_gradient(const Box<A>& reference, const Box<A>& box, const Box<A>& g,
                                       const BoxCoderShape& s) {
  const auto axis = [](A r1, A r2, A b1, A b2, A g_offset, A g_side, A* dr1, A* dr2, A* db1, A* db2) {
    const A rw = r2 - r1, bw = b2 - b1, offset = (b1 + b2 - r1 - r2) * A(0.5);
    const A by_center = g_offset / rw, by_rw = -g_offset * offset / (rw * rw) - g_side / rw, by_bw = g_side / bw;
    *dr1 = -A(0.5) * by_center - by_rw;
    *dr2 = -A(0.5) * by_center + by_rw;
    *db1 = A(0.5) * by_center - by_bw;
    *db2 = A(0.5) * by_center + by_bw;
  };
  CoderGradient<A> d;
  axis(reference.x1, reference.x2, box.x1, box.x2, g.x1 * A(s.weight[0]), g.x2 * A(s.weight[2]), &d.reference.x1,
       &d.reference.x2, &d.other.x1, &d.other.x2);
  axis(reference.y1, reference.y2, box.y1, box.y2, g.y1 * A(s.weight[1]), g.y2 * A(s.weight[3]), &d.reference.y1,
       &d.reference.y2, &d.other.y1, &d.other.y2);
  return d;
}

template <class A>
FV_HD CoderGradient<A> decode_gradient(const Box<A>& reference, const Box<A>& code, Box<A> g, const BoxCoderShape& s) {
  if (s.clamp) {  // a clamped coordinate does not depend on anything
    BoxCoderShape free = s;
    free.clamp = false;
    const Box<A> b = decode_box(reference, code, free);
    const auto inside = [](A v, double most) { return v >= A(0) && v <= A(most); };
    if (!inside(b.x1, s.image_width)) g.x1 = A(0);
    if (!inside(b.x2, s.image_width)) g.x2 = A(0);
    if (!inside(b.y1, s.image_height)) g.y1 = A(0);
    if (!inside(b.y2, s.image_height)) g.y2 = A(0);
  }
  const auto axis = [&s](A r1, A r2, A offset, A side, A g1, A g2, double offset_weight, double side_weight, A* dr1,
                         A* dr2, A* d_offset, A* d_side) {
    const A rw = r2 - r1, g_center = g1 + g2, g_half = g2 - g1, scaled = side / A(side_weight);
    const A growth = exp_of(min_of(scaled, A(s.clip)));
    const A by_rw = g_center * offset / A(offset_weight) + g_half * A(0.5) * growth;
    *dr1 = A(0.5) * g_center - by_rw;
    *dr2 = A(0.5) * g_center + by_rw;
    *d_offset = g_center * rw / A(offset_weight);
    *d_side = scaled <= A(s.clip) ? g_half * A(0.5) * growth * rw / A(side_weight) : A(0);
  };
  CoderGradient<A> d;
  axis(reference.x1, reference.x2, code.x1, code.x2, g.x1, g.x2, s.weight[0], s.weight[2], &d.reference.x1,
       &d.reference.x2, &d.other.x1, &d.other.x2);
  axis(reference.y1, reference.y2, code.y1, code.y2, g.y1, g.y2, s.weight[1], s.weight[3], &d.reference.y1,
       &d.reference.y2, &d.other.y1, &d.other.y2);
  return d;
}

enum class Coding { encode, decode };

// Twins. in and out: (references, per_reference, 4); the gradient of a reference adds over its boxes in order.
template <Coding kCoding, class T, class Isa>
void code_boxes(const BoxCoderShape&, const T* references, const T* in, T* out, const Cpu<Isa>&);
template <Coding kCoding, class T, class Isa>
void code_boxes_backward(const BoxCoderShape&, const T* grad, const T* references, const T* in, T* grad_references,
                         T* grad_in, const Cpu<Isa>&);
template <Coding kCoding, class T>
void code_boxes(const BoxCoderShape&, const T* references, const T* in, T* out, const CudaExec&);
template <Coding kCoding, class T>
void code_boxes_backward(const BoxCoderShape&, const T* grad, const T* references, const T* in, T* grad_references,
                         T* grad_in, const CudaExec&);

template <Coding kCoding, class T>
FV_HD Box<T> code_one(const BoxCoderShape& s, const Box<T>& reference, const Box<T>& in) {
  return kCoding == Coding::encode ? encode_box(reference, in, s) : decode_box(reference, in, s);
}
// The gradients of all boxes of one reference.
template <Coding kCoding, class T>
FV_HD void code_reference_backward(const BoxCoderShape& s, int64_t i, const T* grad, const T* references, const T* in,
                                   T* grad_references, T* grad_in) {
  const Box<T> reference = load_box(references + 4 * i);
  Box<T> sum{};
  for (int64_t k = i * s.per_reference; k < (i + 1) * s.per_reference; ++k) {
    const Box<T> g = load_box(grad + 4 * k), box = load_box(in + 4 * k);
    const CoderGradient<T> d =
        kCoding == Coding::encode ? encode_gradient(reference, box, g, s) : decode_gradient(reference, box, g, s);
    store_box(grad_in + 4 * k, d.other);
    sum.x1 += d.reference.x1, sum.y1 += d.reference.y1, sum.x2 += d.reference.x2, sum.y2 += d.reference.y2;
  }
  store_box(grad_references + 4 * i, sum);
}

}  // namespace fastvision
