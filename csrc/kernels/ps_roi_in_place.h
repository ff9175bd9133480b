// CPU: position-sensitive pooling region by region from the map itself: to few channels, of which vectors would be
// mostly empty, or from few regions.
#pragma once

#include <type_traits>

#include "ps_roi_taps.h"
#include "simd.h"
#include "unrolled.h"

namespace fastvision {
namespace {

bool has_few_channels(const PsRoiShape& s) { return s.channels_out() > 0 && s.channels_out() <= 4; }

// Whether regions read so little of maps in channels_last that copies of these would take longer.
template <class Regions>
bool read_little(const PsRoiShape& s, const Regions& regions) {
  if (!s.map.channels_last || s.channels_out() == 0) return false;
  size_t pixels = 0;
  for (const auto& r : regions) {
    if (r.y.ends.empty() && !r.region.is_zero()) return false;
    pixels += r.y.pixels.size() * r.x.pixels.size();
  }
  return 3 * int64_t(pixels) < s.map.batch * s.pixels() * s.map.bins();
}

// f(channel of the result, weight, value) for all pixels of a bin with kChannels channels.
template <int kChannels, class A, class Value, class F>
FV_HD void for_each_value(const PsRoiShape& s, const BinTaps<A>& taps, int64_t bin, Value* map, F&& f) {
  const int64_t pixel_stride = s.map.channels_last ? s.map.channels : 1, stride = s.map.map_channel_stride(0);
  for (auto row = taps.y; row != taps.y_end; ++row)
    for (auto column = taps.x; column != taps.x_end; ++column) {
      Value* const p = map + bin * stride + (row->at * s.map.level[0].width + column->at) * pixel_stride;
      for (int c = 0; c < kChannels; ++c) f(c, row->weight * column->weight, p[c * s.map.bins() * stride]);
    }
}

// All bins of a region. map: of its image, out: of the region, from the first channel on.
template <int kChannels, class T, class Bins>
void pool_channels(const PsRoiShape& s, const RegionPixels<Accum<T>, Bins>& region, TapsOfBins<Accum<T>, Bins>& of_bins,
                   const T* map, T* out) {
  using A = Accum<T>;
  for (int64_t bin = 0; bin < s.map.bins(); ++bin) {
    const BinTaps<A> taps = of_bins.taps(region, bin);
    A sums[kChannels] = {};
    for_each_value<kChannels>(s, taps, bin, map,
                              [&](int c, A weight, const T& value) FV_INLINE { sums[c] += weight * to_accum(value); });
    for (int c = 0; c < kChannels; ++c)
      out[s.out_offset(0, c * s.map.bins() + bin)] = from_accum<T>(sums[c] / taps.share);
  }
}

// Adds a number per channel to the pixels of a bin, all of weight 1, a row of them at once.
template <int kChannels, class A>
FV_HD void add_to_rows(const PsRoiShape& s, const BinTaps<A>& taps, int64_t bin, const A (&g)[kChannels], A* map) {
  const int64_t width = s.map.level[0].width, stride = s.map.map_channel_stride(0), columns = taps.x_end - taps.x;
  if (columns == 0) return;
  for (auto row = taps.y; row != taps.y_end; ++row)
    for (int c = 0; c < kChannels; ++c) {
      A* const p = map + (c * s.map.bins() + bin) * stride + row->at * width + taps.x->at;
      store_vector(p, load_vector(p, columns) + Vec<A>(g[c]), columns);
    }
}

// Adds the gradient of bins [begin, end) of a region. grad: of the region, map: the gradient of its image, from the
// first channel on.
template <int kChannels, class A, class Bins>
void add_channels(const PsRoiShape& s, const RegionPixels<A, Bins>& region, TapsOfBins<A, Bins>& of_bins, int64_t begin,
                  int64_t end, const A* grad, A* map) {
  // Elsewhere a part of a vector is not written quickly.
  constexpr bool kRows = std::is_same_v<Bins, PixelBins<A>> && kVectorBytes == 64;
  for (int64_t bin = begin; bin < end; ++bin) {
    const BinTaps<A> taps = of_bins.taps(region, bin);
    A g[kChannels];
    for (int c = 0; c < kChannels; ++c) g[c] = grad[s.out_offset(0, c * s.map.bins() + bin)] / taps.share;
    if (kRows && !s.map.channels_last && taps.x_end - taps.x <= kLanes<A>) add_to_rows(s, taps, bin, g, map);
    else for_each_value<kChannels>(s, taps, bin, map, [&](int c, A weight, A& sum) FV_INLINE { sum += weight * g[c]; });
  }
}

// Calls f(number of channels, where they begin in a region's bins, and in the map) for four channels at a time.
template <class F>
FV_HD void for_each_four(const PsRoiShape& s, F&& f) {
  for (int64_t c = 0; c < s.channels_out(); c += 4)
    with_constant(s.channels_out() - c, [&](auto count) {
      f(count, s.out_offset(0, c * s.map.bins()), c * s.map.bins() * s.map.map_channel_stride(0));
    });
}

template <class T, class Bins>
void pool_in_place(const PsRoiShape& s, const RegionPixels<Accum<T>, Bins>& region, TapsOfBins<Accum<T>, Bins>& of_bins,
                   const T* map, T* out) {
  for_each_four(s, [&](auto count, int64_t in_region, int64_t in_map) {
    pool_channels<count()>(s, region, of_bins, map + in_map, out + in_region);
  });
}
template <class A, class Bins>
void add_in_place(const PsRoiShape& s, const RegionPixels<A, Bins>& region, TapsOfBins<A, Bins>& of_bins, int64_t begin,
                  int64_t end, const A* grad, A* map) {
  for_each_four(s, [&](auto count, int64_t in_region, int64_t in_map) {
    add_channels<count()>(s, region, of_bins, begin, end, grad + in_region, map + in_map);
  });
}

}  // namespace
}  // namespace fastvision
