// CPU: the tiles of a map, transformed to [part][tile][channel] (see winograd.h). Each tile is read alike wherever a
// piece of work begins.
#pragma once

#include <type_traits>
#include <vector>

#include "huge_array.h"
#include "product.h"
#include "winograd_shape.h"

namespace fastvision {
namespace {

struct TileParts {  // [part][tile][channel]
  float* at;
  int64_t stride, part;  // numbers from one tile or part to the next

  TileParts from_tile(int64_t t) const { return {at + t * stride, stride, part}; }
};

// Memory for the parts of some tiles.
struct TileMemory {
  const int64_t stride, part;
  const HugeArray<float> numbers;

  TileMemory(int parts, int64_t tiles, int64_t channels)
      : stride(ceil_div(channels, kLanes<float>) * kLanes<float>),
        part(tiles * stride + kLanes<float>),  // apart: strides that are powers of two would meet in the cache
        numbers(size_t(parts * part), false) {}
  TileParts all() const { return {numbers.get(), stride, part}; }
};

// kSide: kSource for tiles of the source, kResult for those of a gradient by the result.
template <class T, int kSide>
class WinogradReader {
  using V = Vec<float>;
  using Tile = WinogradTileOf<T>;
  static constexpr int64_t kLanes = V::kLanes;
  static constexpr int kSource = Tile::kSource, kParts = Tile::kParts;

 public:
  WinogradReader(const UnitStrideShape& shape, const T* map)
      : s(shape),
        map(map),
        layout(kIsSource ? s.from : s.to),
        padding_y(kIsSource ? s.padding_y : 0),
        padding_x(kIsSource ? s.padding_x : 0),
        places(s, Tile::kResult) {}

  int64_t count() const { return places.count(); }

  // Tiles [begin, end). pixels: memory that later calls use again.
  void operator()(int64_t begin, int64_t end, TileParts to, std::vector<float>& pixels) const {
    if (s.channels_last) return transform_pixels(begin, end, to);
    places.each_row(begin, end,
                    [&](int64_t t, int64_t last) { transform_planes(t, last, to.from_tile(t - begin), pixels); });
  }

 private:
  static constexpr bool kIsSource = kSide == kSource;
  using Place = WinogradPlaces::Place;

  static FV_HD void transform_axis(V* d, int step) {
    if constexpr (kIsSource) Tile::of_source(d, step);
    else Tile::of_gradient(d, step);
  }
  // kLanes channels of the tile's pixels: pixel(row of the tile, y, x) is where they are.
  template <class Pixel>
  FV_HD void transform(const Place& p, int64_t lanes, const Pixel& pixel, float* to, int64_t part) const {
    V d[kParts];
    for (int j = 0; j < kSide; ++j) {
      for (int i = 0; i < kSide; ++i) {
        const int64_t y = p.y - padding_y + i * s.dilation_y, x = p.x - padding_x + j * s.dilation_x;
        const bool inside = y >= 0 && y < layout.height && x >= 0 && x < layout.width;
        d[kSource * i + j] = !inside           ? V(0.0f)
                             : lanes == kLanes ? load_vector(pixel(i, y, x))
                                               : load_vector(pixel(i, y, x), lanes);
      }
      transform_axis(d + j, kSource);
    }
    for (int i = 0; i < kSource; ++i) {
      transform_axis(d + kSource * i, 1);
      for (int j = 0; j < kSource; ++j) store_vector(to + (kSource * i + j) * part, d[kSource * i + j]);
    }
  }
  void transform_pixels(int64_t begin, int64_t end, TileParts to) const {
    for (int64_t t = begin; t < end; ++t) {
      const Place p = places(t);
      const T* const image = map + p.image * layout.image;
      for (int64_t c = 0; c < layout.channels; c += kLanes)
        transform(
            p, min_of(kLanes, layout.channels - c),
            [&](int64_t, int64_t y, int64_t x) { return image + y * layout.row + x * layout.column + c; },
            to.at + (t - begin) * to.stride + c, to.part);
    }
  }
  // NCHW: pixels of some channels side by side, of the rows that tiles [begin, end), all of one row, need.
  void transform_planes(int64_t begin, int64_t end, TileParts to, std::vector<float>& pixels) const {
    const Place first = places(begin);
    int64_t left = first.x, right = first.x;
    for (int64_t t = begin; t < end; ++t) left = min_of(left, places(t).x), right = max_of(right, places(t).x);
    left = max_of(left - padding_x, int64_t(0));
    right = min_of(right - padding_x + (kSide - 1) * s.dilation_x + 1, layout.width);
    const int64_t count = max_of(right - left, int64_t(0));
    if (int64_t(pixels.size()) < kSide * count * kLanes) pixels.resize(kSide * count * kLanes);
    for (int64_t c = 0; c < layout.channels; c += kLanes) {
      const int64_t lanes = min_of(kLanes, layout.channels - c);
      const T* const planes = map + first.image * layout.image + c * layout.channel + left;
      for (int i = 0; i < kSide; ++i) {
        const int64_t y = first.y - padding_y + i * s.dilation_y;
        if (y < 0 || y >= layout.height) continue;
        transpose(planes + y * layout.row, layout.channel, lanes, count, pixels.data() + i * count * kLanes, kLanes);
      }
      for (int64_t t = begin; t < end; ++t)
        transform(
            places(t), kLanes,
            [&](int64_t i, int64_t, int64_t x) { return pixels.data() + (i * count + x - left) * kLanes; },
            to.at + (t - begin) * to.stride + c, to.part);
    }
  }

  const UnitStrideShape s;
  const T* const map;
  const MapLayout layout;
  const int64_t padding_y, padding_x;
  const WinogradPlaces places;
};

}  // namespace
}  // namespace fastvision
