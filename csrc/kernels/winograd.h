// CPU: 3 x 3 convolution with stride 1 of many channels by Winograd's F(2 x 2, 3 x 3) (Lavin and Gray, 2016), with 16
// products for 4 results where direct summation has 36. A dilated convolution is one of each phase of the map.
// A block of tiles is transformed to V[16][tile][channel], multiplied by the transformed weights U[16][channel][channel
// of the result], and the products are transformed to 2 x 2 pixels of the result. Each result is computed alike in
// every block. Values that are not finite would reach a tile's other pixels, and sums of large ones overflow: tiles
// with such a result are summed directly.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "huge_array.h"
#include "product.h"
#include "simd.h"
#include "winograd_shape.h"

namespace fastvision {
namespace {

template <class Isa>
class Winograd {
  using V = Vec<float>;
  static constexpr int64_t kLanes = V::kLanes, kColumns = kPanel<float>;
  static constexpr int kResult = WinogradTile::kResult, kSource = WinogradTile::kSource, kParts = WinogradTile::kParts;
  static constexpr int64_t kManyWeights = 1 << 20, kManyTiles = 256;  // for which huge pages pay

 public:
  Winograd(const UnitStrideShape& shape, const float* source, const float* weight, const float* bias, float* result)
      : s(shape),
        source(source),
        weight(weight),
        bias(bias),
        result(result),
        rows(tile_starts(s.to.height, s.dilation_y)),
        columns(tile_starts(s.to.width, s.dilation_x)),
        tiles(s.batch * int64_t(rows.size() * columns.size())),
        depth(s.from.channels),
        width(s.to.channels),
        panels(ceil_div(width, kColumns)),
        by_part(panels * depth * kColumns + kColumns),
        transformed(size_t(kParts * by_part), kParts * by_part >= kManyWeights && tiles >= kManyTiles),
        zeros(size_t(depth + kLanes)) {}

  void operator()(const Cpu<Isa>& exec) {
    constexpr int64_t kChannels = 16;  // of which one task transforms the weights
    const int64_t chunks = ceil_div(depth, kChannels);
    exec(panels * chunks, 2, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k)
        transform_weights(k / chunks, k % chunks * kChannels, min_of((k % chunks + 1) * kChannels, depth));
    });
    // Blocks of about 768 KiB that stay in the cache, but no smaller than is worth reading all weights for, and as many
    // for each thread.
    constexpr int64_t kFloats = 3 << 16, kLeast = 8 * kProductRows;
    const int64_t fitting = max_of(kFloats / (kParts * (depth + width)), kLeast);
    const int64_t blocks = ceil_div(max_of((tiles + fitting / 2) / fitting, int64_t(1)), exec.threads) * exec.threads;
    const int64_t step = max_of(ceil_div(tiles, blocks), int64_t(1));
    const int64_t work = step * kParts * depth * width;
    exec(ceil_div(tiles, step), 1 + 65536 / (work + 1), [&](int64_t begin, int64_t end) {
      Scratch scratch(*this, min_of(step, tiles));
      for (int64_t k = begin; k < end; ++k) block(k * step, min_of((k + 1) * step, tiles), scratch);
    });
  }

 private:
  struct Scratch {
    int64_t source_stride, result_stride, source_part, result_part;
    std::unique_ptr<float[]> sources, products;
    std::vector<float> pixels;
    std::vector<char> bad;

    Scratch(const Winograd& w, int64_t tiles)
        : source_stride(ceil_div(w.depth, kLanes) * kLanes),
          result_stride(ceil_div(w.width, kLanes) * kLanes),
          source_part(tiles * source_stride + kLanes),
          result_part(tiles * result_stride + kLanes),
          sources(new float[size_t(kParts * source_part)]),
          products(new float[size_t(kParts * result_part)]),
          bad(size_t(tiles)) {}
  };
  struct Place {
    int64_t image, y, x;  // of the tile's first pixel in the result
  };
  Place place(int64_t tile) const {
    const int64_t across = int64_t(columns.size()), down = int64_t(rows.size());
    return {tile / across / down, rows[size_t(tile / across % down)], columns[size_t(tile % across)]};
  }

