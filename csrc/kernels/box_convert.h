// Conversions between formats of upright boxes.
#pragma once

#include "box.h"

namespace fastvision {

enum class BoxFormat : int { corners, corner_and_sides, centre_and_sides };

// Box as four numbers in whatever format.
template <class A, class S>
FV_HD Box<A> convert_box(Box<A> b, BoxFormat from, BoxFormat to, S two) {
  if (from == BoxFormat::corner_and_sides) {
    b = {b.x1, b.y1, b.x1 + b.x2, b.y1 + b.y2};
  } else if (from == BoxFormat::centre_and_sides) {
    const A w = b.x2 / A(two), h = b.y2 / A(two);
    b = {b.x1 - w, b.y1 - h, b.x1 + w, b.y1 + h};
  }
  if (to == BoxFormat::corner_and_sides) return {b.x1, b.y1, b.x2 - b.x1, b.y2 - b.y1};
  if (to == BoxFormat::centre_and_sides)
    return {(b.x1 + b.x2) / A(two), (b.y1 + b.y2) / A(two), b.x2 - b.x1, b.y2 - b.y1};
  return b;
}

// Twins. boxes and out: (n, 4).
template <class T, class Isa>
void box_convert(int64_t n, BoxFormat from, BoxFormat to, const T* boxes, T* out, const Cpu<Isa>&);
template <class T>
void box_convert(int64_t n, BoxFormat from, BoxFormat to, const T* boxes, T* out, const CudaExec&);

}  // namespace fastvision
