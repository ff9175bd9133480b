// What winograd.h computes: which convolutions, in which tiles, by which transforms.
#pragma once

#include <vector>

#include "convolution.h"

namespace fastvision {
namespace {

struct WinogradShape {
  int64_t batch;
  MapLayout from, to;
  int64_t padding_y, padding_x, dilation_y, dilation_x;
  int64_t weight_by_result, weight_by_source;  // strides of the weights by channel
  bool flipped;                                // whether the taps are in the opposite order
  bool channels_last;
};

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

// Whether there are channels enough, and tiles that save products although some stick out of the map.
inline bool winograd_applies(const ConvolutionShape& s, int64_t result_h, int64_t result_w) {
  const bool fits = s.groups == 1 && s.kernel_y == 3 && s.kernel_x == 3 && s.stride_y == 1 && s.stride_x == 1;
  if (!fits || min_of(s.small_channels, s.large_channels) < 8) return false;
  const int64_t tiles = count_tiles(result_h, s.dilation_y) * count_tiles(result_w, s.dilation_x);
  return 9 * result_h * result_w >= WinogradTile::kParts * tiles;
}
inline WinogradShape winograd_gather(const ConvolutionShape& s) {
  WinogradShape w{s.batch, large_layout(s), small_layout(s), s.padding_y, s.padding_x, s.dilation_y, s.dilation_x};
  w.weight_by_result = 9 * s.large_channels, w.weight_by_source = 9;
  w.flipped = false, w.channels_last = s.channels_last;
  return w;
}
inline WinogradShape winograd_scatter(const ConvolutionShape& s) {
  WinogradShape w{s.batch, small_layout(s), large_layout(s), 0, 0, s.dilation_y, s.dilation_x};
  w.padding_y = 2 * s.dilation_y - s.padding_y, w.padding_x = 2 * s.dilation_x - s.padding_x;
  w.weight_by_result = 9, w.weight_by_source = 9 * s.large_channels;
  w.flipped = true, w.channels_last = s.channels_last;
  return w;
}

}  // namespace
}  // namespace fastvision
