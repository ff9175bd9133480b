// CPU, RoI pooling from packed pixels: vectors of channels walk the pixels of each bin with their running maximum and
// its pixel; for NCHW the bins of a region are transposed.
#pragma once

#include <algorithm>
#include <vector>

#include "roi_pool_maps.h"
#include "simd_integers.h"

namespace fastvision {
namespace {

constexpr int64_t kBins = 64;  // that are transposed at a time

// The maxima of one bin and, if kPlaces, their pixels, for kCount vectors of channels.
template <int kCount, bool kNan, bool kPlaces, class A>
FV_HD void pool_bin(const PackedMap<A>& map, Range<A> rows, Range<A> columns, int64_t channel, A* best_to,
                    int32_t* at_to) {
  Vec<A> best[kCount];
  IndexVec<A> at[kCount];
  const A* p = map.at(rows.begin, columns.begin) + channel;
  for (int v = 0; v < kCount; ++v) {
    best[v] = Vec<A>::load(p + v * kLanes<A>);
    at[v] = all_lanes<A>(rows.begin * map.map_width + columns.begin);
  }
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    p = map.at(y, columns.begin) + channel;
    for (int64_t x = columns.begin; x < columns.end; ++x, p += kCount == kVectors ? kChannels<A> : map.stride)
      for (int v = 0; v < kCount; ++v) {
        const Vec<A> value = Vec<A>::load(p + v * kLanes<A>);
        auto wins = value > best[v];
        if constexpr (kNan) wins = either(wins, both(!(value == value), best[v] == best[v]));
        best[v] = kNan || kPlaces ? select(wins, value, best[v]) : max_of(best[v], value);
        if constexpr (kPlaces) at[v] = select(wins, y * map.map_width + x, at[v]);
      }
  }
  for (int v = 0; v < kCount; ++v) {
    best[v].store(best_to + v * kLanes<A>);
    if constexpr (kPlaces) store_indices<A>(at_to + v * kLanes<A>, at[v]);
  }
}

template <bool kNan, bool kPlaces, class A>
FV_HD void pool_bin(const PackedMap<A>& map, Range<A> rows, Range<A> columns, int64_t channels, A* best, int32_t* at) {
  if (rows.end <= rows.begin || columns.end <= columns.begin) {
    std::fill(best, best + channels, A(0));
    std::fill(at, at + channels, -1);
  } else if (channels == kChannels<A>) {
    pool_bin<kVectors, kNan, kPlaces>(map, rows, columns, 0, best, at);
  } else {
    for (int64_t c = 0; c < channels; c += kLanes<A>)
      pool_bin<1, kNan, kPlaces>(map, rows, columns, c, best + c, at + c);
  }
}

// Channels [first, first + channels) of one region.
template <bool kNan, bool kPlaces, class T>
void pool_region(const RoiPoolShape& s, const PackedMap<Accum<T>>& map, const Range<Accum<T>>* rows,
                 const Range<Accum<T>>* columns, int64_t first, int64_t channels, T* out, int32_t* argmax) {
  using A = Accum<T>;
  alignas(64) A best[kBins * kChannels<A>];
  alignas(64) int32_t at[kBins * kChannels<A>];
  for (int64_t begin = 0; begin < s.bins(); begin += kBins) {
    const int64_t bins = min_of(kBins, s.bins() - begin);
    for (int64_t k = 0, ph = begin / s.out_w, pw = begin % s.out_w; k < bins; ++k) {
      pool_bin<kNan, kPlaces>(map, rows[ph], columns[pw], channels, best + k * kChannels<A>, at + k * kChannels<A>);
      if (++pw == s.out_w) pw = 0, ++ph;
    }
    if (s.channels_last) {
      for (int64_t k = 0; k < bins; ++k) {
        const int64_t to = (begin + k) * s.channels + first;
        for (int64_t c = 0; c < channels; c += kLanes<A>)
          store_strided(out + to + c, 1, Vec<A>::load(best + k * kChannels<A> + c), min_of(kLanes<A>, channels - c));
        if (kPlaces) memcpy(argmax + to, at + k * kChannels<A>, size_t(channels) * sizeof(int32_t));
      }
    } else {
      const int64_t to = first * s.bins() + begin;
      transpose(best, kChannels<A>, bins, channels, out + to, s.bins());
      if (kPlaces)
        transpose(reinterpret_cast<const float*>(at), kChannels<A>, bins, channels,
                  reinterpret_cast<float*>(argmax + to), s.bins());
    }
  }
}

// `nan`: whether a value is NaN; `places`: whether the pixels of the maxima are wanted.
template <class T>
auto region_pool(bool nan, bool places) {
  if (places) return nan ? pool_region<true, true, T> : pool_region<false, true, T>;
  return nan ? pool_region<true, false, T> : pool_region<false, false, T>;
}

// All channels of one region, packed by itself.
template <class T>
void pool_alone(const RoiPoolShape& s, const Regions<Accum<T>>& regions, int64_t r, const T* image,
                std::vector<Accum<T>>& scratch, T* out, int32_t* argmax) {
  using A = Accum<T>;
  const Window<A> window = regions.window(r);
  scratch.resize(size_t(window.pixels() * min_of(s.channels, kChannels<A>) + kLanes<A>));
  for (int64_t c = 0; c < s.channels; c += kChannels<A>) {
    const int64_t channels = min_of(kChannels<A>, s.channels - c);
    const bool nan = pack(s, image + c * s.channel_stride(), window, channels, scratch.data());
    region_pool<T>(nan, argmax != nullptr)(s, PackedMap<A>(s, scratch.data(), window, channels), regions.rows(r),
                                           regions.columns(r), c, channels, out, argmax);
  }
}

}  // namespace
}  // namespace fastvision
