// A tile of the gradient of RoIAlign: what regions add to it is laid out in the order of use, then vectors of channels
// are added up and stored.
#pragma once

#include <algorithm>
#include <vector>

#include "roi_align.h"
#include "roi_taps.h"
#include "simd.h"

namespace fastvision {
namespace {

constexpr int64_t kTile = 16;  // pixels per side: with a vector of channels for each, the sums fit the first cache
constexpr int64_t kPacked = 1 << 17;  // gradients that are laid out for a tile at a time

// What the regions add to one tile: bins, and for each the pixels of the tile that it reads.
template <class A>
struct TileTaps {
  struct Bin {
    int64_t number;  // among those of all regions
    size_t end;      // of its pixels
  };
  std::vector<Bin> bins;
  std::vector<typename AxisPixels<A>::Pixel> pixels;
  AxisPixels<A> y_pixels, x_pixels;

  void set(const RoiAlignShape& s, const RoiAlignTiles::Tile& tile, const std::vector<Placed<A>>& placed) {
    bins.clear();
    pixels.clear();
    for (const auto& [roi, index] : placed) {
      if (roi.is_zero() || roi.image != tile.image || roi.level != tile.level) continue;
      if (!touches(roi.y, tile.y, kTile) || !touches(roi.x, tile.x, kTile)) continue;
      y_pixels.set(SampledBins<A>{roi.y}, s.out_h, share_of_sample(roi.y));
      x_pixels.set(SampledBins<A>{roi.x}, s.out_w, share_of_sample(roi.x));
      for (int64_t ph = 0; ph < s.out_h; ++ph) {
        const Inside rows(y_pixels, ph, tile.y);
        for (int64_t pw = 0; rows.begin < rows.end && pw < s.out_w; ++pw) {
          const Inside columns(x_pixels, pw, tile.x);
          for (auto y = rows.begin; y < rows.end; ++y)
            for (auto x = columns.begin; x < columns.end; ++x)
              pixels.push_back({(y->at - tile.y) * kTile + x->at - tile.x, y->weight * x->weight});
          if (columns.begin < columns.end) bins.push_back({index * s.bins() + ph * s.out_w + pw, pixels.size()});
        }
      }
    }
  }

