// What winograd.h and winograd_product.h compute: which convolutions, in which tiles, by which transforms.
#pragma once

#include <vector>

#include "unit_stride.h"

namespace fastvision {
namespace {

// The transforms of rows (or columns) of a tile, vectors `step` apart.
template <int kResultSize>
struct WinogradTile;

template <>
struct WinogradTile<2> {  // all factors are powers of two
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
  template <class V>
  static FV_HD void of_gradient(V* d, int step) {  // the transposed of of_result
    const V a = d[0], b = d[step];
    d[step] = a + b, d[2 * step] = a - b, d[3 * step] = b;
  }
  template <class V>
  static FV_HD void to_weight(V* d, int step) {  // the transposed of of_weight
    const V half(0.5f), sum = (d[step] + d[2 * step]) * half, difference = (d[step] - d[2 * step]) * half;
    d[0] = d[0] + sum, d[step] = difference, d[2 * step] = d[3 * step] + sum;
  }
};

template <>
struct WinogradTile<4> {  // at 0, 1, -1, 2, -2 and infinity
  static constexpr int kResult = 4, kSource = 6, kParts = kSource * kSource;

  template <class V>
  static FV_HD void of_source(V* d, int step) {
    const V a = d[0], b = d[step], c = d[2 * step], e = d[3 * step], f = d[4 * step], g = d[5 * step];
    const V four(4.0f), less_four(-4.0f), less_five(-5.0f);
    const V near_even = multiply_add(less_four, c, f), near_odd = multiply_add(less_four, b, e);
    const V far_even = f - c, far_odd = (e - b) + (e - b);
    d[0] = multiply_add(less_five, c, multiply_add(four, a, f));
    d[step] = near_even + near_odd, d[2 * step] = near_even - near_odd;
    d[3 * step] = far_even + far_odd, d[4 * step] = far_even - far_odd;
    d[5 * step] = multiply_add(less_five, e, multiply_add(four, b, g));
  }
  template <class V>
  static FV_HD void of_weight(V a, V b, V c, V* to, int step) {
    const V sixth(-1.0f / 6), twelfth(1.0f / 12), near_odd = b * sixth, near_even = (a + c) * sixth;
    const V far_even = multiply_add(a, V(1.0f / 24), c * V(1.0f / 6)), far_odd = b * twelfth;
    to[0] = a * V(0.25f), to[step] = near_even + near_odd, to[2 * step] = near_even - near_odd;
    to[3 * step] = far_even + far_odd, to[4 * step] = far_even - far_odd, to[5 * step] = c;
  }
  template <class V>
  static FV_HD void of_result(V* d, int step) {
    const V near_even = d[step] + d[2 * step], near_odd = d[step] - d[2 * step];
    const V far_even = d[3 * step] + d[4 * step], far_odd = d[3 * step] - d[4 * step];
    d[0] = d[0] + (near_even + far_even);
    d[step] = multiply_add(V(2.0f), far_odd, near_odd);
    d[2 * step] = multiply_add(V(4.0f), far_even, near_even);
    d[3 * step] = multiply_add(V(8.0f), far_odd, near_odd) + d[5 * step];
  }
  template <class V>
  static FV_HD void of_gradient(V* d, int step) {
    const V a = d[0], b = d[step], c = d[2 * step], e = d[3 * step];
    const V near_even = a + c, near_odd = b + e;
    const V far_even = multiply_add(V(4.0f), c, a), far_odd = multiply_add(V(8.0f), e, b + b);
    d[step] = near_even + near_odd, d[2 * step] = near_even - near_odd;
    d[3 * step] = far_even + far_odd, d[4 * step] = far_even - far_odd, d[5 * step] = e;
  }
  template <class V>
  static FV_HD void to_weight(V* d, int step) {
    const V near = (d[step] + d[2 * step]) * V(-1.0f / 6), far = d[3 * step] + d[4 * step];
    const V near_odd = (d[2 * step] - d[step]) * V(1.0f / 6), far_odd = d[3 * step] - d[4 * step];
    const V last = d[5 * step];
    d[0] = multiply_add(V(0.25f), d[0], multiply_add(V(1.0f / 24), far, near));
    d[step] = multiply_add(V(1.0f / 12), far_odd, near_odd);
    d[2 * step] = multiply_add(V(1.0f / 6), far, near) + last;
  }
};

// Rounding errors of the larger tile are some 8 times those of direct summation, which only 16 bits hide.
template <class T>
using WinogradTileOf = WinogradTile<sizeof(T) == 2 ? 4 : 2>;

// Where tiles of `pixels` begin along an axis of the result; a tile's pixels are `dilation` apart.
inline std::vector<int64_t> tile_starts(int64_t size, int64_t pixels, int64_t dilation) {
  std::vector<int64_t> starts;
  for (int64_t phase = 0; phase < min_of(dilation, size); ++phase)
    for (int64_t i = phase; i < size; i += pixels * dilation) starts.push_back(i);
  return starts;
}
inline int64_t count_tiles(int64_t size, int64_t pixels, int64_t dilation) {
  const int64_t step = pixels * dilation, rest = size % step;
  return size / step * dilation + min_of(rest, dilation);
}

// The tiles of all images of a map, row by row.
struct WinogradPlaces {
  struct Place {
    int64_t image, y, x;  // of the tile's first pixel in the result
  };
  const std::vector<int64_t> rows, columns;  // where tiles begin
  const int64_t batch;

  WinogradPlaces(const UnitStrideShape& s, int64_t pixels)
      : rows(tile_starts(s.to.height, pixels, s.dilation_y)),
        columns(tile_starts(s.to.width, pixels, s.dilation_x)),
        batch(s.batch) {}

  int64_t count() const { return batch * int64_t(rows.size() * columns.size()); }
  Place operator()(int64_t tile) const {
    const int64_t across = int64_t(columns.size()), down = int64_t(rows.size());
    return {tile / across / down, rows[size_t(tile / across % down)], columns[size_t(tile % across)]};
  }
  // f(t, last) for the parts of [begin, end) that are in one row.
  template <class F>
  void each_row(int64_t begin, int64_t end, F&& f) const {
    const int64_t across = int64_t(columns.size());
    for (int64_t t = begin, last; t < end; t = last) f(t, last = min_of((t / across + 1) * across, end));
  }
};

// Whether there are images, channels enough, and tiles that save products although some stick out of the map, and taps
// do.
template <class T>
bool winograd_applies(const UnitStrideShape& s) {
  using Tile = WinogradTileOf<T>;
  const bool fits = s.batch > 0 && s.kernel_y == 3 && s.kernel_x == 3;
  if (!fits || min_of(s.from.channels, s.to.channels) < 8) return false;
  const int64_t rows = count_tiles(s.to.height, Tile::kResult, s.dilation_y);
  return s.met() >= Tile::kParts * rows * count_tiles(s.to.width, Tile::kResult, s.dilation_x);
}

}  // namespace
}  // namespace fastvision
