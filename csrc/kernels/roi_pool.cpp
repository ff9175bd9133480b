// Forward: the parts of the maps that regions read are packed once as (pixels, a few vectors of channels), small enough
// for the second cache and the same for both layouts (roi_pool_maps.h, roi_pool_packed.h). Few or small regions are
// packed one by one; one to three planes are read where they lie (roi_pool_planes.h). Bound by the bytes of output and,
// where a gradient is needed, argmax. Backward: a task owns channels of an image and goes through the regions in order,
// so sums have a fixed order. Bound by the additions, each to another place of its plane.
#include "roi_pool.h"

#include <algorithm>
#include <vector>

#include "roi_pool_maps.h"
#include "roi_pool_packed.h"
#include "roi_pool_planes.h"

namespace fastvision {
namespace {

constexpr int64_t kResults = 1 << 17;  // of a group of regions

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
  const int64_t alone = values_of_regions(s, regions);
  const bool few = alone < maps.size(), in_place = !s.channels_last && s.channels <= (few ? 3 : 1);
  // One region to an image is packed with the map, which threads share.
  if (few || in_place)
    return exec(s.rois, 1 + 8192 / (alone / s.rois + per_roi + 1), [&](int64_t begin, int64_t end) {
      std::vector<A> scratch;
      ColumnMaxima<A> of_columns;
      for (int64_t r = begin; r < end; ++r) {
        const T* const image = input + s.image_offset(max_of(regions.image[size_t(r)], int64_t(0)));
        T* const to = out + r * per_roi;
        int32_t* const at = argmax ? argmax + r * per_roi : nullptr;
        if (in_place) pool_planes(s, regions, r, image, of_columns, to, at);
        else pool_alone(s, regions, r, image, scratch, to, at);
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
          int32_t* const at = argmax ? argmax + r * per_roi : nullptr;
          if (image < 0) {
            memset(to, 0, size_t(per_roi) * sizeof(T));
            if (at) memset(at, 255, size_t(per_roi) * sizeof(int32_t));
            continue;
          }
          const auto pool = region_pool<T>(maps.nan[size_t(image * maps.chunks + chunk)], at != nullptr);
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
