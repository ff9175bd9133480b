// CPU: what the bins of a region of position-sensitive pooling read.
#pragma once

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
    const auto& [region, y, x] = from;
    const int64_t ph = bin / across_, pw = bin % across_;
    const A share = max_of(region.y.length(ph) * region.x.length(pw), A(1));
    if (!y.ends.empty()) return {y.begin_of(ph), y.end_of(ph), x.begin_of(pw), x.end_of(pw), share};
    y_.clear(), x_.clear();
    y_.add_bin(region.y, ph, A(1)), x_.add_bin(region.x, pw, A(1));
    return {y_.begin_of(0), y_.end_of(0), x_.begin_of(0), x_.end_of(0), share};
  }

 private:
  const int64_t across_;
  AxisPixels<A> y_, x_;  // of a bin, where they are not kept
};

}  // namespace
}  // namespace fastvision
