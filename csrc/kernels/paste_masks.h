// Puts the small masks that a detector predicts for its boxes into the image: bilinear interpolation inside the box,
// then a threshold. The geometry is torchvision's: padded mask, box grown accordingly and cut to integers, one pixel
// added.
#pragma once

#include <math.h>

#include "box.h"

namespace fastvision {

struct PasteShape {
  int64_t masks, mask_height, mask_width;  // (masks, mask_height, mask_width) probabilities
  int64_t padding;                         // zeros around each mask
  int64_t height, width;                   // of the image
  double threshold;
  bool packed;  // out: eight pixels to a byte, the first in the lowest bit, rows filled up to whole bytes; else bytes

  FV_HD int64_t row_bytes() const { return packed ? ceil_div(width, int64_t(8)) : width; }
};

// One axis of a mask in the image: pixels [begin, end) show it, pixel `origin` its first sample.
template <class A>
struct PasteAxis {
  int64_t origin, begin, end;
  A scale;       // samples of the padded mask per pixel
  int64_t size;  // of the padded mask

  // The two samples around a pixel, and how much of the second.
  struct Sample {
    int64_t low, high;
    A high_weight;
  };
  FV_HD Sample sample(int64_t pixel) const {
    const A at = max_of(scale * (A(pixel - origin) + A(0.5)) - A(0.5), A(0));
    const int64_t low = min_of(static_cast<int64_t>(at), size - 1);
    return {low, low + (low < size - 1 ? 1 : 0), at - A(low)};
  }
};

template <class A>
FV_HD PasteAxis<A> paste_axis(A low, A high, int64_t mask_size, int64_t padding, int64_t image_size) {
  const int64_t size = mask_size + 2 * padding;
  const A half = (high - low) * A(0.5) * (A(size) / A(mask_size)), center = (high + low) * A(0.5);
  const A most = A(1 << 30);  // beyond any image, and safe to cast
  const A first = center - half, last = center + half;
  if (!(first > -most && first < most && last > -most && last < most)) return {0, 0, 0, A(0), size};
  const int64_t origin = static_cast<int64_t>(first), extent = static_cast<int64_t>(last) - origin + 1;
  return {origin, max_of(origin, int64_t(0)), min_of(origin + max_of(extent, int64_t(1)), image_size),
          A(size) / A(max_of(extent, int64_t(1))), size};
}

template <class A>
struct PasteBox {
  PasteAxis<A> y, x;
};
template <class A>
FV_HD PasteBox<A> load_paste_box(const A* boxes, const PasteShape& s, int64_t index) {
  const Box<A> b = load_box(boxes + 4 * index);
  return {paste_axis(b.y1, b.y2, s.mask_height, s.padding, s.height),
          paste_axis(b.x1, b.x2, s.mask_width, s.padding, s.width)};
}

// A sample of the padded mask.
template <class T>
FV_HD Accum<T> mask_at(const T* mask, const PasteShape& s, int64_t y, int64_t x) {
  y -= s.padding;
  x -= s.padding;
  const bool inside = y >= 0 && y < s.mask_height && x >= 0 && x < s.mask_width;
  return inside ? to_accum(mask[y * s.mask_width + x]) : Accum<T>(0);
}
template <class A>
FV_HD A blend(A low, A high, A high_weight) {
  return (A(1) - high_weight) * low + high_weight * high;
}

// Twins. boxes: (masks, 4) in the accumulation type; out: (masks, height, row_bytes()).
template <class T, class Isa>
void paste_masks(const PasteShape&, const T* masks, const Accum<T>* boxes, uint8_t* out, const Cpu<Isa>&);
template <class T>
void paste_masks(const PasteShape&, const T* masks, const Accum<T>* boxes, uint8_t* out, const CudaExec&);

}  // namespace fastvision
