// RoIAlign with the maximum of a bin's samples in place of their average.
#pragma once

#include "roi_pool.h"

namespace fastvision {

// The samples of one bin that may lie inside the map.
template <class A>
struct BinSamples {
  typename SampleAxis<A>::Range rows, columns;
  bool any_outside;  // a sample outside the map counts 0

  FV_HD BinSamples(const Roi<A>& roi, int64_t ph, int64_t pw)
      : rows(roi.y.samples_inside(ph)),
        columns(roi.x.samples_inside(pw)),
        any_outside(leaves(roi.y, ph) || leaves(roi.x, pw)) {}

 private:
  static FV_HD bool leaves(const SampleAxis<A>& axis, int64_t p) {
    return axis.samples > 0 && !(axis.position(p, 0) >= A(-1) && axis.position(p, axis.samples - 1) <= A(axis.size));
  }
};

// The pixels of sample `at` = row * samples of the columns + column of a bin.
template <class A>
struct SamplePixels {
  Tap<A> y, x;
  FV_HD SamplePixels(const Roi<A>& roi, int64_t ph, int64_t pw, int64_t at)
      : y(bilinear_tap(roi.y.position(ph, at / max_of(roi.x.samples, int64_t(1))), roi.y.size)),
        x(bilinear_tap(roi.x.position(pw, at % max_of(roi.x.samples, int64_t(1))), roi.x.size)) {}
};

// The value of a sample. Rounded operation by operation, so that every backend chooses the same sample.
template <class T>
FV_HD Accum<T> sample_value(const Tap<Accum<T>>& y, const Tap<Accum<T>>& x, const T* plane, int64_t row_stride,
                            int64_t pixel_stride) {
  using A = Accum<T>;
  A sum(0);
  const auto add = [&](int64_t at_y, int64_t at_x, A weight) {
    if (weight != A(0)) sum += weight * to_accum(plane[at_y * row_stride + at_x * pixel_stride]);
  };
  add(y.low, x.low, y.low_weight * x.low_weight);
  add(y.low, x.high, y.low_weight * x.high_weight);
  add(y.high, x.low, y.high_weight * x.low_weight);
  add(y.high, x.high, y.high_weight * x.high_weight);
  return sum;
}

// Twins, for one level. argmax: the sample of each maximum (see SamplePixels), -1 for none or one outside the map; in
// the layout of out; null where it is not wanted. The backward writes all of grad_input and adds in the order of the
// regions.
template <class T, class Isa>
void roi_align_max(const RoiAlignShape&, const T* input, const Accum<T>* rois, T* out, int64_t* argmax,
                   const Cpu<Isa>&);
template <class T, class Isa>
void roi_align_max_backward(const RoiAlignShape&, const T* grad, const Accum<T>* rois, const int64_t* argmax,
                            T* grad_input, const Cpu<Isa>&);
template <class T>
void roi_align_max(const RoiAlignShape&, const T* input, const Accum<T>* rois, T* out, int64_t* argmax,
                   const CudaExec&);
template <class T>
void roi_align_max_backward(const RoiAlignShape&, const T* grad, const Accum<T>* rois, const int64_t* argmax,
                            T* grad_input, const CudaExec&);

}  // namespace fastvision