  // The taps of kLanes channels of the result, from channel o, for channel c of the source.
  FV_HD void load_taps(int64_t o, int64_t c, V (&taps)[9]) const {
    float lanes[9 * kLanes] = {};
    const float* from = weight + o * s.weight_by_result + c * s.weight_by_source;
    if (o < width) transpose(from, s.weight_by_result, min_of(kLanes, width - o), 9, lanes, kLanes);
    for (int i = 0; i < 9; ++i) taps[i] = load_vector(lanes + (s.flipped ? 8 - i : i) * kLanes);
  }
  void transform_weights(int64_t panel, int64_t begin, int64_t end) const {
    for (int64_t v = 0; v < min_of(kColumns, width - panel * kColumns); v += kLanes)
      for (int64_t c = begin; c < end; ++c) {
        V taps[9], middle[kSource * 3], parts[kParts];
        load_taps(panel * kColumns + v, c, taps);
        for (int i = 0; i < 3; ++i) WinogradTile::of_weight(taps[i], taps[3 + i], taps[6 + i], middle + i, 3);
        for (int i = 0; i < kSource; ++i)
          WinogradTile::of_weight(middle[3 * i], middle[3 * i + 1], middle[3 * i + 2], parts + kSource * i, 1);
        float* to = transformed.get() + (panel * depth + c) * kColumns + v;
        for (int i = 0; i < kParts; ++i) store_vector(to + i * by_part, parts[i]);
      }
  }

  // Channels [c, c + kLanes) of the tile's pixels: pixel(y, x) is where they are.
  template <class Pixel>
  FV_HD void transform_source(const Place& p, int64_t lanes, const Pixel& pixel, float* to, int64_t part) const {
    V d[kParts];
    for (int i = 0; i < kSource; ++i)
      for (int j = 0; j < kSource; ++j) {
        const int64_t y = p.y - s.padding_y + i * s.dilation_y, x = p.x - s.padding_x + j * s.dilation_x;
        const bool inside = y >= 0 && y < s.from.height && x >= 0 && x < s.from.width;
        const float* from = inside ? pixel(i, y, x) : zeros.data();
        d[kSource * i + j] = lanes == kLanes ? load_vector(from) : load_vector(from, lanes);
      }
    for (int i = 0; i < kSource; ++i) WinogradTile::of_source(d + i, kSource);
    for (int i = 0; i < kSource; ++i) WinogradTile::of_source(d + kSource * i, 1);
    for (int i = 0; i < kParts; ++i) store_vector(to + i * part, d[i]);
  }
  void transform_pixels(int64_t begin, int64_t end, Scratch& scratch) const {
    for (int64_t t = begin; t < end; ++t) {
      const Place p = place(t);
      const float* const image = source + p.image * s.from.image;
      for (int64_t c = 0; c < depth; c += kLanes)
        transform_source(
            p, min_of(kLanes, depth - c),
            [&](int64_t, int64_t y, int64_t x) { return image + y * s.from.row + x * s.from.column + c; },
            scratch.sources.get() + (t - begin) * scratch.source_stride + c, scratch.source_part);
    }
  }
  // NCHW: pixels of some channels side by side, of the rows that tiles [begin, end), all of one row, need.
  void transform_planes(int64_t begin, int64_t end, float* to, Scratch& scratch) const {
    const Place first = place(begin);
    int64_t left = first.x, right = first.x;
    for (int64_t t = begin; t < end; ++t) left = min_of(left, place(t).x), right = max_of(right, place(t).x);
    left = max_of(left - s.padding_x, int64_t(0));
    right = min_of(right - s.padding_x + (kSource - 1) * s.dilation_x + 1, s.from.width);
    const int64_t count = max_of(right - left, int64_t(0));
    if (int64_t(scratch.pixels.size()) < kSource * count * kLanes) scratch.pixels.resize(kSource * count * kLanes);
    for (int64_t c = 0; c < depth; c += kLanes) {
      const int64_t lanes = min_of(kLanes, depth - c);
      const float* const planes = source + first.image * s.from.image + c * s.from.channel + left;
      for (int i = 0; i < kSource; ++i) {
        const int64_t y = first.y - s.padding_y + i * s.dilation_y;
        if (y < 0 || y >= s.from.height) continue;
        transpose(planes + y * s.from.row, s.from.channel, lanes, count, scratch.pixels.data() + i * count * kLanes,
                  kLanes);
      }
      for (int64_t t = begin; t < end; ++t)
        transform_source(
            place(t), kLanes,
            [&](int64_t i, int64_t, int64_t x) { return scratch.pixels.data() + (i * count + x - left) * kLanes; },
            to + (t - begin) * scratch.source_stride + c, scratch.source_part);
    }
  }

