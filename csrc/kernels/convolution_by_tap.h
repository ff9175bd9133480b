// CPU: dense convolution with stride 1 as a product of matrices for each tap, of the pixels that meet the map through
// it. The others take no part: with a dilation of half the map they are most of the work.
#pragma once

#include <algorithm>
#include <vector>

#include "huge_array.h"
#include "panels.h"
#include "unit_stride.h"

namespace fastvision {
namespace {

inline bool has_products_by_tap(const UnitStrideShape& s) {
  return s.taps() > 1 && min_of(s.from.channels, s.to.channels) >= 16 && s.to.width <= 1 << 12;  // sums of a row fit
}

template <class A, class Isa>
class ConvolutionByTap {
  static constexpr int64_t kColumns = kPanel<A>, kPixels = 2048;  // of a task: its sums stay in the second cache
  static constexpr int64_t kPacked = 1 << 24;                     // numbers of images that are packed at a time
  static constexpr int64_t kMany = 1 << 20;                       // numbers, for which huge pages pay

 public:
  ConvolutionByTap(const UnitStrideShape& shape, const A* weight, const A* bias)
      : s(shape),
        weight(weight),
        bias(bias),
        depth(s.from.channels),
        width(s.to.channels),
        panels(ceil_div(width, kColumns)),
        weights(size_t(panels * depth * s.taps() * kColumns), panels * depth * s.taps() * kColumns >= kMany) {}

  void operator()(const A* source, A* result, const Cpu<Isa>& exec) {
    const int64_t chunks = ceil_div(depth, kPanelDepth), pixels = s.from.height * s.from.width;
    exec(panels * chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) turn_weights(k / chunks, k % chunks * kPanelDepth);
    });
    const int64_t together = min_of(max_of(kPacked / (depth * pixels), int64_t(1)), s.batch);
    const HugeArray<A> packed(size_t(together * depth * pixels), together * depth * pixels >= kMany);
    for (int64_t first = 0; first < s.batch; first += together)
      convolve(source + first * s.from.image, min_of(together, s.batch - first), packed.get(),
               result + first * s.to.image, exec);
  }

