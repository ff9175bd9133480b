// Transposed convolution whose windows lie side by side (U-Net's 2 x 2 with stride 2), in NCHW: each pixel of the small
// map makes a block of the large one. A product of the weights with 64 pixels at a time, shuffled into the rows of the
// result.
#pragma once

#include <algorithm>
#include <vector>

#include "convolution.h"
#include "product.h"

namespace fastvision {
namespace {

constexpr int64_t kShuffledPixels = 64, kShuffledRows = 24;

inline bool is_pixel_shuffle(const ConvolutionShape& s) {
  return !s.channels_last && s.kernel_y == s.stride_y && s.kernel_x == s.stride_x && s.padding_y == 0 &&
         s.padding_x == 0 && s.dilation_y == 1 && s.dilation_x == 1 && s.large_h >= s.small_h * s.kernel_y &&
         s.large_w >= s.small_w * s.kernel_x && s.small_channels * s.large_channels > 1;
}

// to[x * count + k] = row k of `from` at x, for x < n and k < count.
template <class T>
void shuffle_rows(const Accum<T>* from, int64_t count, int64_t n, T* to) {
  using V = Vec<Accum<T>>;
  int64_t x = 0;
  if (count == 2) {
    for (; x + V::kLanes <= n; x += V::kLanes) {
      V low, high;
      interleave(load_vector(from + x), load_vector(from + kShuffledPixels + x), low, high,
                 std::make_integer_sequence<int, int(V::kLanes)>());
      store_vector(to + 2 * x, low);
      store_vector(to + 2 * x + V::kLanes, high);
    }
  }
  for (; x < n; ++x)
    for (int64_t k = 0; k < count; ++k) to[x * count + k] = from_accum<T>(from[k * kShuffledPixels + x]);
}

// Whether the large map has pixels that no window covers: of output_padding, or that a convolution left out.
inline bool has_rest(const ConvolutionShape& s) {
  return s.large_h > s.small_h * s.kernel_y || s.large_w > s.small_w * s.kernel_x;
}

// Pixels [begin, end) of a plane, at most 64. small, large: of the image and group. weight, bias (or null): of the
// group.
template <class T>
void scatter_pixels(const ConvolutionShape& s, int64_t begin, int64_t end, const T* small, const Accum<T>* weight,
                    const Accum<T>* bias, T* large, std::vector<Accum<T>>& scratch) {
  using A = Accum<T>;
  const int64_t taps = s.taps(), at_once = ceil_div(kShuffledRows, taps), count = end - begin;
  scratch.resize(size_t((s.small_channels + at_once * taps) * kShuffledPixels));
  A *const pixels = scratch.data(), *const sums = pixels + s.small_channels * kShuffledPixels;
  for (int64_t c = 0; c < s.small_channels; ++c) {
    const T* from = small + c * s.small_h * s.small_w + begin;
    for_each_vector<A>(count, [&](int64_t i, int, auto n) {
      store_vector(pixels + c * kShuffledPixels + i, load_vector(from + i, n), n);
    });
  }
  for (int64_t d = 0; d < s.large_channels; d += at_once) {
    const int64_t rows = min_of(at_once, s.large_channels - d) * taps;
    for (int64_t r = 0; r < rows; ++r)
      std::fill_n(sums + r * kShuffledPixels, kShuffledPixels, bias ? bias[d + r / taps] : A(0));
    const Factor<A> factor{weight + d * taps, 1, s.large_channels * taps};
    for (int64_t c = 0; c < count; c += kPanel<A>)
      add_product(rows, min_of(kPanel<A>, count - c), s.small_channels, factor, pixels + c, kShuffledPixels, sums + c,
                  kShuffledPixels);
    for (int64_t r = 0; r < rows; r += s.kernel_x) {
      T* const plane = large + (d + r / taps) * s.large_h * s.large_w;
      for (int64_t p = begin, next; p < end; p = next) {
        const int64_t y = p / s.small_w, x = p % s.small_w;
        next = min_of((y + 1) * s.small_w, end);
        shuffle_rows(sums + r * kShuffledPixels + p - begin, s.kernel_x, next - p,
                     plane + (y * s.kernel_y + r % taps / s.kernel_x) * s.large_w + x * s.kernel_x);
      }
    }
  }
}

}  // namespace
}  // namespace fastvision
