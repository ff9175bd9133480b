// Position-sensitive RoIAlign and RoIPool (Dai et al., R-FCN, NeurIPS 2016; Li et al., Light-Head R-CNN, 2017): bin b
// of output channel c is an average over input channel c * bins + b, of bilinear samples or of whole pixels.
#pragma once

#include "roi_pool.h"

namespace fastvision {

// SampledBins, for whole pixels.
template <class A>
struct PixelBins {
  PoolAxis<A> axis;

  FV_HD auto steps(int64_t p) const { return axis.pixels_of(p); }
  FV_HD Tap<A> tap(int64_t, int64_t i) const { return {i, i, A(1), A(0)}; }
  FV_HD A length(int64_t p) const {
    const auto range = axis.pixels_of(p);
    return A(range.end > range.begin ? range.end - range.begin : 0);
  }
  FV_HD A weight_of(int64_t p, int64_t at) const { return reaches(p, at, 1) ? A(1) : A(0); }
  FV_HD bool reaches(int64_t p, int64_t first, int64_t count) const {
    const auto range = axis.pixels_of(p);
    return range.begin < first + count && range.end > first && range.end > range.begin;
  }
};

// map: one level, channels of the input, sizes of the bins, aligned. Channels of the output: map.channels / bins.
struct PsRoiShape {
  RoiAlignShape map;
  bool legacy_border;  // RoIPool does not count the last row and column of the map, as torchvision's

  FV_HD int64_t pixels() const { return map.level[0].height * map.level[0].width; }
  FV_HD int64_t channels_out() const { return map.channels / map.bins(); }
  // Where input channel c of a region goes: its bin of its output channel.
  FV_HD int64_t out_offset(int64_t roi, int64_t c) const {
    const int64_t at = map.channels_last ? c % map.bins() * channels_out() + c / map.bins() : c;
    return roi * map.channels + at;
  }
  FV_HD int64_t channel_at(int64_t out_offset) const {  // the reverse, for an offset within a region
    return map.channels_last ? out_offset % channels_out() * map.bins() + out_offset / channels_out() : out_offset;
  }
};

template <class Bins>
struct PsRegion {
  int64_t image;
  bool index_error, empty;
  Bins y, x;
  FV_HD bool is_zero() const { return index_error || empty; }
};

template <class A>
FV_HD PsRegion<SampledBins<A>> load_region(const A* rois, const PsRoiShape& s, int64_t index, SampledBins<A>) {
  const Roi<A> roi = load_roi(rois, nullptr, s.map, index);
  return {roi.image, roi.index_error, roi.empty, {roi.y}, {roi.x}};
}
template <class A>
FV_HD PsRegion<PixelBins<A>> load_region(const A* rois, const PsRoiShape& s, int64_t index, PixelBins<A>) {
  const A* p = rois + 5 * index;
  const Box<A> box = load_box(p + 1);
  PsRegion<PixelBins<A>> r{};
  r.index_error = !is_index(p[0], s.map.batch);
  r.empty = !is_finite(box);
  if (r.is_zero()) return r;
  r.image = static_cast<int64_t>(p[0]);
  const auto& map = s.map.level[0];
  const auto axis = [&](A low, A high, int64_t bins, int64_t size) -> PoolAxis<A> {
    const A first = round(low * A(map.spatial_scale)), last = round(high * A(map.spatial_scale));
    return {first, max_of(last - first, A(1)) / A(bins), s.legacy_border ? size - 1 : size};
  };
  r.y = {axis(box.y1, box.y2, s.map.out_h, map.height)};
  r.x = {axis(box.x1, box.x2, s.map.out_w, map.width)};
  return r;
}

// Twins. Bins: SampledBins or PixelBins, only its type counts. input: (batch, channels, height, width); out and grad:
// (rois, channels / bins, out_h, out_w); all of them contiguous or all channels_last. The backward writes every element
// of grad_input and adds in the order of the regions.
template <class T, class Bins, class Isa>
void ps_roi(const PsRoiShape&, Bins, const T* input, const Accum<T>* rois, T* out, const Cpu<Isa>&);
template <class T, class Bins, class Isa>
void ps_roi_backward(const PsRoiShape&, Bins, const T* grad, const Accum<T>* rois, T* grad_input, const Cpu<Isa>&);
template <class T, class Bins>
void ps_roi(const PsRoiShape&, Bins, const T* input, const Accum<T>* rois, T* out, const CudaExec&);
template <class T, class Bins>
void ps_roi_backward(const PsRoiShape&, Bins, const T* grad, const Accum<T>* rois, T* grad_input, const CudaExec&);

}  // namespace fastvision
