// CPU: the gradient by the weights of a convolution with one channel per group in channels_last.
#pragma once

#include <vector>

#include "depthwise.h"

namespace fastvision {
namespace {

// Pieces of a row of both maps for a task's channels, and the sums of all taps for these: (pixels, channels) and (taps,
// channels), whole vectors of channels.
template <class A>
struct RowProducts {
  std::vector<A> small, large, sums;

  // Adds the products of pixels [x0, x1) of the small map and those of the large map, which begin at `low`, to the sum
  // of a tap.
  template <int kVectors>
  void add(const ConvolutionShape& s, int64_t ky, int64_t kx, int64_t x0, int64_t x1, int64_t low) {
    constexpr int64_t kChannels = kVectors * kLanes<A>;
    const MetPixels met(kx, s.stride_x, s.padding_x, s.dilation_x, s.small_w, s.large_w);
    const int64_t begin = max_of(x0, met.begin), end = min_of(x1, met.end);
    A* const to = sums.data() + (ky * s.kernel_x + kx) * kChannels;
    Vec<A> sum[kVectors];
    for (int v = 0; v < kVectors; ++v) sum[v] = load_vector(to + v * kLanes<A>);
    for (int64_t x = begin; x < end; ++x) {
      const A* const a = small.data() + (x - x0) * kChannels;
      const A* const b = large.data() + (x * s.stride_x + met.offset - low) * kChannels;
      for (int v = 0; v < kVectors; ++v)
        sum[v] = multiply_add(load_vector(a + v * kLanes<A>), load_vector(b + v * kLanes<A>), sum[v]);
    }
    for (int v = 0; v < kVectors; ++v) store_vector(to + v * kLanes<A>, sum[v]);
  }
};

constexpr int64_t kPiece = 128;  // pixels of a row

// The weights of channels [first, first + count), `count` at most kVectors vectors. Pieces of rows are copied first:
// the pixels of many channels may be so far apart that few of them fit a cache.
template <int kVectors, class T>
void depthwise_product(const ConvolutionShape& s, const AxisTaps& row_taps, int64_t first, int64_t count,
                       const T* small, const T* large, T* weight, RowProducts<Accum<T>>& products) {
  using A = Accum<T>;
  constexpr int64_t kChannels = kVectors * kLanes<A>;
  const MapLayout of_small = small_layout(s), of_large = large_layout(s);
  // Pixels [begin, end) of a row.
  const auto copy = [&](const T* row, int64_t begin, int64_t end, int64_t column, std::vector<A>& to) {
    to.resize(max_of(to.size(), size_t(max_of(end - begin, int64_t(0)) * kChannels)));
    for (int64_t x = begin; x < end; ++x)
      copy_numbers(row + x * column + first, count, to.data() + (x - begin) * kChannels);
  };
  // Taps next to each other read the same piece of the large map.
  const int64_t at_once = (s.kernel_x - 1) * s.dilation_x <= kPiece * s.stride_x ? s.kernel_x : 1;
  products.sums.assign(size_t(s.taps() * kChannels), A(0));
  for (int64_t k = 0; k < s.batch * s.small_h; ++k)
    for (int64_t x0 = 0; x0 < s.small_w; x0 += kPiece) {
      const int64_t image = k / s.small_h, y = k % s.small_h, x1 = min_of(x0 + kPiece, s.small_w);
      copy(small + k * of_small.row, x0, x1, of_small.column, products.small);
      for (const AxisTaps::Tap* tap = row_taps.first(y); tap != row_taps.last(y); ++tap)
        for (int64_t kx = 0; kx < s.kernel_x; kx += at_once) {
          const int64_t left = x0 * s.stride_x - s.padding_x + kx * s.dilation_x, low = max_of(left, int64_t(0));
          const int64_t high = left + (x1 - 1 - x0) * s.stride_x + (at_once - 1) * s.dilation_x + 1;
          copy(large + image * of_large.image + tap->source * of_large.row, low, min_of(high, s.large_w),
               of_large.column, products.large);
          for (int64_t i = kx; i < kx + at_once; ++i) products.template add<kVectors>(s, tap->tap, i, x0, x1, low);
        }
    }
  for (int64_t c = 0; c < count; ++c)
    for (int64_t i = 0; i < s.taps(); ++i)
      weight[(first + c) * s.taps() + i] = from_accum<T>(products.sums[size_t(i * kChannels + c)]);
}

}  // namespace
}  // namespace fastvision
