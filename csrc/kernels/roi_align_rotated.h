// RoIAlign of rotated regions (as in RRPN, Ma et al., IEEE Transactions on Multimedia 2018): the average of bilinear
// samples over a grid of bins that turns with the region.
#pragma once

#include "bilinear.h"
#include "rotated_box.h"

namespace fastvision {

struct RotatedRoiAlignShape {
  int64_t batch, channels, height, width;
  int64_t rois;  // rois: (rois, 6) = image index, centre x, centre y, width, height, angle
  int64_t out_h, out_w;
  int64_t sampling_ratio;  // samples along each side of a bin; <= 0: ceil(bin size)
  double spatial_scale;    // pixels of the map per unit of the regions
  AngleUnit unit;
  bool aligned;        // subtract half a pixel, and allow regions smaller than one pixel
  bool channels_last;  // of the map and of the output

  FV_HD int64_t bins() const { return out_h * out_w; }
  FV_HD int64_t map_offset(int64_t image) const { return image * channels * height * width; }
  FV_HD int64_t pixel_offset(int64_t y, int64_t x) const { return (y * width + x) * (channels_last ? channels : 1); }
  FV_HD int64_t map_channel_stride() const { return channels_last ? 1 : height * width; }
  FV_HD int64_t bin_offset(int64_t roi, int64_t ph, int64_t pw) const {
    return roi * channels * bins() + (ph * out_w + pw) * (channels_last ? channels : 1);
  }
  FV_HD int64_t out_channel_stride() const { return channels_last ? 1 : bins(); }
};

// A region in pixels of the map. Positions are in double: what a region far larger than the map does to rounding is
// then of no account. u runs along the width, v along the height, both from the centre.
struct RotatedRoi {
  int64_t image;
  bool index_error;  // image out of range: the output is zero and the caller reports it
  bool empty;        // a number that is not finite, or a negative side where aligned: the output is zero
  double x, y;
  Direction along;
  SampleAxis<double> v, u;

  FV_HD bool is_zero() const { return index_error || empty; }
  FV_HD double inverse_samples() const {  // each sample's share of the average
    const double n = double(v.samples) * double(u.samples);
    return 1.0 / max_of(n, 1.0);
  }
  FV_HD double x_at(double at_u, double at_v) const { return x + (at_u * along.cos - at_v * along.sin); }
  FV_HD double y_at(double at_u, double at_v) const { return y + (at_u * along.sin + at_v * along.cos); }
};

template <class A>
FV_HD RotatedRoi load_rotated_roi(const A* roi, const RotatedRoiAlignShape& s) {
  RotatedRoi r{};
  r.index_error = !(roi[0] >= A(0) && roi[0] < A(s.batch) && roi[0] == A(static_cast<int64_t>(roi[0])));
  const RotatedBox<A> box = load_rotated_box(roi + 1, s.unit);
  r.empty = !is_finite(box);
  if (r.is_zero()) return r;
  const double shift = s.aligned ? 0.5 : 0.0, least = s.aligned ? 0.0 : 1.0;
  double w = box.w * s.spatial_scale, h = box.h * s.spatial_scale;
  if (!s.aligned) w = max_of(w, least), h = max_of(h, least);
  r.image = static_cast<int64_t>(roi[0]);
  r.x = box.x * s.spatial_scale - shift;
  r.y = box.y * s.spatial_scale - shift;
  r.along = {box.cos, box.sin};
  r.empty = !(w >= 0 && h >= 0 && is_finite(w) && is_finite(h) && is_finite(r.x) && is_finite(r.y));
  if (r.empty) return r;
  const auto axis = [&](double side, int64_t bins) {
    const double bin = side / double(bins), most = double(1 << 30);
    const int64_t samples =
        s.sampling_ratio > 0 ? s.sampling_ratio : static_cast<int64_t>(ceil(bin < most ? bin : most));
    return SampleAxis<double>{-0.5 * side, bin, bins, samples, s.height + s.width};
  };
  r.v = axis(h, s.out_h);
  r.u = axis(w, s.out_w);
  return r;
}

// The part of a region's own axes within which its samples may fall into a rectangle of the map.
struct RoiWindow {
  double u_low, u_high, v_low, v_high;

  FV_HD RoiWindow(const RotatedRoi& r, double x_low, double x_high, double y_low, double y_high) {
    const double dx = 0.5 * x_low + 0.5 * x_high - r.x, dy = 0.5 * y_low + 0.5 * y_high - r.y;
    const double half_w = 0.5 * (x_high - x_low), half_h = 0.5 * (y_high - y_low);
    const double c = fabs(r.along.cos), s = fabs(r.along.sin);
    const double u = dx * r.along.cos + dy * r.along.sin, v = dy * r.along.cos - dx * r.along.sin;
    u_low = u - (half_w * c + half_h * s), u_high = u + (half_w * c + half_h * s);
    v_low = v - (half_w * s + half_h * c), v_high = v + (half_w * s + half_h * c);
  }
};
// Where samples count at all, see bilinear.h.
FV_HD RoiWindow window_of_map(const RotatedRoi& r, const RotatedRoiAlignShape& s) {
  return {r, -1.0, double(s.width), -1.0, double(s.height)};
}

// The samples of a region that may read pixels of a square tile: rows and columns of the grid of all its samples, of
// which each bin has v.samples and u.samples.
struct SamplesInTile {
  SampleAxis<double>::Range rows, columns;

  FV_HD SamplesInTile(const RotatedRoi& r, int64_t x, int64_t y, int64_t side) {
    // A sample reads the next pixel on either side, and from one pixel outside of the map.
    const RoiWindow w(r, double(x - 2), double(x + side + 1), double(y - 2), double(y + side + 1));
    rows = all(r.v, w.v_low, w.v_high);
    columns = all(r.u, w.u_low, w.u_high);
  }
  FV_HD bool none() const { return rows.begin >= rows.end || columns.begin >= columns.end; }

 private:
  static FV_HD SampleAxis<double>::Range all(const SampleAxis<double>& axis, double low, double high) {
    const SampleAxis<double> whole{axis.start, axis.bin * double(axis.bins), 1, axis.samples * axis.bins, axis.size};
    return whole.samples_between(0, low, high);
  }
};

// Twins. map and grad_map: (batch, channels, height, width), contiguous or channels_last; out and grad: (rois,
// channels, out_h, out_w) likewise; rois in the accumulation type. The backward writes every element of grad_map and
// adds in a fixed order.
template <class T, class Isa>
void roi_align_rotated(const RotatedRoiAlignShape&, const T* map, const Accum<T>* rois, T* out, const Cpu<Isa>&);
template <class T, class Isa>
void roi_align_rotated_backward(const RotatedRoiAlignShape&, const T* grad, const Accum<T>* rois, T* grad_map,
                                const Cpu<Isa>&);
template <class T>
void roi_align_rotated(const RotatedRoiAlignShape&, const T* map, const Accum<T>* rois, T* out, const CudaExec&);
template <class T>
void roi_align_rotated_backward(const RotatedRoiAlignShape&, const T* grad, const Accum<T>* rois, T* grad_map,
                                const CudaExec&);

}  // namespace fastvision
