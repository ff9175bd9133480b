// CPU: the result of Winograd's algorithm in tiles (see winograd.h). Each tile is written alike wherever a piece of
// work begins.
#pragma once

#include <algorithm>
#include <vector>

#include "product.h"
#include "winograd_read.h"

namespace fastvision {
namespace {

template <class T>
class WinogradResult {
  using V = Vec<float>;
  using Tile = WinogradTileOf<T>;
  static constexpr int64_t kLanes = V::kLanes, kColumns = kPanel<float>;
  static constexpr int kResult = Tile::kResult, kSource = Tile::kSource, kParts = Tile::kParts;

 public:
  struct Channels {
    int64_t begin, end;
  };

  WinogradResult(const UnitStrideShape& shape, const T* source, const T* bias, T* result)
      : s(shape), source(source), bias(bias), result(result), places(s, kResult) {}

  // Channels of tiles [begin, end) of the result; which of these tiles are not finite. from: the first of the channels.
  void write(int64_t begin, int64_t end, const Channels& channels, TileParts from, char* bad,
             std::vector<float>& pixels) const {
    if (s.channels_last) return write_pixels(begin, end, channels, from, bad);
    places.each_row(begin, end, [&](int64_t t, int64_t last) {
      write_planes(t, last, channels, from.from_tile(t - begin), bad + t - begin, pixels);
    });
  }
  // taps: WinogradWeights::direct().
  void sum_directly(int64_t tile, const float* taps) const {
    const auto p = places(tile);
    const int64_t depth = s.from.channels, width = s.to.channels, panels = ceil_div(width, kColumns);
    std::vector<float> sums(size_t(panels * kColumns)), pixel(size_t(depth) + 1);
    for (int64_t y = p.y; y < min_of(p.y + kResult * s.dilation_y, s.to.height); y += s.dilation_y)
      for (int64_t x = p.x; x < min_of(p.x + kResult * s.dilation_x, s.to.width); x += s.dilation_x) {
        for (int64_t o = 0; o < width; ++o) sums[size_t(o)] = bias ? to_accum(bias[o]) : 0.0f;
        for (int64_t k = 0; k < 9; ++k) {
          const int64_t from_y = y - s.padding_y + k / 3 * s.dilation_y,
                        from_x = x - s.padding_x + k % 3 * s.dilation_x;
          if (from_y < 0 || from_y >= s.from.height || from_x < 0 || from_x >= s.from.width) continue;
          const T* from = source + p.image * s.from.image + from_y * s.from.row + from_x * s.from.column;
          for (int64_t c = 0; c < depth; ++c) pixel[size_t(c)] = to_accum(from[c * s.from.channel]);
          for (int64_t i = 0; i < panels; ++i)
            add_product<float>(1, min_of(kColumns, width - i * kColumns), depth, {pixel.data(), 0, 1},
                               taps + (k * panels + i) * depth * kColumns, kColumns, sums.data() + i * kColumns, 0);
        }
        T* const to = result + p.image * s.to.image + y * s.to.row + x * s.to.column;
        for (int64_t o = 0; o < width; ++o) to[o * s.to.channel] = from_accum<T>(sums[size_t(o)]);
      }
  }

 private:
  // kLanes channels of the tile's results from channel o, as d[kSource * row + column]; whether all are finite.
  FV_HD bool transform_result(const float* from, int64_t part, int64_t o, int64_t lanes, V (&d)[kParts]) const {
    for (int j = 0; j < kSource; ++j) {
      for (int i = 0; i < kSource; ++i) d[kSource * i + j] = load_vector(from + (kSource * i + j) * part);
      Tile::of_result(d + j, kSource);
    }
    for (int i = 0; i < kResult; ++i) Tile::of_result(d + kSource * i, 1);
    const V b = !bias ? V(0.0f) : lanes == kLanes ? load_vector(bias + o) : load_vector(bias + o, lanes);
    V differences(0.0f);
    for (int i = 0; i < kResult; ++i)
      for (int j = 0; j < kResult; ++j) {
        V& y = d[kSource * i + j];
        y = y + b;
        differences = differences + (y - y);
      }
    return !any(!(differences == V(0.0f)));
  }
  void write_pixels(int64_t begin, int64_t end, const Channels& channels, TileParts from, char* bad) const {
    for (int64_t t = begin; t < end; ++t) {
      const auto p = places(t);
      bool finite = true;
      for (int64_t o = channels.begin; o < channels.end; o += kLanes) {
        const int64_t lanes = min_of(kLanes, channels.end - o);
        V d[kParts];
        const float* const parts = from.at + (t - begin) * from.stride + o - channels.begin;
        finite &= transform_result(parts, from.part, o, lanes, d);
        for (int i = 0; i < kResult; ++i)
          for (int j = 0; j < kResult; ++j) {
            const int64_t y = p.y + i * s.dilation_y, x = p.x + j * s.dilation_x;
            if (y >= s.to.height || x >= s.to.width) continue;
            T* to = result + p.image * s.to.image + y * s.to.row + x * s.to.column + o;
            if (lanes == kLanes) store_vector(to, d[kSource * i + j]);
            else store_vector(to, d[kSource * i + j], lanes);
          }
      }
      bad[t - begin] = !finite;
    }
  }
  // NCHW: tiles [begin, end) are all of one row.
  void write_planes(int64_t begin, int64_t end, const Channels& channels, TileParts from, char* bad,
                    std::vector<float>& of_pixels) const {
    const auto first = places(begin);
    const int64_t row = (end - begin) * kResult * kLanes;  // pixels of some channels side by side, by row
    if (int64_t(of_pixels.size()) < kResult * row) of_pixels.resize(kResult * row);
    float* const pixels = of_pixels.data();
    std::fill(bad, bad + (end - begin), 0);
    for (int64_t o = channels.begin; o < channels.end; o += kLanes) {
      const int64_t lanes = min_of(kLanes, channels.end - o);
      for (int64_t t = begin; t < end; ++t) {
        V d[kParts];
        const float* const parts = from.at + (t - begin) * from.stride + o - channels.begin;
        bad[t - begin] |= !transform_result(parts, from.part, o, lanes, d);
        for (int i = 0; i < kResult; ++i)
          for (int j = 0; j < kResult; ++j)
            store_vector(pixels + i * row + ((t - begin) * kResult + j) * kLanes, d[kSource * i + j]);
      }
      for (int i = 0; i < kResult; ++i) {
        const int64_t y = first.y + i * s.dilation_y;
        if (y >= s.to.height) continue;
        T* const to = result + first.image * s.to.image + o * s.to.channel + y * s.to.row;
        if (s.dilation_x == 1) {
          const int64_t count = min_of((end - begin) * kResult, s.to.width - first.x);
          transpose(pixels + i * row, kLanes, count, lanes, to + first.x, s.to.channel);
          continue;
        }
        for (int64_t l = 0; l < lanes; ++l)
          for (int64_t t = begin; t < end; ++t)
            for (int j = 0; j < kResult; ++j) {
              const int64_t x = places(t).x + j * s.dilation_x;
              if (x < s.to.width)
                to[l * s.to.channel + x] = from_accum<T>(pixels[i * row + ((t - begin) * kResult + j) * kLanes + l]);
            }
      }
    }
  }

  const UnitStrideShape s;
  const T *const source, *const bias;
  T* const result;
  const WinogradPlaces places;
};

}  // namespace
}  // namespace fastvision
