// Forward: the parts of the maps that regions read are packed once as (pixels, a few vectors of channels), small enough
// for the second cache and the same for both layouts (roi_pool_maps.h). Then vectors of channels walk the pixels of
// each bin with their running maximum and its pixel; for NCHW the bins of a region are transposed. Few or small regions
// are packed one by one. Bound by the bytes of output and argmax. Backward: a task owns channels of an image and goes
// through the regions in order, so sums have a fixed order. Bound by the additions, each to another place of its plane.
#include "roi_pool.h"

#include <algorithm>
#include <vector>

#include "roi_pool_maps.h"
#include "simd_integers.h"

namespace fastvision {
namespace {

constexpr int64_t kResults = 1 << 17;  // of a group of regions
constexpr int64_t kBins = 64;          // that are transposed at a time

// The maxima of one bin and their pixels, for kCount vectors of channels.
template <int kCount, bool kNan, class A>
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
        best[v] = select(wins, value, best[v]);
        at[v] = select(wins, y * map.map_width + x, at[v]);
      }
  }
  for (int v = 0; v < kCount; ++v) {
    best[v].store(best_to + v * kLanes<A>);
    store_indices<A>(at_to + v * kLanes<A>, at[v]);
  }
}

template <bool kNan, class A>
FV_HD void pool_bin(const PackedMap<A>& map, Range<A> rows, Range<A> columns, int64_t channels, A* best, int32_t* at) {
  if (rows.end <= rows.begin || columns.end <= columns.begin) {
    std::fill(best, best + channels, A(0));
    std::fill(at, at + channels, -1);
  } else if (channels == kChannels<A>) {
    pool_bin<kVectors, kNan>(map, rows, columns, 0, best, at);
  } else {
    for (int64_t c = 0; c < channels; c += kLanes<A>) pool_bin<1, kNan>(map, rows, columns, c, best + c, at + c);
  }
}

// Channels [first, first + channels) of one region.
template <bool kNan, class T>
void pool_region(const RoiPoolShape& s, const PackedMap<Accum<T>>& map, const Range<Accum<T>>* rows,
                 const Range<Accum<T>>* columns, int64_t first, int64_t channels, T* out, int32_t* argmax) {
  using A = Accum<T>;
  alignas(64) A best[kBins * kChannels<A>];
  alignas(64) int32_t at[kBins * kChannels<A>];
  for (int64_t begin = 0; begin < s.bins(); begin += kBins) {
    const int64_t bins = min_of(kBins, s.bins() - begin);
    for (int64_t k = 0, ph = begin / s.out_w, pw = begin % s.out_w; k < bins; ++k) {
      pool_bin<kNan>(map, rows[ph], columns[pw], channels, best + k * kChannels<A>, at + k * kChannels<A>);
      if (++pw == s.out_w) pw = 0, ++ph;
    }
    if (s.channels_last) {
      for (int64_t k = 0; k < bins; ++k) {
        const int64_t to = (begin + k) * s.channels + first;
        for (int64_t c = 0; c < channels; c += kLanes<A>)
          store_strided(out + to + c, 1, Vec<A>::load(best + k * kChannels<A> + c), min_of(kLanes<A>, channels - c));
        memcpy(argmax + to, at + k * kChannels<A>, size_t(channels) * sizeof(int32_t));
      }
    } else {
      const int64_t to = first * s.bins() + begin;
      transpose(best, kChannels<A>, bins, channels, out + to, s.bins());
      transpose(reinterpret_cast<const float*>(at), kChannels<A>, bins, channels, reinterpret_cast<float*>(argmax + to),
                s.bins());
    }
  }
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
    const auto pool = nan ? pool_region<true, T> : pool_region<false, T>;
    pool(s, PackedMap<A>(s, scratch.data(), window, channels), regions.rows(r), regions.columns(r), c, channels, out,
         argmax);
  }
}

// Adds the gradients of some channels of one region to their planes of sums.
template <class T>
void add_region(const RoiPoolShape& s, const T* grad, const int32_t* argmax, int64_t channels, Accum<T>* planes) {
  const int64_t bins = s.bins();
  const uint32_t pixels = uint32_t(s.pixels());
  const auto add = [pixels](Accum<T>* plane, int32_t pixel, T g) {
    if (uint32_t(pixel) < pixels) plane[pixel] += to_accum(g);
  };
  if (s.channels_last) {
    for (int64_t bin = 0; bin < bins; ++bin, grad += s.channels, argmax += s.channels) {
      Accum<T>* plane = planes;
      for (int64_t c = 0; c < channels; ++c, plane += pixels) add(plane, argmax[c], grad[c]);
    }
  } else {
    for (int64_t c = 0; c < channels; ++c, grad += bins, argmax += bins, planes += pixels)
      for (int64_t bin = 0; bin < bins; ++bin) {
        __builtin_prefetch(planes + pixels + argmax[bin]);  // the next plane's sum is likely near the same pixel
        add(planes, argmax[bin], grad[bin]);
      }
  }
}

}  // namespace

