// The samples of a bin are separable: a bin is the sum over a few rows and columns of pixels, each pixel once, with the
// product of two weights. channels_last: vectors of channels, all pixels of a bin at a time. NCHW: vectors of a row's
// pixels, the rows of a bin first, then the columns; regions of a chunk share the planes. Regions are taken in the
// order of their places, so that neighbours meet the same pixels in the caches: for large maps memory traffic is the
// limit. Backward: a task owns tiles of pixels (roi_align_tiles.h), so every sum has a fixed order and every pixel is
// written once, or twice where regions are few: then all maps are cleared first.
#include "roi_align.h"

#include <algorithm>
#include <vector>

#include "pixel_sums.h"
#include "roi_align_tiles.h"
#include "roi_taps.h"
#include "simd_integers.h"

namespace fastvision {
namespace {

// All bins of a region. pixels: scratch, those of a bin.
template <class T>
void forward_channels_last(const RoiAlignShape& s, const T* map, int64_t width, const RoiTaps<Accum<T>>& taps,
                           std::vector<WeightedPixel<Accum<T>>>& pixels, bool past_caches, T* out) {
  for (int64_t ph = 0; ph < s.out_h; ++ph)
    for (int64_t pw = 0; pw < s.out_w; ++pw, out += s.channels) {
      pixels.clear();
      for (auto y = taps.y.begin_of(ph); y != taps.y.end_of(ph); ++y)
        for (auto x = taps.x.begin_of(pw); x != taps.x.end_of(pw); ++x)
          pixels.push_back({(y->at * width + x->at) * s.channels, y->weight * x->weight});
      sum_pixels(map, pixels.data(), pixels.data() + pixels.size(), s.channels, past_caches, out);
    }
}

// Columns [x, x + lanes) of the sum of weight * plane[y] over the rows of a bin. A whole vector is loaded where it ends
// before `end`; what it reads behind the region is not used.
template <class T>
FV_HD Vec<Accum<T>> add_rows(const T* plane, const T* end, int64_t width,
                             const typename AxisTaps<Accum<T>>::Pixel* first,
                             const typename AxisTaps<Accum<T>>::Pixel* last, int64_t x, int64_t high) {
  using A = Accum<T>;
  Vec<A> sum(A(0));
  for (auto y = first; y != last; ++y) {
    const T* p = plane + y->at * width + x;
    const Vec<A> v = p + kLanes<A> <= end ? load_vector(p) : load_vector(p, min_of(kLanes<A>, high + 1 - x));
    sum = multiply_add(Vec<A>(y->weight), v, sum);
  }
  return sum;
}

template <class T>
void forward_plane(const RoiAlignShape& s, const T* plane, const T* end, int64_t width, const RoiTaps<Accum<T>>& taps,
                   std::vector<Accum<T>>& row, T* out) {
  using A = Accum<T>;
  const int64_t low = taps.x.low, high = taps.x.high;
  row.resize(size_t(max_of<int64_t>(high - low + 1, 0) + kLanes<A>));
  for (int64_t ph = 0; ph < s.out_h; ++ph, out += s.out_w) {
    const auto rows = taps.y.begin_of(ph), rows_end = taps.y.end_of(ph);
    for (int64_t x = low; x <= high; x += kLanes<A>)
      add_rows(plane, end, width, rows, rows_end, x, high).store(row.data() + (x - low));
    for (int64_t pw = 0; pw < s.out_w; ++pw) {
      A sum(0);
      for (auto x = taps.x.begin_of(pw); x != taps.x.end_of(pw); ++x)
        sum = multiply_add(x->weight, row[size_t(x->at - low)], sum);
      out[pw] = from_accum<T>(sum);
    }
  }
}

template <class T>
constexpr int64_t kLine = 64 / sizeof(T);

// The same for kPlanes planes of a region with at most kVectors vectors of columns and as many pixels in every bin. The
// same pixels of the next planes are fetched meanwhile, to the second cache: other regions come first. `kWhole`:
// vectors may be read whole.
template <int kPlanes, int kVectors, bool kWhole, class T>
void forward_planes(const RoiAlignShape& s, const T* planes, int64_t stride, int64_t width,
                    const RoiTaps<Accum<T>>& taps, T* out) {
  using A = Accum<T>;
  const int64_t across = taps.x.high - taps.x.low + 1;
  const T* const corner = planes + taps.y.low * width + taps.x.low;
  for (int64_t ph = 0; ph < s.out_h; ++ph, out += s.out_w) {
    Vec<A> sums[kPlanes][kVectors];
    for (auto& plane : sums)
      for (auto& sum : plane) sum = Vec<A>(A(0));
    for (int64_t k = 0; k < taps.y.most; ++k) {
      const T* row = corner + taps.y.at[size_t(k * taps.y.padded + ph)] * width;
      const Vec<A> weight(taps.y.weights[size_t(k * taps.y.padded + ph)]);
      for (auto& plane : sums) {
        for (int64_t x = 0; x + kLine<T> < kVectors * kLanes<A>; x += kLine<T>)
          __builtin_prefetch(row + kPlanes * stride + x, 0, 2);
        __builtin_prefetch(row + kPlanes * stride + across - 1, 0, 2);
        for (int v = 0; v < kVectors; ++v) {
          const T* const p = row + v * kLanes<A>;
          const int64_t left = max_of(across - v * kLanes<A>, int64_t(0));
          plane[v] = multiply_add(weight, kWhole ? load_vector(p) : load_vector(p, min_of(kLanes<A>, left)), plane[v]);
        }
        row += stride;
      }
    }
    Table<A, kVectors> columns[kPlanes];
    for (int i = 0; i < kPlanes; ++i) columns[i] = Table<A, kVectors>(sums[i]);
    for (int64_t pw = 0; pw < s.out_w; pw += kLanes<A>) {
      Vec<A> bins[kPlanes];
      for (auto& bin : bins) bin = Vec<A>(A(0));
      for (int64_t k = 0; k < taps.x.most; ++k) {
        const auto weight = Vec<A>::load(&taps.x.weights[size_t(k * taps.x.padded + pw)]);
        for (int i = 0; i < kPlanes; ++i)
          bins[i] = multiply_add(weight, columns[i].at(&taps.x.at[size_t(k * taps.x.padded + pw)]), bins[i]);
      }
      for (int i = 0; i < kPlanes; ++i) store_vector(out + i * s.bins() + pw, bins[i], min_of(kLanes<A>, s.out_w - pw));
    }
  }
}

constexpr int kPlanesAtOnce = 4;
constexpr int64_t kMostVectors = 4;

// `count` planes of a region. `end` is the end of memory that may be read.
template <class T>
void forward_region(const RoiAlignShape& s, const T* planes, int64_t count, const T* end, int64_t stride, int64_t width,
                    const RoiTaps<Accum<T>>& taps, std::vector<Accum<T>>& row, T* out) {
  using A = Accum<T>;
  const int64_t vectors = ceil_div(taps.x.high - taps.x.low + 1, kLanes<A>);
  const bool narrow = taps.x.most > 0 && taps.y.most > 0 && vectors <= kMostVectors;
  const int64_t last = (kPlanesAtOnce - 1) * stride + taps.y.high * width + taps.x.low;
  if (narrow && count == kPlanesAtOnce && last + vectors * kLanes<A> <= end - planes)
    return with_constant(vectors, [&](auto v) {
      const T* const next = out + kPlanesAtOnce * s.bins();
      for (int64_t i = 0; i < kPlanesAtOnce * s.bins(); i += kLine<T>) __builtin_prefetch(next + i, 1, 2);
      forward_planes<kPlanesAtOnce, v(), true>(s, planes, stride, width, taps, out);
    });
  for (int64_t i = 0; i < count; ++i, planes += stride, out += s.bins()) {
    if (narrow)
      with_constant(vectors, [&](auto v) { forward_planes<1, v(), false>(s, planes, stride, width, taps, out); });
    else forward_plane(s, planes, end, width, taps, row, out);
  }
}

}  // namespace

template <class T, class Isa>
void roi_align(const RoiAlignShape& s, const LevelPointers<const T>& maps, const Accum<T>* rois,
               const int64_t* level_of, T* out, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t per_roi = s.channels * s.bins();
  const std::vector<Placed<A>> placed = in_order_of_place(s, rois, level_of);
  const bool past_caches = s.rois * per_roi * int64_t(sizeof(T)) >= kStreamedBytes;
  // Enough chunks for the threads, enough regions in each to share a plane.
  const int64_t chunk = max_of(int64_t(1), min_of(int64_t(64), s.rois / (4 * exec.threads)));
  exec(ceil_div(s.rois, chunk), 1 + 16384 / (chunk * per_roi + 1), [&](int64_t begin, int64_t end) {
    std::vector<RoiTaps<A>> taps(static_cast<size_t>(chunk));
    std::vector<WeightedPixel<A>> pixels;
    std::vector<A> row;
    for (int64_t k = begin; k < end; ++k) {
      const int64_t first = k * chunk, count = min_of(chunk, s.rois - first);
      for (int64_t i = 0; i < count; ++i) {
        const Placed<A>& p = placed[size_t(first + i)];
        T* to = out + p.index * per_roi;
        if (p.roi.is_zero()) {
          memset(to, 0, size_t(per_roi) * sizeof(T));
          continue;
        }
        RoiTaps<A>& of_roi = taps[s.channels_last ? 0 : size_t(i)];
        of_roi.set(p.roi, !s.channels_last);
        if (!s.channels_last) continue;
        const int l = p.roi.level;
        forward_channels_last(s, maps.at[l] + s.map_offset(l, p.roi.image), s.level[l].width, of_roi, pixels,
                              past_caches, to);
      }
      for (int64_t c = 0; c < s.channels && !s.channels_last; c += kPlanesAtOnce)
        for (int64_t i = 0; i < count; ++i) {
          const Placed<A>& p = placed[size_t(first + i)];
          if (p.roi.is_zero()) continue;
          const int l = p.roi.level;
          const int64_t stride = s.map_channel_stride(l);
          forward_region(s, maps.at[l] + s.map_offset(l, p.roi.image) + c * stride,
                         min_of(int64_t(kPlanesAtOnce), s.channels - c), maps.at[l] + s.map_offset(l, s.batch), stride,
                         s.level[l].width, taps[size_t(i)], row, out + p.index * per_roi + c * s.bins());
        }
    }
    finish_streaming();
  });
}

template <class T, class Isa>
void roi_align_backward(const RoiAlignShape& s, const T* grad, const Accum<T>* rois, const int64_t* level_of,
                        const LevelPointers<T>& grad_maps, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const std::vector<Placed<A>> placed = in_order_of_place(s, rois, level_of);
  const ChannelsLast<T> by_bin(grad, s.rois, s.channels, s.bins(), !s.channels_last, exec);
  const RoiAlignTiles tiles(s, kTile);
  const int64_t total = tiles.before[s.levels], tasks = min_of(total, 8 * exec.threads);
  const bool past_caches = bytes_of_maps<T>(s) >= kStreamedBytes, cleared = leaves_most_alone(placed, total);
  if (cleared) clear_maps(s, grad_maps, exec);
  // Task t takes tiles t, t + tasks, ...: crowded tiles lie beside each other.
  exec(tasks, 1, [&](int64_t begin, int64_t end) {
    TileTaps<A> taps;
    std::vector<A> packed;
    std::vector<Vec<A>> sums(size_t(kTile * kTile), Vec<A>(A(0)));
    for (int64_t task = begin; task < end; ++task)
      for (int64_t index = task; index < total; index += tasks) {
        const auto tile = tiles.at(s, index);
        taps.set(s, tile, placed);
        T* const map = grad_maps.at[tile.level] + s.map_offset(tile.level, tile.image);
        const int64_t bins = int64_t(taps.bins.size());
        if (bins == 0) {
          if (!cleared) clear_tile(s, tile, past_caches, map);
          continue;
        }
        const int64_t at_once = max_of(kPacked / (bins * kLanes<A>), int64_t(1)) * kLanes<A>;
        for (int64_t first = 0; first < s.channels; first += at_once) {
          const int64_t channels = min_of(at_once, s.channels - first);
          packed.resize(max_of(packed.size(), size_t(ceil_div(channels, kLanes<A>) * kLanes<A> * bins)));
          pack_gradients(s, taps, by_bin.at, first, channels, packed.data());
          for (int64_t c = 0; c < channels; c += kLanes<A>) {
            add_to_tile(taps, packed.data() + c * bins, sums.data());
            store_tile(s, tile, first + c, min_of(kLanes<A>, channels - c), past_caches, sums.data(), map);
          }
        }
      }
    finish_streaming();
  });
}

#define INSTANTIATE(T)                                                                                              \
  template void roi_align(const RoiAlignShape&, const LevelPointers<const T>&, const Accum<T>*, const int64_t*, T*, \
                          const CpuExec&);                                                                          \
  template void roi_align_backward(const RoiAlignShape&, const T*, const Accum<T>*, const int64_t*,                 \
                                   const LevelPointers<T>&, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
