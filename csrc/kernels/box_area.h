// Areas of upright boxes.
#pragma once

#include "box_convert.h"

namespace fastvision {

// Of halves: a side between finite coordinates stays finite. An inverted side is 0.
template <class A, class S>
FV_HD A area_of(const Box<A>& box, BoxFormat format, S half) {
  const A a = box.x1 * A(half), b = box.y1 * A(half), c = box.x2 * A(half), d = box.y2 * A(half);
  const bool corners = format == BoxFormat::corners;
  const A width = corners ? c - a : c, height = corners ? d - b : d;
  return A(S(4)) * (max_of(width, A(S(0))) * max_of(height, A(S(0))));
}

// Twins. boxes: (n, 4), out: (n,).
template <class T, class Isa>
void box_area(int64_t n, BoxFormat format, const T* boxes, T* out, const Cpu<Isa>&);
template <class T>
void box_area(int64_t n, BoxFormat format, const T* boxes, T* out, const CudaExec&);

}  // namespace fastvision