 private:
  void convolve(const A* source, int64_t images, A* packed, A* result, const Cpu<Isa>& exec) const {
    const int64_t chunks = ceil_div(depth, kPanelDepth), pixels = s.from.height * s.from.width;
    const int64_t parts = ceil_div(pixels, kPixels);
    exec(images * chunks * parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k)
        pack(source, k / parts / chunks, k / parts % chunks * kPanelDepth, k % parts * kPixels, packed);
    });
    const int64_t least = ceil_div(exec.threads, images * panels);
    const int64_t bands = max_of(ceil_div(s.to.height * s.to.width, kPixels), least);
    const int64_t step = ceil_div(s.to.height, bands), count = ceil_div(s.to.height, step);
    exec(images * count * panels, 1, [&](int64_t begin, int64_t end) {
      std::vector<A> sums(size_t(step * s.to.width * kColumns)), span(sums.size());
      for (int64_t k = begin; k < end; ++k) {
        const int64_t panel = k % panels, first = k / panels % count * step, image = k / panels / count;
        const int64_t last = min_of(first + step, s.to.height);
        for (size_t p = 0; p < sums.size(); p += kColumns)
          for (int64_t c = 0; c < kColumns; ++c)
            sums[p + size_t(c)] = bias && c < columns_of(panel) ? bias[panel * kColumns + c] : A(0);
        for (int64_t c = 0; c < depth; c += kPanelDepth) {
          add_chunk(packed + image * depth * pixels, panel, c, first, last, span.data());
          add_span(span, sums.data());
        }
        write(sums.data(), panel, first, last, result + image * s.to.image);
      }
    });
  }
  // Pixels are [image][chunk of channels][pixel][channel]: at powers of two they would drive each other from the cache.
  void pack(const A* source, int64_t image, int64_t first, int64_t pixel, A* packed) const {
    const int64_t channels = min_of(kPanelDepth, depth - first), pixels = s.from.height * s.from.width;
    const int64_t count = min_of(kPixels, pixels - pixel);
    const A* const from = source + image * s.from.image + first * s.from.channel + pixel * s.from.column;
    A* const to = packed + (image * depth + first) * pixels + pixel * channels;
    if (!s.channels_last) return transpose(from, s.from.channel, channels, count, to, channels);
    for (int64_t p = 0; p < count; ++p) copy_numbers(from + p * s.from.column, channels, to + p * channels);
  }
  // Weights are [panel][chunk of the source's channels][tap][channel][column].
  A* weights_of(int64_t panel, int64_t first) const {
    return weights.get() + (panel * depth + first) * s.taps() * kColumns;
  }
  int64_t columns_of(int64_t panel) const { return min_of(kColumns, width - panel * kColumns); }

  void turn_weights(int64_t panel, int64_t first) const {
    constexpr int64_t kRows = 4 * kLanes<A>;
    const int64_t channels = min_of(kPanelDepth, depth - first), by_tap = channels * kColumns;
    A* const to = weights_of(panel, first);
    // Taps of neighbouring channels of the source lie together, or those of neighbouring channels of the result.
    const int64_t together = s.weight_by_source == s.taps() ? channels : 1;
    A turned[kRows * kColumns] = {};
    for (int64_t c = 0; c < channels; c += together)
      for (int64_t i = 0; i < together * s.taps(); i += kRows) {
        const int64_t count = min_of(kRows, together * s.taps() - i);
        transpose(weight + panel * kColumns * s.weight_by_result + (first + c) * s.weight_by_source + i,
                  s.weight_by_result, columns_of(panel), count, turned, kColumns);
        for (int64_t k = 0; k < count; ++k) {
          const int64_t tap = (i + k) % s.taps(), channel = c + (i + k) / s.taps();
          std::copy_n(turned + k * kColumns, kColumns,
                      to + (s.flipped ? s.taps() - 1 - tap : tap) * by_tap + channel * kColumns);
        }
      }
  }

  // Adds to rows [begin, end) of the result what channels from c on give.
  void add_chunk(const A* image, int64_t panel, int64_t c, int64_t begin, int64_t end, A* sums) const {
    const int64_t channels = min_of(kPanelDepth, depth - c);
    const A* const chunk = image + c * s.from.height * s.from.width;
    for (int64_t tap = 0; tap < s.taps(); ++tap) {
      const MetPixels y = s.rows(tap), x = s.columns(tap);
      const A* const of_tap = weights_of(panel, c) + tap * channels * kColumns;
      const int64_t first = max_of(y.begin, begin), last = min_of(y.end, end);
      const bool whole = x.count() == s.to.width && s.from.width == s.to.width;  // rows are one run of pixels
      const int64_t step = whole ? max_of(last - first, int64_t(1)) : 1;
      for (int64_t row = first; row < last; row += step) {
        const A* const from = chunk + ((row + y.offset) * s.from.width + x.begin + x.offset) * channels;
        add_product(step * x.count(), columns_of(panel), channels, Factor<A>{from, channels, 1}, of_tap, kColumns,
                    sums + ((row - begin) * s.to.width + x.begin) * kColumns, kColumns, of_tap + channels * kColumns);
      }
    }
  }
  void write(const A* sums, int64_t panel, int64_t begin, int64_t end, A* image) const {
    const int64_t pixels = (end - begin) * s.to.width;
    A* const to = image + begin * s.to.row + panel * kColumns * s.to.channel;
    if (!s.channels_last) return transpose(sums, kColumns, pixels, columns_of(panel), to, s.to.channel);
    for (int64_t p = 0; p < pixels; ++p) copy_numbers(sums + p * kColumns, columns_of(panel), to + p * s.to.column);
  }

  const UnitStrideShape s;
  const A *const weight, *const bias;
  const int64_t depth, width, panels;
  const HugeArray<A> weights;
};

}  // namespace
}  // namespace fastvision
