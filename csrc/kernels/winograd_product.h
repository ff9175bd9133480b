// CPU: the gradient by the weights of the convolutions of winograd.h: the transposed of its transforms. Tiles of the
// large map and of the gradient by the small one are transformed to [part][tile][channel], per part a product of
// matrices adds up all tiles, and the sums [part][small channel][large channel] are transformed to taps. Sums that are
// not finite are added up directly.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "convolution_product.h"
#include "winograd_read.h"

namespace fastvision {
namespace {

template <class T, class Isa>
class WinogradProduct {
  using Tile = WinogradTileOf<T>;
  using V = Vec<float>;
  static constexpr int64_t kLanes = V::kLanes, kColumns = kPanel<float>, kTaps = 9;
  static constexpr int kParts = Tile::kParts;

 public:
  WinogradProduct(const ConvolutionShape& s, const T* small, const T* large, T* weight)
      : s(s),
        small(small),
        large(large),
        weight(weight),
        of_small(unit_stride_gather(s), small),
        of_large(unit_stride_gather(s), large),
        stride(ceil_div(s.large_channels, kLanes) * kLanes),
        by_part(s.small_channels * stride + kLanes),
        sums(size_t(kParts * by_part), false) {}

  // Some tiles at a time, as many whatever the threads: the order of additions is a matter of the shape alone.
  void operator()(const Cpu<Isa>& exec) const {
    constexpr int64_t kFloats = 1 << 21, kLeast = 256;
    const int64_t channels = s.small_channels + s.large_channels, count = of_small.count();
    const int64_t most = max_of(kFloats / (kParts * channels), kLeast);
    const int64_t step = ceil_div(count, ceil_div(count, most)), blocks = ceil_div(s.small_channels, kRows);
    const TileMemory smalls(kParts, step, s.small_channels + kLanes), larges(kParts, step, s.large_channels + kLanes);
    for (int64_t first = 0; first < count; first += step) {
      const int64_t last = min_of(first + step, count);
      exec(last - first, 1 + 65536 / (kParts * channels), [&](int64_t begin, int64_t end) {
        std::vector<float> pixels;
        of_small(first + begin, first + end, smalls.all().from_tile(begin), pixels);
        of_large(first + begin, first + end, larges.all().from_tile(begin), pixels);
      });
      exec(kParts * blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k)
          add_tiles(k / blocks, k % blocks * kRows, last - first, first == 0, smalls.all(), larges.all());
      });
    }
    std::vector<char> bad(size_t(s.small_channels));
    exec(s.small_channels, 1 + 65536 / (kParts * s.large_channels), [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) bad[size_t(c)] = !write(c);
    });
    if (std::find(bad.begin(), bad.end(), 1) != bad.end()) add_directly(exec);
  }

 private:
  static constexpr int64_t kRows = 96;  // channels of the small map of a task

  // One part of the sums of small channels from `row` on.
  void add_tiles(int64_t part, int64_t row, int64_t tiles, bool is_first, TileParts smalls, TileParts larges) const {
    const int64_t rows = min_of(kRows, s.small_channels - row);
    const float *const a = smalls.at + part * smalls.part + row, *const b = larges.at + part * larges.part;
    float* const total = sums.get() + part * by_part + row * stride;
    float here[kRows * kColumns];  // the sums of these tiles: shorter sums have smaller errors
    for (int64_t c = 0; c < s.large_channels; c += kColumns) {
      const int64_t columns = min_of(kColumns, s.large_channels - c);
      std::fill_n(here, rows * kColumns, 0.0f);
      for (int64_t t = 0; t < tiles; t += kPanelDepth)
        add_product<float>(rows, columns, min_of(kPanelDepth, tiles - t), {a + t * smalls.stride, 1, smalls.stride},
                           b + t * larges.stride + c, larges.stride, here, kColumns);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t v = 0; v < columns; v += kLanes) {
          float* const to = total + r * stride + c + v;
          const V sum = load_vector(here + r * kColumns + v);
          store_vector(to, is_first ? sum : load_vector(to) + sum);
        }
    }
  }

  // The taps of a small channel; whether all are finite.
  bool write(int64_t row) const {
    const float* const from = sums.get() + row * stride;
    V differences(0.0f);
    for (int64_t c = 0; c < s.large_channels; c += kLanes) {
      V d[kParts];
      float taps[kTaps * kLanes];
      for (int j = 0; j < Tile::kSource; ++j) {
        for (int i = 0; i < Tile::kSource; ++i) {
          const int part = Tile::kSource * i + j;
          d[part] = load_vector(from + part * by_part + c);
        }
        Tile::to_weight(d + j, Tile::kSource);
      }
      for (int i = 0; i < 3; ++i) {
        Tile::to_weight(d + Tile::kSource * i, 1);
        for (int j = 0; j < 3; ++j) {
          const V tap = d[Tile::kSource * i + j];
          differences = differences + (tap - tap);
          store_vector(taps + (3 * i + j) * kLanes, tap);
        }
      }
      transpose(taps, kLanes, kTaps, min_of(kLanes, s.large_channels - c), weight + s.weight(0, row, c), kTaps);
    }
    return !any(!(differences == V(0.0f)));
  }

  // What is not finite, again.
  void add_directly(const Cpu<Isa>& exec) const {
    std::vector<T> exact(size_t(s.weights()));
    product_by_tap(s, small, large, exact.data(), exec);
    for (int64_t k = 0; k < s.weights(); k += kTaps) {
      const bool bad = std::any_of(weight + k, weight + k + kTaps, [](T w) { return !std::isfinite(to_accum(w)); });
      if (bad) std::copy_n(exact.data() + k, kTaps, weight + k);
    }
  }

  const ConvolutionShape s;
  const T *const small, *const large;
  T* const weight;
  const WinogradReader<T, Tile::kResult> of_small;
  const WinogradReader<T, Tile::kSource> of_large;
  const int64_t stride, by_part;  // numbers from one small channel or part to the next
  const HugeArray<float> sums;
};

}  // namespace
}  // namespace fastvision
