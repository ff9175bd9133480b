// CPU, RoI pooling: the pixels of all regions' bins, and the parts of the maps that they read, packed for vectors of
// channels.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "roi_pool.h"
#include "simd.h"

namespace fastvision {
namespace {

constexpr int kVectors = 4;
template <class A>
constexpr int64_t kChannels = kVectors * kLanes<A>;  // of a task

template <class A>
using Range = typename PoolAxis<A>::Range;

// A part of a map.
template <class A>
struct Window {
  Range<A> rows{INT64_MAX, 0}, columns{INT64_MAX, 0};

  int64_t width() const { return columns.end - columns.begin; }
  int64_t pixels() const { return is_empty() ? 0 : (rows.end - rows.begin) * width(); }
  bool is_empty() const { return rows.end <= rows.begin || columns.end <= columns.begin; }
  void include(const Window& other) {
    if (other.is_empty()) return;
    const auto join = [](Range<A>& a, Range<A> b) { a = {min_of(a.begin, b.begin), max_of(a.end, b.end)}; };
    join(rows, other.rows), join(columns, other.columns);
  }
};

// The pixels of the bins of all regions.
template <class A>
struct Regions {
  std::vector<int64_t> image;   // -1: the output is zero
  std::vector<Range<A>> edges;  // of each region: its rows of bins, then its columns of bins
  int64_t out_h, out_w;

  Regions(const RoiPoolShape& s, const A* rois) : out_h(s.out_h), out_w(s.out_w) {
    image.reserve(size_t(s.rois));
    edges.reserve(size_t(s.rois * (out_h + out_w)));
    for (int64_t r = 0; r < s.rois; ++r) {
      const PoolRoi<A> roi = load_pool_roi(rois, s, r);
      image.push_back(roi.is_zero() ? -1 : roi.image);
      for (int64_t p = 0; p < out_h; ++p) edges.push_back(roi.is_zero() ? Range<A>{0, 0} : roi.y.pixels_of(p));
      for (int64_t p = 0; p < out_w; ++p) edges.push_back(roi.is_zero() ? Range<A>{0, 0} : roi.x.pixels_of(p));
    }
  }
  const Range<A>* rows(int64_t r) const { return edges.data() + r * (out_h + out_w); }
  const Range<A>* columns(int64_t r) const { return rows(r) + out_h; }
  // What all bins of a region read.
  Window<A> window(int64_t r) const {
    return {{rows(r)[0].begin, rows(r)[out_h - 1].end}, {columns(r)[0].begin, columns(r)[out_w - 1].end}};
  }
};

// Copies a part of some channels' planes, to (pixel, channel); returns whether a value is NaN.
template <class T>
bool pack(const RoiPoolShape& s, const T* planes, const Window<Accum<T>>& window, int64_t channels, Accum<T>* to) {
  using A = Accum<T>;
  const int64_t row = window.width() * channels;
  bool nan = false;
  for (int64_t y = window.rows.begin; y < window.rows.end; ++y, to += row) {
    const T* const from = planes + (y * s.width + window.columns.begin) * s.pixel_stride();
    if (!s.channels_last) transpose(from, s.pixels(), channels, window.width(), to, channels);
    else if (channels == s.channels) copy_numbers(from, row, to);
    else
      for (int64_t x = 0; x < window.width(); ++x) copy_numbers(from + x * s.channels, channels, to + x * channels);
    for_each_vector<A>(row, [&](int64_t i, int, auto n) FV_INLINE {
      const Vec<A> v = load_vector(to + i, n);
      nan = nan || any(!(v == v));
    });
  }
  return nan;
}

// A chunk of the channels of a part of a map, packed. A vector behind the last pixel may be read, its lanes do not
// count.
template <class A>
struct PackedMap {
  const A* values;
  int64_t top, left, width;
  int64_t map_width, stride;

  PackedMap(const RoiPoolShape& s, const A* packed, const Window<A>& window, int64_t channels)
      : values(packed),
        top(window.rows.begin),
        left(window.columns.begin),
        width(window.width()),
        map_width(s.width),
        stride(channels) {}
  const A* at(int64_t y, int64_t x) const { return values + ((y - top) * width + x - left) * stride; }
};

// Values of all regions' parts of the maps, each by itself.
template <class A>
int64_t values_of_regions(const RoiPoolShape& s, const Regions<A>& regions) {
  int64_t pixels = 0;
  for (int64_t r = 0; r < s.rois; ++r) pixels += regions.window(r).pixels();
  return pixels * s.channels;
}

// The parts of all maps that regions read, in the accumulation type: for each image (chunk of channels, pixel,
// channel).
template <class A>
struct PackedMaps {
  int64_t chunks;
  std::vector<Window<A>> windows;  // of each image
  std::vector<int64_t> offsets;    // of its values, one more than there are images
  std::unique_ptr<A[]> values;
  std::vector<char> nan;  // of each image and chunk: whether one of its values is NaN

  PackedMaps(const RoiPoolShape& s, const Regions<A>& regions)
      : chunks(ceil_div(s.channels, kChannels<A>)),
        windows(size_t(s.batch)),
        offsets(1),
        nan(size_t(s.batch * chunks)) {
    for (int64_t r = 0; r < s.rois; ++r)
      if (const int64_t image = regions.image[size_t(r)]; image >= 0) windows[size_t(image)].include(regions.window(r));
    for (Window<A>& w : windows) {
      if (w.is_empty()) w = {{0, 0}, {0, 0}};
      offsets.push_back(offsets.back() + w.pixels() * s.channels);
    }
  }
  int64_t size() const { return offsets.back(); }
  void allocate() {
    values = std::make_unique_for_overwrite<A[]>(size_t(size() + kLanes<A>));
    std::fill_n(values.get() + size(), kLanes<A>, A(0));
  }
  template <class T>
  void pack_chunk(const RoiPoolShape& s, const T* input, int64_t image, int64_t chunk) {
    const int64_t first = chunk * kChannels<A>, channels = min_of(kChannels<A>, s.channels - first);
    const T* const planes = input + s.image_offset(image) + first * s.channel_stride();
    nan[size_t(image * chunks + chunk)] = pack(s, planes, windows[size_t(image)], channels, at(image, chunk));
  }
  PackedMap<A> map(const RoiPoolShape& s, int64_t image, int64_t chunk, int64_t channels) {
    return {s, at(image, chunk), windows[size_t(image)], channels};
  }

 private:
  A* at(int64_t image, int64_t chunk) {
    return values.get() + offsets[size_t(image)] + windows[size_t(image)].pixels() * chunk * kChannels<A>;
  }
};

}  // namespace
}  // namespace fastvision
