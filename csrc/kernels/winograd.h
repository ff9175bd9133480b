// CPU: 3 x 3 convolution with stride 1 of many channels by Winograd's algorithm (Lavin and Gray, 2016), in float32: in
// tiles of 2 x 2 pixels with 16 products where direct summation has 36, and of 4 x 4 pixels of 16 bits with 36 instead
// of 144. A dilated convolution is one of each phase of the map.
// Tiles are transformed to V[part][tile][channel], multiplied by the transformed weights U[part][channel][channel of
// the result], and the products are transformed to pixels of the result. A result has the same bits whatever is
// computed beside it. Values that are not finite would reach a tile's other pixels, and sums of large ones overflow:
// tiles with such a result are summed directly.
#pragma once

#include <algorithm>
#include <vector>

#include "winograd_result.h"
#include "winograd_weights.h"

namespace fastvision {
namespace {

template <class T, class Isa>
class Winograd {
  using Tile = WinogradTileOf<T>;
  static constexpr int64_t kLanes = Vec<float>::kLanes, kColumns = kPanel<float>;
  static constexpr int kParts = Tile::kParts, kResult = Tile::kResult;
  using Channels = typename WinogradResult<T>::Channels;

 public:
  Winograd(const UnitStrideShape& s, const T* source, const T* weight, const T* bias, T* result)
      : read(s, source),
        results(s, source, bias, result),
        weights(s, weight),
        count(read.count()),
        depth(s.from.channels),
        width(s.to.channels),
        panels(ceil_div(width, kColumns)) {}

  void operator()(const Cpu<Isa>& exec) const {
    if (count <= kFewTiles && panels >= exec.threads) by_panels(exec);
    else by_blocks(exec);
  }

 private:
  static constexpr int64_t kFewTiles = 96;

  // All weights are transformed at first, and each block of tiles meets them all. A block has about 768 KiB, which stay
  // in the cache, but no fewer tiles than are worth reading all weights for; each thread has as many blocks.
  void by_blocks(const Cpu<Isa>& exec) const {
    constexpr int64_t kChannels = 16, kFloats = 3 << 16, kLeast = 96 / kResult;
    constexpr int64_t kManyWeights = 1 << 20, kManyPixels = 1024;  // for which huge pages pay
    const int64_t by_part = panels * depth * kColumns + kColumns, chunks = ceil_div(depth, kChannels);
    const bool many = kParts * by_part >= kManyWeights && count * kResult * kResult >= kManyPixels;
    const HugeArray<float> transformed(size_t(kParts * by_part), many);
    exec(panels * chunks, 2, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const int64_t panel = k / chunks, first = k % chunks * kChannels;
        weights.transform(panel, first, min_of(first + kChannels, depth),
                          transformed.get() + (panel * depth + first) * kColumns, by_part);
      }
    });
    const int64_t fitting = max_of(kFloats / (kParts * (depth + width)), kLeast);
    const int64_t blocks = ceil_div(max_of((count + fitting / 2) / fitting, int64_t(1)), exec.threads) * exec.threads;
    const int64_t step = max_of(ceil_div(count, blocks), int64_t(1));
    exec(ceil_div(count, step), 1 + 65536 / (step * kParts * depth * width + 1), [&](int64_t begin, int64_t end) {
      const TileMemory sources(kParts, min_of(step, count), depth), products(kParts, min_of(step, count), width);
      std::vector<float> pixels;
      std::vector<char> bad(size_t(min_of(step, count)));
      for (int64_t k = begin; k < end; ++k) {
        const int64_t first = k * step, last = min_of(first + step, count);
        read(first, last, sources.all(), pixels);
        multiply(last - first, {0, depth}, sources.all(), 0, panels, transformed.get(), by_part, products.all());
        results.write(first, last, {0, width}, products.all(), bad.data(), pixels);
        sum_directly(first, last, bad.data());
      }
    });
  }

  // All tiles are transformed at first, and each panel of the weights, which stays in the cache, meets them all.
  void by_panels(const Cpu<Isa>& exec) const {
    constexpr int64_t kChannels = kParts == 16 ? 128 : 64, kByPart = kChannels * kColumns + kColumns;
    const TileMemory sources(kParts, count, depth);
    exec(count, 1 + 65536 / (kParts * depth), [&](int64_t begin, int64_t end) {
      std::vector<float> pixels;
      read(begin, end, sources.all().from_tile(begin), pixels);
    });
    std::vector<char> bad(size_t(panels * count));
    exec(panels, 1, [&](int64_t begin, int64_t end) {
      const TileMemory products(kParts, count, kColumns);
      const HugeArray<float> transformed(size_t(kParts * kByPart), false);
      std::vector<float> pixels;
      for (int64_t p = begin; p < end; ++p) {
        for (int64_t c = 0; c < depth; c += kChannels) {
          const Channels chunk{c, min_of(c + kChannels, depth)};
          weights.transform(p, chunk.begin, chunk.end, transformed.get(), kByPart);
          multiply(count, chunk, sources.all(), p, p + 1, transformed.get(), kByPart, products.all());
        }
        const Channels panel{p * kColumns, min_of((p + 1) * kColumns, width)};
        results.write(0, count, panel, products.all(), bad.data() + p * count, pixels);
      }
    });
    for (int64_t p = 1; p < panels; ++p)
      for (int64_t t = 0; t < count; ++t) bad[size_t(t)] |= bad[size_t(p * count + t)];
    if (std::find(bad.begin(), bad.begin() + count, 1) == bad.begin() + count) return;
    exec(count, ceil_div(count, exec.threads),
         [&](int64_t begin, int64_t end) { sum_directly(begin, end, bad.data() + begin); });
  }

  // sums (+)= the tiles' channels of the source times their weights: [part][panel][channel][column].
  void multiply(int64_t tiles_here, const Channels& channels, TileParts sources, int64_t first_panel, int64_t end_panel,
                const float* weight, int64_t by_part, TileParts sums) const {
    const int64_t deep = channels.end - channels.begin;
    for (int i = 0; i < kParts; ++i) {
      float* const to = sums.at + i * sums.part;
      if (channels.begin == 0) std::fill_n(to, tiles_here * sums.stride, 0.0f);
      const Factor<float> factor{sources.at + i * sources.part + channels.begin, sources.stride, 1};
      for (int64_t p = first_panel; p < end_panel; ++p) {
        const float* const panel = weight + i * by_part + (p - first_panel) * deep * kColumns;
        add_product<float>(tiles_here, min_of(kColumns, width - p * kColumns), deep, factor, panel, kColumns,
                           to + (p - first_panel) * kColumns, sums.stride, panel + deep * kColumns);
      }
    }
  }

  void sum_directly(int64_t begin, int64_t end, const char* bad) const {
    std::vector<float> taps;
    for (int64_t t = begin; t < end; ++t) {
      if (!bad[t - begin]) continue;
      if (taps.empty()) taps = weights.direct();
      results.sum_directly(t, taps.data());
    }
  }

  const WinogradReader<T, Tile::kSource> read;
  const WinogradResult<T> results;
  const WinogradWeights<T> weights;
  const int64_t count, depth, width, panels;
};

}  // namespace
}  // namespace fastvision
