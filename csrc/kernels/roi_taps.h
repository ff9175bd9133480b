// What a region reads from its map, along each axis, and the order in which regions are taken.
#pragma once

#include <vector>

#include "channels_last.h"
#include "roi_align.h"
#include "simd.h"
#include "sort.h"

namespace fastvision {
namespace {

// The pixels along one axis that each bin of a region reads, with the weights of all its steps added up.
template <class A>
struct AxisPixels {
  struct Pixel {
    int64_t at;
    A weight;
  };
  std::vector<Pixel> pixels;  // those of a bin ascend
  std::vector<size_t> ends;   // of each bin in pixels

  // Bins: SampledBins or the like.
  template <class Bins>
  void set(const Bins& axis, int64_t bins, A share) {
    clear();
    pixels.reserve(size_t(4 * bins));  // mostly enough
    ends.reserve(size_t(bins));
    for (int64_t p = 0; p < bins; ++p) add_bin(axis, p, share);
  }
  void clear() {
    pixels.clear();
    ends.clear();
  }
  template <class Bins>
  void add_bin(const Bins& axis, int64_t p, A share) {
    const size_t begin = pixels.size();
    const auto steps = axis.steps(p);
    for (int64_t i = steps.begin; i < steps.end; ++i) {
      const Tap<A> tap = axis.tap(p, i);
      if (tap.low_weight != A(0)) add(begin, tap.low, tap.low_weight * share);
      if (tap.high_weight != A(0)) add(begin, tap.high, tap.high_weight * share);
    }
    ends.push_back(pixels.size());
  }
  const Pixel* begin_of(int64_t p) const { return pixels.data() + (p ? ends[size_t(p - 1)] : 0); }
  const Pixel* end_of(int64_t p) const { return pixels.data() + ends[size_t(p)]; }

 private:
  void add(size_t begin, int64_t at, A weight) {  // steps ascend, so the pixel is one of the last two or new
    for (size_t k = pixels.size(); k > begin && k + 2 > pixels.size(); --k)
      if (pixels[k - 1].at == at) {
        pixels[k - 1].weight += weight;
        return;
      }
    pixels.push_back({at, weight});
  }
};

// Of a bin's average.
template <class A>
A share_of_sample(const SampleAxis<A>& axis) {
  return A(1) / max_of(A(axis.samples), A(1));
}

template <class A>
struct AxisTaps : AxisPixels<A> {
  int64_t low, high;  // the range of pixels of all bins
  // The same with as many pixels in every bin as in the largest, relative to low: [pixel][bin], filled up to whole
  // vectors of bins. A filler takes half the weight of the pixel before it, for with weight 0 an infinite pixel would
  // make NaN. Not where a bin has more than kMostPixels or none, or `at` cannot hold places: then `most` is 0.
  static constexpr int64_t kMostPixels = 16;
  int64_t most, padded;
  std::vector<int32_t> at;
  std::vector<A> weights;

  // filled: whether bins of equal size are wanted, too.
  void set(const SampleAxis<A>& axis, A share, bool filled) {
    AxisPixels<A>::set(SampledBins<A>{axis}, axis.bins, share);
    if (!filled) return;
    low = axis.size, high = -1;
    for (const auto& pixel : this->pixels) low = min_of(low, pixel.at), high = max_of(high, pixel.at);
    fill_bins(axis.bins);
  }

 private:
  void fill_bins(int64_t bins) {
    most = 0;
    bool empty = false;
    for (int64_t p = 0; p < bins; ++p) {
      const int64_t count = this->end_of(p) - this->begin_of(p);
      most = max_of(most, count);
      empty |= count == 0;
    }
    if (empty || most > kMostPixels || high - low > INT32_MAX) most = 0;
    padded = ceil_div(bins, kLanes<A>) * kLanes<A>;
    at.assign(size_t(most * padded), 0);
    weights.assign(size_t(most * padded), A(0));
    for (int64_t p = 0; p < bins; ++p)
      for (int64_t k = 0; k < most; ++k) {
        const auto *pixel = this->begin_of(p) + k, *end = this->end_of(p);
        const bool filler = pixel >= end;
        at[size_t(k * padded + p)] = int32_t((filler ? end[-1] : *pixel).at - low);
        A& weight = weights[size_t(k * padded + p)];
        weight = filler ? (weights[size_t((k - 1) * padded + p)] *= A(0.5)) : pixel->weight;
      }
  }
};

template <class A>
struct RoiTaps {
  AxisTaps<A> y, x;
  void set(const Roi<A>& r, bool filled) {
    y.set(r.y, share_of_sample(r.y), filled);
    x.set(r.x, share_of_sample(r.x), filled);
  }
};

// A region and its index among those given.
template <class A>
struct Placed {
  Roi<A> roi;
  int64_t index;
};

// The regions by level, image and tile of the map, so that one after another reads the same memory.
template <class A>
std::vector<Placed<A>> in_order_of_place(const RoiAlignShape& s, const A* rois, const int64_t* level_of) {
  std::vector<Keyed<uint64_t>> keys, spare;
  std::vector<Placed<A>> placed;
  keys.reserve(size_t(s.rois));
  for (int64_t r = 0; r < s.rois; ++r) {
    const Roi<A> roi = load_roi(rois, level_of, s, r);
    const auto tile = [](const SampleAxis<A>& axis) {
      const A center = axis.start + axis.bin * A(axis.bins) / A(2);
      return uint64_t(center > A(0) ? (center < A(1 << 20) ? center : A(1 << 20)) : A(0)) >> 4;
    };
    const uint64_t key = roi.is_zero() ? 0
                                       : uint64_t(roi.level) << 60 | (uint64_t(roi.image) & 0xfffffff) << 32 |
                                             tile(roi.y) << 16 | tile(roi.x);
    keys.push_back({key, uint32_t(r)});
  }
  sort_by_key(keys, spare);
  placed.reserve(keys.size());
  for (const auto& k : keys) placed.push_back({load_roi(rois, level_of, s, k.index), int64_t(k.index)});
  return placed;
}

}  // namespace
}  // namespace fastvision
