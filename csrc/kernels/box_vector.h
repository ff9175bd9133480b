// Boxes in vectors, one coordinate each.
#pragma once

#include "box.h"
#include "simd.h"

namespace fastvision {

template <class T>
using Lanewise = std::make_integer_sequence<int, int(kLanes<T>)>;

// The other lanes are copies of the last box, so that nothing unusual happens in them.
template <class T>
FV_HD Box<Vec<T>> load_boxes(const T* p, int64_t count) {
  T padded[4 * kLanes<T>];
  if (count < kLanes<T>) {
    for (int64_t i = 0; i < kLanes<T>; ++i) memcpy(padded + 4 * i, p + 4 * min_of(i, count - 1), 4 * sizeof(T));
    p = padded;
  }
  Vec<T> v[4], x1x2[2], y1y2[2];
  for (int k = 0; k < 4; ++k) v[k] = Vec<T>::load(p + k * kLanes<T>);
  for (int k = 0; k < 2; ++k) part(v[2 * k], v[2 * k + 1], x1x2[k], y1y2[k], Lanewise<T>());
  Box<Vec<T>> b;
  part(x1x2[0], x1x2[1], b.x1, b.x2, Lanewise<T>());
  part(y1y2[0], y1y2[1], b.y1, b.y2, Lanewise<T>());
  return b;
}
template <class T>
FV_HD void store_boxes(T* p, const Box<Vec<T>>& b, int64_t count) {
  T padded[4 * kLanes<T>];
  T* to = count < kLanes<T> ? padded : p;
  Vec<T> x1x2[2], y1y2[2], v[4];
  interleave(b.x1, b.x2, x1x2[0], x1x2[1], Lanewise<T>());
  interleave(b.y1, b.y2, y1y2[0], y1y2[1], Lanewise<T>());
  for (int k = 0; k < 2; ++k) interleave(x1x2[k], y1y2[k], v[2 * k], v[2 * k + 1], Lanewise<T>());
  for (int k = 0; k < 4; ++k) v[k].store(to + k * kLanes<T>);
  if (count < kLanes<T>) memcpy(p, padded, size_t(count) * 4 * sizeof(T));
}

}  // namespace fastvision