 private:
  // The pixels of a bin that are among the kTile from `first` on.
  struct Inside {
    const typename AxisPixels<A>::Pixel *begin, *end;
    Inside(const AxisPixels<A>& axis, int64_t bin, int64_t first) : begin(axis.begin_of(bin)), end(axis.end_of(bin)) {
      while (begin < end && begin->at < first) ++begin;
      while (begin < end && end[-1].at >= first + kTile) --end;
    }
  };
};

// Channels [first, first + count) of all gradients that reach a tile: (vector of channels, bin, channel).
template <class T>
void pack_gradients(const RoiAlignShape& s, const TileTaps<Accum<T>>& taps, const T* grad, int64_t first, int64_t count,
                    Accum<T>* to) {
  using A = Accum<T>;
  constexpr int64_t kBinsAhead = 4;
  const int64_t part = int64_t(taps.bins.size());
  const auto at = [&](int64_t bin) { return grad + taps.bins[size_t(bin)].number * s.channels + first; };
  for (int64_t bin = 0; bin < part; ++bin, to += kLanes<A>) {
    const T *const from = at(bin), *const next = at(min_of(bin + kBinsAhead, part - 1));
    for (int64_t c = 0; c < count; c += kLanes<A>) {
      __builtin_prefetch(next + c, 0, 2);
      load_vector(from + c, min_of(kLanes<A>, count - c)).store(to + c * part);
    }
  }
}

// Adds up a vector of channels.
template <class A>
void add_to_tile(const TileTaps<A>& taps, const A* gradients, Vec<A>* sums) {
  const auto* pixel = taps.pixels.data();
  for (const auto& bin : taps.bins) {
    const Vec<A> g = Vec<A>::load(gradients);
    gradients += kLanes<A>;
    for (const auto* const end = taps.pixels.data() + bin.end; pixel != end; ++pixel) {
      Vec<A>& sum = sums[pixel->at];
      sum = multiply_add(Vec<A>(pixel->weight), g, sum);
    }
  }
}

// A row of a tile, past the caches: a line is a pixel's channels, or a plane's pixels.
template <class T>
void store_lines(const RoiAlignShape& s, int64_t columns, int64_t count, int64_t stride, const Vec<Accum<T>>* sums,
                 T* to) {
  using A = Accum<T>;
  if (s.channels_last) {
    for (int64_t x = 0; x < columns; ++x) stream_line(to + x * s.channels, sums[x]);
  } else {
    T turned[kTile * kLanes<A>];
    transpose(reinterpret_cast<const A*>(sums), kLanes<A>, kTile, count, turned, kTile);
    for (int64_t k = 0; k < count; ++k) stream_line(to + k * stride, load_vector(turned + k * kTile));
  }
}

// Channels [c, c + count) of the pixels of a tile. The sums are zero afterwards. `past_caches`: whole lines are.
template <class T>
void store_tile(const RoiAlignShape& s, const RoiAlignTiles::Tile& tile, int64_t c, int64_t count, bool past_caches,
                Vec<Accum<T>>* sums, T* map) {
  using A = Accum<T>;
  const int64_t rows = min_of(kTile, s.level[tile.level].height - tile.y);
  const int64_t columns = min_of(kTile, s.level[tile.level].width - tile.x);
  const int64_t stride = s.map_channel_stride(tile.level);
  const bool lines =
      past_caches && (s.channels_last ? s.channels % kLanes<A> == 0
                                      : stride % kLanes<A> == 0 && columns == kTile && kTile == kLanes<A>);
  for (int64_t y = 0; y < rows; ++y, sums += kTile) {
    T* const to = map + s.pixel_offset(tile.level, tile.y + y, tile.x) + c * stride;
    if (lines && starts_line(to)) {
      store_lines(s, columns, count, stride, sums, to);
    } else {
      store_pixels(sums, columns, count, s.pixel_offset(tile.level, 0, 1), stride, to);
    }
    std::fill_n(sums, kTile, Vec<A>(A(0)));
  }
}

// Zeros to all channels of a tile that no region touches.
template <class T>
void clear_tile(const RoiAlignShape& s, const RoiAlignTiles::Tile& tile, bool past_caches, T* map) {
  using A = Accum<T>;
  const int64_t rows = min_of(kTile, s.level[tile.level].height - tile.y);
  const int64_t columns = min_of(kTile, s.level[tile.level].width - tile.x);
  const int64_t planes = s.channels_last ? 1 : s.channels, row = columns * (s.channels_last ? s.channels : 1);
  for (int64_t plane = 0; plane < planes; ++plane)
    for (int64_t y = 0; y < rows; ++y) {
      T* const to = map + s.pixel_offset(tile.level, tile.y + y, tile.x) + plane * s.map_channel_stride(tile.level);
      if (past_caches && row % kLanes<A> == 0 && starts_line(to))
        for (int64_t i = 0; i < row; i += kLanes<A>) stream_line(to + i, Vec<A>(A(0)));
      else memset(to, 0, size_t(row) * sizeof(T));
    }
}

// Whether regions touch so few of the tiles that the maps are cleared first, from front to back.
template <class A>
bool leaves_most_alone(const std::vector<Placed<A>>& placed, int64_t tiles) {
  double touched = 0;
  const auto tiles_along = [](const SampleAxis<A>& axis) {
    return min_of(double(axis.bin) * double(axis.bins), double(axis.size)) / kTile + 2;
  };
  for (const auto& [roi, index] : placed)
    if (!roi.is_zero()) touched += tiles_along(roi.y) * tiles_along(roi.x);
  return 2 * touched < double(tiles);
}
template <class T, class Isa>
void clear_maps(const RoiAlignShape& s, const LevelPointers<T>& maps, const Cpu<Isa>& exec) {
  constexpr int64_t kValues = 1 << 16;  // of a task
  for (int l = 0; l < s.levels; ++l) {
    const int64_t values = s.map_offset(l, s.batch);
    exec(ceil_div(values, kValues), 4, [&](int64_t begin, int64_t end) {
      memset(maps.at[l] + begin * kValues, 0, size_t(min_of(end * kValues, values) - begin * kValues) * sizeof(T));
    });
  }
}

// Of the gradients of all maps.
template <class T>
int64_t bytes_of_maps(const RoiAlignShape& s) {
  int64_t pixels = 0;
  for (int l = 0; l < s.levels; ++l) pixels += s.batch * s.level[l].height * s.level[l].width;
  return pixels * s.channels * int64_t(sizeof(T));
}

}  // namespace
}  // namespace fastvision