  void multiply(int64_t count, Scratch& scratch) const {
    for (int i = 0; i < kParts; ++i) {
      float* const sums = scratch.products.get() + i * scratch.result_part;
      std::fill(sums, sums + count * scratch.result_stride, 0.0f);
      const Factor<float> factor{scratch.sources.get() + i * scratch.source_part, scratch.source_stride, 1};
      for (int64_t p = 0; p < panels; ++p) {
        const float* const panel = transformed.get() + i * by_part + p * depth * kColumns;
        add_product<float>(count, min_of(kColumns, width - p * kColumns), depth, factor, panel, kColumns,
                           sums + p * kColumns, scratch.result_stride, panel + depth * kColumns);
      }
    }
  }

  // kLanes channels of the tile's results from channel o, as d[kSource * row + column]; whether all are finite.
  FV_HD bool transform_result(const float* from, int64_t part, int64_t o, int64_t lanes, V (&d)[kParts]) const {
    for (int i = 0; i < kParts; ++i) d[i] = load_vector(from + i * part);
    for (int i = 0; i < kSource; ++i) WinogradTile::of_result(d + i, kSource);
    for (int i = 0; i < kResult; ++i) WinogradTile::of_result(d + kSource * i, 1);
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
  void write_pixels(int64_t begin, int64_t end, Scratch& scratch) const {
    for (int64_t t = begin; t < end; ++t) {
      const Place p = place(t);
      bool finite = true;
      for (int64_t o = 0; o < width; o += kLanes) {
        const int64_t lanes = min_of(kLanes, width - o);
        V d[kParts];
        const float* from = scratch.products.get() + (t - begin) * scratch.result_stride + o;
        finite &= transform_result(from, scratch.result_part, o, lanes, d);
        for (int i = 0; i < kResult; ++i)
          for (int j = 0; j < kResult; ++j) {
            const int64_t y = p.y + i * s.dilation_y, x = p.x + j * s.dilation_x;
            if (y >= s.to.height || x >= s.to.width) continue;
            float* to = result + p.image * s.to.image + y * s.to.row + x * s.to.column + o;
            if (lanes == kLanes) store_vector(to, d[kSource * i + j]);
            else store_vector(to, d[kSource * i + j], lanes);
          }
      }
      scratch.bad[size_t(t - begin)] = !finite;
    }
  }
  // NCHW: tiles [begin, end) are all of one row.
  void write_planes(int64_t begin, int64_t end, const float* from, char* bad, Scratch& scratch) const {
    const Place first = place(begin);
    const int64_t row = (end - begin) * kResult * kLanes;  // pixels of some channels side by side, by row
    if (int64_t(scratch.pixels.size()) < kResult * row) scratch.pixels.resize(kResult * row);
    float* const pixels = scratch.pixels.data();
    std::fill(bad, bad + (end - begin), 0);
    for (int64_t o = 0; o < width; o += kLanes) {
      const int64_t lanes = min_of(kLanes, width - o);
      for (int64_t t = begin; t < end; ++t) {
        V d[kParts];
        bad[t - begin] |=
            !transform_result(from + (t - begin) * scratch.result_stride + o, scratch.result_part, o, lanes, d);
        for (int i = 0; i < kResult; ++i)
          for (int j = 0; j < kResult; ++j)
            store_vector(pixels + i * row + ((t - begin) * kResult + j) * kLanes, d[kSource * i + j]);
      }
      for (int i = 0; i < kResult; ++i) {
        const int64_t y = first.y + i * s.dilation_y;
        if (y >= s.to.height) continue;
        float* const to = result + first.image * s.to.image + o * s.to.channel + y * s.to.row;
        if (s.dilation_x == 1) {
          const int64_t count = min_of((end - begin) * kResult, s.to.width - first.x);
          transpose(pixels + i * row, kLanes, count, lanes, to + first.x, s.to.channel);
          continue;
        }
        for (int64_t l = 0; l < lanes; ++l)
          for (int64_t t = begin; t < end; ++t)
            for (int j = 0; j < kResult; ++j) {
              const int64_t x = place(t).x + j * s.dilation_x;
              if (x < s.to.width) to[l * s.to.channel + x] = pixels[i * row + ((t - begin) * kResult + j) * kLanes + l];
            }
      }
    }
  }

  std::vector<float> direct_weights() const {  // [9][panel][channel of the source][channel in the panel]
    std::vector<float> to(size_t(9 * panels * depth * kColumns));
    for (int64_t k = 0; k < panels * depth; ++k)
      for (int64_t v = 0; v < kColumns; v += kLanes) {
        V taps[9];
        load_taps(k / depth * kColumns + v, k % depth, taps);
        for (int i = 0; i < 9; ++i) store_vector(to.data() + (i * panels * depth + k) * kColumns + v, taps[i]);
      }
    return to;
  }
  void sum_directly(const Place& p, const float* taps) const {
    std::vector<float> sums(size_t(panels * kColumns));
    for (int64_t y = p.y; y < min_of(p.y + kResult * s.dilation_y, s.to.height); y += s.dilation_y)
      for (int64_t x = p.x; x < min_of(p.x + kResult * s.dilation_x, s.to.width); x += s.dilation_x) {
        for (int64_t o = 0; o < width; ++o) sums[size_t(o)] = bias ? bias[o] : 0.0f;
        for (int64_t k = 0; k < 9; ++k) {
          const int64_t from_y = y - s.padding_y + k / 3 * s.dilation_y,
                        from_x = x - s.padding_x + k % 3 * s.dilation_x;
          if (from_y < 0 || from_y >= s.from.height || from_x < 0 || from_x >= s.from.width) continue;
          const float* from = source + p.image * s.from.image + from_y * s.from.row + from_x * s.from.column;
          for (int64_t i = 0; i < panels; ++i)
            add_product<float>(1, min_of(kColumns, width - i * kColumns), depth, {from, 0, s.from.channel},
                               taps + (k * panels + i) * depth * kColumns, kColumns, sums.data() + i * kColumns, 0);
        }
        float* const to = result + p.image * s.to.image + y * s.to.row + x * s.to.column;
        for (int64_t o = 0; o < width; ++o) to[o * s.to.channel] = sums[size_t(o)];
      }
  }

  void block(int64_t begin, int64_t end, Scratch& scratch) const {
    const int64_t across = int64_t(columns.size());
    const auto each_row = [&](auto&& f) {
      for (int64_t t = begin; t < end;) {
        const int64_t last = min_of((t / across + 1) * across, end);
        f(t, last);
        t = last;
      }
    };
    if (!s.channels_last)
      each_row([&](int64_t t, int64_t last) {
        transform_planes(t, last, scratch.sources.get() + (t - begin) * scratch.source_stride, scratch);
      });
    else transform_pixels(begin, end, scratch);
    multiply(end - begin, scratch);
    if (!s.channels_last)
      each_row([&](int64_t t, int64_t last) {
        write_planes(t, last, scratch.products.get() + (t - begin) * scratch.result_stride,
                     scratch.bad.data() + (t - begin), scratch);
      });
    else write_pixels(begin, end, scratch);
    std::vector<float> taps;
    for (int64_t t = begin; t < end; ++t) {
      if (!scratch.bad[size_t(t - begin)]) continue;
      if (taps.empty()) taps = direct_weights();
      sum_directly(place(t), taps.data());
    }
  }

  const UnitStrideShape s;
  const float *const source, *const weight, *const bias;
  float* const result;
  const std::vector<int64_t> rows, columns;  // where tiles begin
  const int64_t tiles, depth, width, panels;
  const int64_t by_part;  // apart: strides that are powers of two would meet in the cache
  const HugeArray<float> transformed;
  const std::vector<float> zeros;
};

}  // namespace
}  // namespace fastvision
