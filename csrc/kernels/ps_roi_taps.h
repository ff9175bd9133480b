// CPU: what the bins of a region of position-sensitive pooling read.
#pragma once

#include <type_traits>

#include "ps_roi.h"
#include "roi_taps.h"

namespace fastvision {
namespace {

constexpr int64_t kKeptPixels = 1 << 22;  // of all regions, in memory

// A region and its pixels; none where regions and maps are so large that these are worked out for each bin.
template <class A, class Bins>
struct RegionPixels {
  PsRegion<Bins> region;
  AxisPixels<A> y, x;

  // kept: regions whose pixels are in memory at the same time.
  void set(const PsRoiShape& s, const A* rois, int64_t r, int64_t kept) {
    const int64_t sides = s.map.level[0].height + s.map.level[0].width + s.map.out_h + s.map.out_w;
    region = load_region(rois, s, r, Bins{});
    if (region.is_zero() || sides > kKeptPixels / kept) return;
    y.set(region.y, s.map.out_h, A(1));
    x.set(region.x, s.map.out_w, A(1));
  }
};

// The pixels of a bin along both axes, and what its sum is divided by.
template <class A>
struct BinTaps {
  const typename AxisPixels<A>::Pixel *y, *y_end, *x, *x_end;
  A share;
};

template <class A, class Bins>
class TapsOfBins {
 public:
  explicit TapsOfBins(const PsRoiShape& s) : across_(s.map.out_w) {}

  // Until the next call.
  BinTaps<A> taps(const RegionPixels<A, Bins>& from, int64_t bin) {
    if (bin == bin_ + 1 && pw_ + 1 < across_) ++pw_;
    else if (bin != bin_) ph_ = bin / across_, pw_ = bin % across_;
    bin_ = bin;
    const auto& [region, y, x] = from;
    if (!y.ends.empty()) return between(region, y.begin_of(ph_), y.end_of(ph_), x.begin_of(pw_), x.end_of(pw_));
    y_.clear(), x_.clear();
    y_.add_bin(region.y, ph_, A(1)), x_.add_bin(region.x, pw_, A(1));
    return between(region, y_.begin_of(0), y_.end_of(0), x_.begin_of(0), x_.end_of(0));
  }

 private:
  using Pixel = typename AxisPixels<A>::Pixel;

  BinTaps<A> between(const PsRegion<Bins>& region, const Pixel* y, const Pixel* y_end, const Pixel* x,
                     const Pixel* x_end) const {
    A steps;
    if constexpr (std::is_same_v<Bins, PixelBins<A>>) steps = A(y_end - y) * A(x_end - x);
    else steps = region.y.length(ph_) * region.x.length(pw_);
    return {y, y_end, x, x_end, max_of(steps, A(1))};
  }

  const int64_t across_;
  int64_t bin_ = -2, ph_ = 0, pw_ = 0;
  AxisPixels<A> y_, x_;  // of a bin, where they are not kept
};

}  // namespace
}  // namespace fastvision
