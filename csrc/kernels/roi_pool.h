// RoIPool (Girshick, Fast R-CNN, ICCV 2015): the maximum over the pixels of each bin of a region, whose corners are
// rounded to pixels.
#pragma once

#include "roi_align.h"

namespace fastvision {

struct RoiPoolShape {
  int64_t batch, channels, height, width;  // input
  int64_t rois;                            // rois: (rois, 5) = image index, x1, y1, x2, y2
  int64_t out_h, out_w;
  double spatial_scale;
  bool channels_last;  // of input, output, argmax and gradients

  FV_HD int64_t pixels() const { return height * width; }
  FV_HD int64_t bins() const { return out_h * out_w; }
  FV_HD int64_t image_offset(int64_t image) const { return image * channels * pixels(); }
  FV_HD int64_t pixel_stride() const { return channels_last ? channels : 1; }
  FV_HD int64_t channel_stride() const { return channels_last ? 1 : pixels(); }
  FV_HD int64_t bin_offset(int64_t roi, int64_t bin) const {
    return roi * channels * bins() + bin * (channels_last ? channels : 1);
  }
  FV_HD int64_t out_channel_stride() const { return channels_last ? 1 : bins(); }
};

// The bins along one axis: rounded start and width, in pixels.
template <class A>
struct PoolAxis {
  A start;  // an integer
  A bin;
  int64_t size;

  struct Range {
    int64_t begin, end;  // empty if end <= begin
  };
  FV_HD Range pixels_of(int64_t p) const {
    return {clamp(floor(A(p) * bin) + start), clamp(ceil(A(p + 1) * bin) + start)};
  }
  // The bins that may hold pixel `at`, or more.
  FV_HD Range bins_of(int64_t at, int64_t bins) const {
    const A offset = A(at) - start;
    const A first = floor(offset / bin) - A(2), last = floor((offset + A(1)) / bin) + A(2);
    return {first > A(0) ? (first < A(bins) ? static_cast<int64_t>(first) : bins) : 0,
            last < A(bins) ? (last > A(0) ? static_cast<int64_t>(last) : 0) : bins};
  }

 private:
  FV_HD int64_t clamp(A v) const {  // compared before the cast: a float may be larger than any integer
    return v > A(0) ? (v < A(size) ? static_cast<int64_t>(v) : size) : 0;
  }
};

template <class A>
struct PoolRoi {
  int64_t image;
  bool index_error, empty;
  PoolAxis<A> y, x;
  FV_HD bool is_zero() const { return index_error || empty; }
};

template <class A>
FV_HD PoolAxis<A> pool_axis(A low, A high, A scale, int64_t bins, int64_t size) {
  const A first = round(low * scale), last = round(high * scale);  // halves away from zero
  return {first, max_of(last - first + A(1), A(1)) / A(bins), size};
}

template <class A>
FV_HD PoolRoi<A> load_pool_roi(const A* rois, const RoiPoolShape& s, int64_t index) {
  const A* p = rois + 5 * index;
  PoolRoi<A> r{};
  const Box<A> box = load_box(p + 1);
  r.index_error = !is_index(p[0], s.batch);
  r.empty = !is_finite(box);
  if (r.is_zero()) return r;
  r.image = static_cast<int64_t>(p[0]);
  r.y = pool_axis(box.y1, box.y2, A(s.spatial_scale), s.out_h, s.height);
  r.x = pool_axis(box.x1, box.x2, A(s.spatial_scale), s.out_w, s.width);
  return r;
}

// Whether v takes the place of the maximum so far: the first of equals stays, the first NaN wins for good.
template <class A>
FV_HD bool replaces(A v, A best) {
  return v > best || (v != v && best == best);
}

// Twins. argmax: pixel (y * width + x) of each maximum, -1 for an empty bin; in the layout of out; null where it is not
// wanted. The backward writes all of grad_input and adds in a fixed order.
template <class T, class Isa>
void roi_pool(const RoiPoolShape&, const T* input, const Accum<T>* rois, T* out, int32_t* argmax, const Cpu<Isa>&);
template <class T, class Isa>
void roi_pool_backward(const RoiPoolShape&, const T* grad, const Accum<T>* rois, const int32_t* argmax, T* grad_input,
                       const Cpu<Isa>&);
template <class T>
void roi_pool(const RoiPoolShape&, const T* input, const Accum<T>* rois, T* out, int32_t* argmax, const CudaExec&);
template <class T>
void roi_pool_backward(const RoiPoolShape&, const T* grad, const Accum<T>* rois, const int32_t* argmax, T* grad_input,
                       const CudaExec&);

}  // namespace fastvision
