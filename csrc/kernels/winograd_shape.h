// What winograd.h computes: which convolutions, in which tiles, by which transforms.
#pragma once

#include <vector>

#include "unit_stride.h"

namespace fastvision {
namespace {

// The transforms of rows (or columns) of a tile, vectors `step` apart.
struct WinogradTile {
  static constexpr int kResult = 2, kSource = 4, kParts = kSource * kSource;

  template <class V>
  static FV_HD void of_source(V* d, int step) {
    const V a = d[0] - d[2 * step], b = d[step] + d[2 * step], c = d[2 * step] - d[step], e = d[3 * step] - d[step];
    d[0] = a, d[step] = b, d[2 * step] = c, d[3 * step] = e;
  }
  template <class V>
  static FV_HD void of_weight(V a, V b, V c, V* to, int step) {
    const V half(0.5f), outer = (a + c) * half, middle = b * half;
    to[0] = a, to[step] = outer + middle, to[2 * step] = outer - middle, to[3 * step] = c;
  }
  template <class V>
  static FV_HD void of_result(V* d, int step) {
    const V even = d[0] + (d[step] + d[2 * step]), odd = (d[step] - d[2 * step]) + d[3 * step];
    d[0] = even, d[step] = odd;
  }
};

// Where tiles begin along an axis of the result; a tile's pixels are `dilation` apart.
inline std::vector<int64_t> tile_starts(int64_t size, int64_t dilation) {
  std::vector<int64_t> starts;
  for (int64_t phase = 0; phase < min_of(dilation, size); ++phase)
    for (int64_t i = phase; i < size; i += WinogradTile::kResult * dilation) starts.push_back(i);
  return starts;
}
inline int64_t count_tiles(int64_t size, int64_t dilation) {
  const int64_t step = WinogradTile::kResult * dilation, rest = size % step;
  return size / step * dilation + min_of(rest, dilation);
}

// Whether there are channels enough, and tiles that save products although some stick out of the map, and taps do.
inline bool winograd_applies(const UnitStrideShape& s) {
  const bool fits = s.kernel_y == 3 && s.kernel_x == 3;
  if (!fits || min_of(s.from.channels, s.to.channels) < 8) return false;
  const int64_t tiles = count_tiles(s.to.height, s.dilation_y) * count_tiles(s.to.width, s.dilation_x);
  return s.met() >= WinogradTile::kParts * tiles;
}

}  // namespace
}  // namespace fastvision
