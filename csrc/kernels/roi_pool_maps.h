// CPU, RoI pooling: the pixels of all regions' bins, and the parts of the maps that they read, packed for vectors of
// channels.
#pragma once

#include <vector>

#include "roi_pool.h"
#include "simd.h"

namespace fastvision {
namespace {

template <class A>
constexpr int64_t kLanes = Vec<A>::kLanes;
constexpr int kVectors = 4;
template <class A>
constexpr int64_t kChannels = kVectors * kLanes<A>;  // of a task

template <class A>
using Range = typename PoolAxis<A>::Range;

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
  double pixels_read(int64_t r) const {  // by all bins
    const auto sum = [](const Range<A>* ranges, int64_t count) {
      double all = 0;
      for (int64_t k = 0; k < count; ++k) all += double(max_of(ranges[k].end - ranges[k].begin, int64_t(0)));
      return all;
    };
    return sum(rows(r), out_h) * sum(columns(r), out_w);
  }
};

// The parts of all maps that regions read, in the accumulation type: for each image (chunk of channels, pixel,
// channel).
template <class A>
struct PackedMaps {
  struct Window {
    Range<A> rows, columns;
    int64_t offset;  // in values
    int64_t width() const { return columns.end - columns.begin; }
    int64_t pixels() const { return (rows.end - rows.begin) * width(); }
  };
  int64_t chunks, stride;       // stride: values of a pixel, of one chunk
  std::vector<Window> windows;  // of each image
  std::vector<A> values;
  std::vector<char> nan;  // of each image and chunk: whether one of its values is NaN

  PackedMaps(const RoiPoolShape& s, const Regions<A>& regions)
      : chunks(ceil_div(s.channels, kChannels<A>)),
        stride(min_of(ceil_div(s.channels, kLanes<A>) * kLanes<A>, kChannels<A>)) {
    windows.assign(size_t(s.batch), {{s.height, 0}, {s.width, 0}, 0});
    nan.resize(size_t(s.batch * chunks));
    const auto extend = [](Range<A>& all, const Range<A>* edges, int64_t count) {
      all = {min_of(all.begin, edges[0].begin), max_of(all.end, edges[count - 1].end)};
    };
    for (int64_t r = 0; r < s.rois; ++r) {
      if (regions.image[size_t(r)] < 0) continue;
      Window& w = windows[size_t(regions.image[size_t(r)])];
      extend(w.rows, regions.rows(r), s.out_h);
      extend(w.columns, regions.columns(r), s.out_w);
    }
    int64_t size = 0;
    for (Window& w : windows) {
      if (w.rows.end <= w.rows.begin || w.columns.end <= w.columns.begin) w.rows = w.columns = {0, 0};
      w.offset = size;
      size += w.pixels() * chunks * stride;
    }
  }
  // Whether to pack them costs less than to read each region where it lies.
  bool pays(const RoiPoolShape& s, const Regions<A>& regions) const {
    double packed = 0, read = 0;
    for (const Window& w : windows) packed += double(w.pixels() * chunks * stride);
    for (int64_t r = 0; r < s.rois; ++r) read += regions.pixels_read(r) * double(s.channels);
    return 2 * read > packed;
  }
  void allocate() {
    const Window& last = windows.back();
    values.resize(size_t(last.offset + last.pixels() * chunks * stride));
  }
  template <class T>
  void pack(const RoiPoolShape& s, const T* input, int64_t image, int64_t chunk) {
    const Window& w = windows[size_t(image)];
    const int64_t first = chunk * kChannels<A>, channels = min_of(kChannels<A>, s.channels - first);
    const T* plane = input + s.image_offset(image) + first * s.channel_stride();
    A* to = values.data() + w.offset + chunk * w.pixels() * stride;
    bool found = false;
    for (int64_t y = w.rows.begin; y < w.rows.end; ++y, to += w.width() * stride) {
      const T* from = plane + (y * s.width + w.columns.begin) * s.pixel_stride();
      if (!s.channels_last) transpose(from, s.pixels(), channels, w.width(), to, stride);
      for (int64_t x = 0; x < w.width(); ++x)
        for (int64_t c = 0; c < channels; c += kLanes<A>) {
          A* const p = to + x * stride + c;
          const int64_t count = min_of(kLanes<A>, channels - c);
          if (s.channels_last) load_strided(from + x * s.channels + c, 1, count).store(p);
          const Vec<A> v = Vec<A>::load(p);
          found = found || any(!(v == v));
        }
    }
    nan[size_t(image * chunks + chunk)] = found;
  }
};

// One chunk of the channels of a map.
template <class A>
struct PackedMap {
  const A* values;
  int64_t top, left, width;  // of the window
  int64_t map_width, stride;

  PackedMap(const PackedMaps<A>& all, int64_t image, int64_t chunk, int64_t full_width)
      : map_width(full_width), stride(all.stride) {
    const auto& w = all.windows[size_t(image)];
    top = w.rows.begin, left = w.columns.begin, width = w.width();
    values = all.values.data() + w.offset + chunk * w.pixels() * stride;
  }
  const A* at(int64_t y, int64_t x) const { return values + ((y - top) * width + x - left) * stride; }
};

}  // namespace
}  // namespace fastvision
