// RoIAlign (He et al., Mask R-CNN, ICCV 2017): the average of bilinear samples over a grid of bins, on one feature map
// or on the level of a pyramid that fits the region's size (Lin et al., FPN, CVPR 2017, equation 1).
#pragma once

#include "bilinear.h"
#include "box.h"

namespace fastvision {

constexpr int kMaxLevels = 8;

struct RoiAlignShape {
  struct Level {
    int64_t height, width;
    double spatial_scale;  // pixels of the map per unit of the regions
    double least_area;     // the smallest region that goes to this level; not used for level 0
  };
  Level level[kMaxLevels];
  int levels;
  int64_t batch, channels;
  int64_t rois;  // rois: (rois, 5) = image index, x1, y1, x2, y2
  int64_t out_h, out_w;
  int64_t sampling_ratio;  // samples along each side of a bin; <= 0: ceil(bin size)
  bool aligned;            // subtract half a pixel, and allow regions smaller than one pixel
  bool channels_last;      // of the maps and of the output
  OpId op;                 // for index errors

  FV_HD int64_t bins() const { return out_h * out_w; }
  FV_HD int64_t map_offset(int l, int64_t image) const { return image * channels * level[l].height * level[l].width; }
  // Of channel 0; channels are channel_stride(...) apart.
  FV_HD int64_t pixel_offset(int l, int64_t y, int64_t x) const {
    return (y * level[l].width + x) * (channels_last ? channels : 1);
  }
  FV_HD int64_t map_channel_stride(int l) const { return channels_last ? 1 : level[l].height * level[l].width; }
  FV_HD int64_t bin_offset(int64_t roi, int64_t ph, int64_t pw) const {
    return roi * channels * bins() + (ph * out_w + pw) * (channels_last ? channels : 1);
  }
  FV_HD int64_t out_channel_stride() const { return channels_last ? 1 : bins(); }
};

// One pointer per level. A plain array so that it travels to a CUDA kernel by value.
template <class T>
struct LevelPointers {
  T* at[kMaxLevels];
};

// A region in pixels of its map.
template <class A>
struct Roi {
  int64_t image;
  int level;
  bool index_error;  // image or level out of range: the output is zero and the caller reports it
  bool empty;        // a coordinate that is not finite, or inverted sides where aligned: the output is zero
  SampleAxis<A> y, x;

  FV_HD bool is_zero() const { return index_error || empty; }
  FV_HD A inverse_samples() const {  // each sample's share of the average
    const A n = A(y.samples) * A(x.samples);
    return A(1) / max_of(n, A(1));
  }
};

template <class A>
FV_HD bool is_index(A v, int64_t end) {  // an integer in [0, end); false for NaN
  return v >= A(0) && v < A(end) && v == A(static_cast<int64_t>(v));
}

template <class A>
FV_HD int64_t samples_per_bin(A bin, int64_t sampling_ratio) {
  if (sampling_ratio > 0) return sampling_ratio;
  const A most = A(1 << 30);
  return static_cast<int64_t>(ceil(bin < most ? bin : most));
}

template <class A>
FV_HD Roi<A> load_roi(const A* roi, const int64_t* level_of, const RoiAlignShape& s, int64_t index) {
  const A* p = roi + 5 * index;
  Roi<A> r{};
  r.index_error = !is_index(p[0], s.batch) || (level_of && !(level_of[index] >= 0 && level_of[index] < s.levels));
  const Box<A> box = load_box(p + 1);
  r.empty = !is_finite(box);
  if (r.is_zero()) return r;
  r.image = static_cast<int64_t>(p[0]);
  if (level_of) {
    r.level = int(level_of[index]);
  } else {
    const double area = double((box.x2 - box.x1) * (box.y2 - box.y1));
    while (r.level + 1 < s.levels && area >= s.level[r.level + 1].least_area) ++r.level;
  }
  const RoiAlignShape::Level& map = s.level[r.level];
  const A scale = A(map.spatial_scale), shift = s.aligned ? A(0.5) : A(0);
  const A x1 = box.x1 * scale - shift, y1 = box.y1 * scale - shift;
  A w = box.x2 * scale - shift - x1, h = box.y2 * scale - shift - y1;
  if (!s.aligned) {
    w = max_of(w, A(1));
    h = max_of(h, A(1));
  }
  r.empty = !(w >= A(0) && h >= A(0) && is_finite(w) && is_finite(h) && is_finite(x1) && is_finite(y1));
  if (r.empty) return r;
  const A bin_h = h / A(s.out_h), bin_w = w / A(s.out_w);
  r.y = {y1, bin_h, s.out_h, samples_per_bin(bin_h, s.sampling_ratio), map.height};
  r.x = {x1, bin_w, s.out_w, samples_per_bin(bin_w, s.sampling_ratio), map.width};
  return r;
}

// Whether samples of a region may reach pixels [first, first + count) of an axis.
template <class A>
FV_HD bool touches(const SampleAxis<A>& axis, int64_t first, int64_t count) {
  const A end = axis.start + axis.bin * A(axis.bins), slack = A(2) + A(1e-5) * A(fabs(end));
  return end + slack >= A(first) && axis.start <= A(first + count) + A(2) + A(1e-5) * A(fabs(axis.start));
}

// The backward goes over square tiles of pixels, numbered over levels, images, rows and columns.
struct RoiAlignTiles {
  int64_t side;
  int64_t before[kMaxLevels + 1];  // tiles of the levels before this one
  int64_t across[kMaxLevels];

  RoiAlignTiles(const RoiAlignShape& s, int64_t pixels) : side(pixels) {
    before[0] = 0;
    for (int l = 0; l < s.levels; ++l) {
      across[l] = ceil_div(s.level[l].width, side);
      before[l + 1] = before[l] + s.batch * ceil_div(s.level[l].height, side) * across[l];
    }
  }
  struct Tile {
    int level;
    int64_t image, y, x;  // of its first pixel
  };
  FV_HD Tile at(const RoiAlignShape& s, int64_t index) const {
    Tile t{};
    while (index >= before[t.level + 1]) ++t.level;
    index -= before[t.level];
    const int64_t per_image = ceil_div(s.level[t.level].height, side) * across[t.level];
    t.image = index / per_image;
    t.y = index % per_image / across[t.level] * side;
    t.x = index % across[t.level] * side;
    return t;
  }
};

// Twins. maps and grad_maps: one (batch, channels, height, width) per level, contiguous or all channels_last; out and
// grad: (rois, channels, out_h, out_w) likewise; rois in the accumulation type; level_of: (rois,) or null to choose by
// area. The backward writes every element of grad_maps and adds in a fixed order.
template <class T, class Isa>
void roi_align(const RoiAlignShape&, const LevelPointers<const T>& maps, const Accum<T>* rois, const int64_t* level_of,
               T* out, const Cpu<Isa>&);
template <class T, class Isa>
void roi_align_backward(const RoiAlignShape&, const T* grad, const Accum<T>* rois, const int64_t* level_of,
                        const LevelPointers<T>& grad_maps, const Cpu<Isa>&);
template <class T>
void roi_align(const RoiAlignShape&, const LevelPointers<const T>& maps, const Accum<T>* rois, const int64_t* level_of,
               T* out, const CudaExec&);
template <class T>
void roi_align_backward(const RoiAlignShape&, const T* grad, const Accum<T>* rois, const int64_t* level_of,
                        const LevelPointers<T>& grad_maps, const CudaExec&);

}  // namespace fastvision