template <class T, class Isa>
void roi_pool(const RoiPoolShape& s, const T* input, const Accum<T>* rois, T* out, int32_t* argmax,
              const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t per_roi = s.channels * s.bins();
  const Regions<A> regions(s, rois);
  PackedMaps<A> maps(s, regions);
  // One region to an image is packed with the map, which threads share.
  if (const int64_t alone = values_of_regions(s, regions); alone < maps.size())
    return exec(s.rois, 1 + 8192 / (alone / s.rois + per_roi + 1), [&](int64_t begin, int64_t end) {
      std::vector<A> scratch;
      for (int64_t r = begin; r < end; ++r) {
        const T* const image = input + s.image_offset(max_of(regions.image[size_t(r)], int64_t(0)));
        T* const to = out + r * per_roi;
        int32_t* const at = argmax + r * per_roi;
        pool_alone(s, regions, r, image, scratch, to, at);
      }
    });
  maps.allocate();
  exec(s.batch * maps.chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) maps.pack_chunk(s, input, i / maps.chunks, i % maps.chunks);
  });
  // Enough regions to read a chunk of the map from the second cache, few enough to find their fresh results in the
  // third.
  const int64_t group = max_of(int64_t(1), kResults / max_of(per_roi, int64_t(1)));
  exec(s.rois, 1 + 16384 / (per_roi + 1), [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += group)
      for (int64_t chunk = 0; chunk < maps.chunks; ++chunk)
        for (int64_t r = first; r < min_of(first + group, end); ++r) {
          const int64_t image = regions.image[size_t(r)];
          T* const to = out + r * per_roi;
          int32_t* const at = argmax + r * per_roi;
          if (image < 0) {
            memset(to, 0, size_t(per_roi) * sizeof(T));
            memset(at, 255, size_t(per_roi) * sizeof(int32_t));
            continue;
          }
          const auto pool =
              maps.nan[size_t(image * maps.chunks + chunk)] ? pool_region<true, T> : pool_region<false, T>;
          const int64_t channel = chunk * kChannels<A>, channels = min_of(kChannels<A>, s.channels - channel);
          pool(s, maps.map(s, image, chunk, channels), regions.rows(r), regions.columns(r), channel, channels, to, at);
        }
  });
}

template <class T, class Isa>
void roi_pool_backward(const RoiPoolShape& s, const T* grad, const Accum<T>* rois, const int32_t* argmax, T* grad_input,
                       const Cpu<Isa>& exec) {
  using A = Accum<T>;
  // Gradients are read from front to back, or, by several threads, in pieces as long as can be.
  const int64_t chunks = min_of(s.channels, ceil_div(exec.threads, max_of(s.batch, int64_t(1))));
  exec(s.batch * chunks, 1, [&](int64_t begin, int64_t end) {
    std::vector<A> scratch;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / chunks, first = task % chunks * s.channels / chunks;
      const int64_t channels = (task % chunks + 1) * s.channels / chunks - first, size = channels * s.pixels();
      T* const to = grad_input + s.image_offset(image) + first * s.channel_stride();
      A* planes;
      if constexpr (std::is_same_v<T, A>) planes = s.channels_last ? nullptr : to;
      else planes = nullptr;
      const bool in_place = planes != nullptr;
      if (in_place) std::fill(planes, planes + size, A(0));
      else scratch.assign(size_t(size), A(0)), planes = scratch.data();
      for (int64_t r = 0; r < s.rois; ++r) {
        if (rois[5 * r] != A(image)) continue;
        const int64_t from = s.bin_offset(r, 0) + first * s.out_channel_stride();
        add_region(s, grad + from, argmax + from, channels, planes);
      }
      if (s.channels_last) {
        transpose(planes, s.pixels(), channels, s.pixels(), to, s.channels);
      } else if (!in_place) {
        for (int64_t i = 0; i < size; i += kLanes<A>) {
          const int64_t count = min_of(kLanes<A>, size - i);
          store_strided(to + i, 1, load_strided(planes + i, 1, count), count);
        }
      }
    }
  });
}

#define INSTANTIATE(T)                                                                                  \
  template void roi_pool(const RoiPoolShape&, const T*, const Accum<T>*, T*, int32_t*, const CpuExec&); \
  template void roi_pool_backward(const RoiPoolShape&, const T*, const Accum<T>*, const int32_t*, T*, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
