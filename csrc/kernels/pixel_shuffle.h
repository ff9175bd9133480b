// Windows that lie side by side (U-Net's 2 x 2 with stride 2), in NCHW: each pixel of the small map goes with a block
// of the large one, and all three maps are products of matrices, for 64 pixels at a time. The rows of the large map are
// shuffled together from those of its taps, or taken apart.
#pragma once

#include <algorithm>
#include <vector>

#include "convolution.h"
#include "panels.h"

namespace fastvision {
namespace {

constexpr int64_t kShuffledPixels = 64, kShuffledRows = 24;

inline bool has_windows_side_by_side(const ConvolutionShape& s) {
  return s.kernel_y == s.stride_y && s.kernel_x == s.stride_x && s.padding_y == 0 && s.padding_x == 0 &&
         s.dilation_y == 1 && s.dilation_x == 1 && s.large_h / s.kernel_y >= s.small_h &&
         s.large_w / s.kernel_x >= s.small_w && s.small_channels * s.large_channels > 1 &&
         s.kernel_x <= 1 << 14;  // scratch for rows of 64 windows is small
}
inline bool is_pixel_shuffle(const ConvolutionShape& s) { return !s.channels_last && has_windows_side_by_side(s); }

// Whether scratch for all taps of 64 windows is small.
inline bool has_small_windows(const ConvolutionShape& s) { return s.large_channels * s.taps() <= 1 << 16; }

// to[x * count + k] = row k of `from` at x, for x < n and k < count.
template <class T>
void shuffle_rows(const Accum<T>* from, int64_t count, int64_t n, bool past_caches, T* to) {
  using V = Vec<Accum<T>>;
  int64_t x = 0;
  for (; count == 1 && x + V::kLanes <= n; x += V::kLanes) store_vector(to + x, load_vector(from + x));
  if (count == 2) {
    const bool lines = past_caches && starts_line(to);
    for (; x + V::kLanes <= n; x += V::kLanes) {
      V low, high;
      interleave(load_vector(from + x), load_vector(from + kShuffledPixels + x), low, high,
                 std::make_integer_sequence<int, int(V::kLanes)>());
      if (lines) {
        stream_line(to + 2 * x, low);
        stream_line(to + 2 * x + V::kLanes, high);
      } else {
        store_vector(to + 2 * x, low);
        store_vector(to + 2 * x + V::kLanes, high);
      }
    }
  }
  for (; x < n; ++x)
    for (int64_t k = 0; k < count; ++k) to[x * count + k] = from_accum<T>(from[k * kShuffledPixels + x]);
}

// Whether the large map has pixels that no window covers: of output_padding, or that a convolution left out.
inline bool has_rest(const ConvolutionShape& s) {
  return s.large_h > s.small_h * s.kernel_y || s.large_w > s.small_w * s.kernel_x;
}

// Pixels [begin, end), at most 64, of `channels` of the small map: 64 per row.
template <class T>
void copy_pixels(const ConvolutionShape& s, int64_t channels, int64_t begin, int64_t end, const T* small,
                 Accum<T>* to) {
  for (int64_t a = 0; a < channels; ++a)
    copy_numbers(small + a * s.small_h * s.small_w + begin, end - begin, to + a * kShuffledPixels);
}

// For rows [first, first + rows) (channel, tap) of the windows of pixels [begin, end), 64 pixels each: calls f(place in
// these rows, count of pixels, place in the large map) for all that lie in one row of the map.
template <class F>
void for_each_run(const ConvolutionShape& s, int64_t first, int64_t rows, int64_t begin, int64_t end, F&& f) {
  for (int64_t r = first; r < first + rows; r += s.kernel_x)
    for (int64_t p = begin, next; p < end; p = next) {
      const int64_t y = p / s.small_w, x = p % s.small_w;
      next = min_of((y + 1) * s.small_w, end);
      f((r - first) * kShuffledPixels + p - begin, next - p,
        r / s.taps() * s.large_h * s.large_w + (y * s.kernel_y + r % s.taps() / s.kernel_x) * s.large_w +
            x * s.kernel_x);
    }
}

// Rows (channel, tap) of the large map of one product: whole rows of windows.
inline int64_t rows_of_product(const ConvolutionShape& s) { return ceil_div(kShuffledRows, s.kernel_x) * s.kernel_x; }

// The weights in the order of these products: (group, first row of a product, channel of the small map, row).
template <class A, class Isa>
std::vector<A> by_product(const ConvolutionShape& s, const A* weight, const Cpu<Isa>& exec) {
  std::vector<A> ordered(size_t(s.weights()));
  const int64_t all = s.large_channels * s.taps(), step = rows_of_product(s), products = ceil_div(all, step);
  exec(s.groups * products, 1 + 65536 / (s.small_channels * step), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t group = k / products, first = k % products * step, rows = min_of(step, all - first);
      const A* const from = weight + s.weight(group, 0, 0) + first;
      A* const to = ordered.data() + s.weight(group, 0, 0) + first * s.small_channels;
      for (int64_t c = 0; c < s.small_channels; ++c) std::copy_n(from + c * all, rows, to + c * rows);
    }
  });
  return ordered;
}

// Pixels [begin, end) of a plane, at most 64. small, large: of the image and group. weight: as by_product orders it.
// bias (or null): of the group.
template <class T>
void scatter_pixels(const ConvolutionShape& s, int64_t begin, int64_t end, const T* small, const Accum<T>* weight,
                    const Accum<T>* bias, bool past_caches, T* large, std::vector<Accum<T>>& scratch) {
  using A = Accum<T>;
  const int64_t step = rows_of_product(s), all = s.large_channels * s.taps(), count = end - begin;
  scratch.resize(size_t((s.small_channels + step) * kShuffledPixels));
  A *const pixels = scratch.data(), *const sums = pixels + s.small_channels * kShuffledPixels;
  copy_pixels(s, s.small_channels, begin, end, small, pixels);
  for (int64_t first = 0; first < all; first += step) {
    const int64_t rows = min_of(step, all - first);
    for (int64_t r = 0; r < rows; ++r)
      std::fill_n(sums + r * kShuffledPixels, kShuffledPixels, bias ? bias[(first + r) / s.taps()] : A(0));
    const A* const weights = weight + first * s.small_channels;
    for (int64_t k = 0; k < s.small_channels; k += kPanelDepth)
      for (int64_t c = 0; c < count; c += kPanel<A>)
        add_product(rows, min_of(kPanel<A>, count - c), min_of(kPanelDepth, s.small_channels - k),
                    Factor<A>{weights + k * rows, 1, rows}, pixels + k * kShuffledPixels + c, kShuffledPixels, sums + c,
                    kShuffledPixels);
    for_each_run(s, first, rows, begin, end, [&](int64_t at, int64_t n, int64_t place) {
      shuffle_rows(sums + at, s.kernel_x, n, past_caches, large + place);
    });
  }
}

// Row k of `to` at x = from[x * count + k], for x < n and k < count.
template <class T>
void unshuffle_rows(const T* from, int64_t count, int64_t n, Accum<T>* to) {
  using V = Vec<Accum<T>>;
  int64_t x = 0;
  for (; count == 1 && x + V::kLanes <= n; x += V::kLanes) store_vector(to + x, load_vector(from + x));
  if (count == 2) {
    for (; x + V::kLanes <= n; x += V::kLanes) {
      V even, odd;
      part(load_vector(from + 2 * x), load_vector(from + 2 * x + V::kLanes), even, odd,
           std::make_integer_sequence<int, int(V::kLanes)>());
      store_vector(to + x, even);
      store_vector(to + kShuffledPixels + x, odd);
    }
  }
  for (; x < n; ++x)
    for (int64_t k = 0; k < count; ++k) to[k * kShuffledPixels + x] = to_accum(from[x * count + k]);
}

// The windows of pixels [begin, end): (channel, tap, pixel), 64 pixels per row. large: of the image and group.
template <class T>
void unshuffle_pixels(const ConvolutionShape& s, int64_t begin, int64_t end, const T* large, Accum<T>* windows) {
  for_each_run(s, 0, s.large_channels * s.taps(), begin, end, [&](int64_t at, int64_t n, int64_t place) {
    unshuffle_rows(large + place, s.kernel_x, n, windows + at);
  });
}

// Pixels [begin, end) of a plane of the small map, at most 64.
template <class T>
void gather_pixels(const ConvolutionShape& s, int64_t begin, int64_t end, const T* large, const Accum<T>* weight,
                   const Accum<T>* bias, T* small, std::vector<Accum<T>>& scratch) {
  using A = Accum<T>;
  const int64_t depth = s.large_channels * s.taps(), count = end - begin;
  scratch.resize(size_t((depth + s.small_channels) * kShuffledPixels));
  A *const windows = scratch.data(), *const sums = windows + depth * kShuffledPixels;
  unshuffle_pixels(s, begin, end, large, windows);
  for (int64_t a = 0; a < s.small_channels; ++a)
    std::fill_n(sums + a * kShuffledPixels, kShuffledPixels, bias ? bias[a] : A(0));
  for (int64_t c = 0; c < count; c += kPanel<A>)
    add_product(s.small_channels, min_of(kPanel<A>, count - c), depth, Factor<A>{weight, depth, 1}, windows + c,
                kShuffledPixels, sums + c, kShuffledPixels);
  for (int64_t a = 0; a < s.small_channels; ++a)
    copy_numbers(sums + a * kShuffledPixels, count, small + a * s.small_h * s.small_w + begin);
}

// Calls f(begin, end, image and group, group, scratch) for all pixels, at most 64 at a time.
template <class A, class Isa, class F>
void for_shuffled_pixels(const ConvolutionShape& s, const Cpu<Isa>& exec, F&& f) {
  const int64_t pixels = s.small_h * s.small_w, panels = ceil_div(pixels, kShuffledPixels);
  const int64_t work = s.weights() / s.groups * kShuffledPixels;
  exec(s.batch * s.groups * panels, 1 + 65536 / work, [&](int64_t begin, int64_t end) {
    std::vector<A> scratch;
    for (int64_t k = begin; k < end; ++k) {
      const int64_t first = k % panels * kShuffledPixels, plane = k / panels;
      f(first, min_of(first + kShuffledPixels, pixels), plane, plane % s.groups, scratch);
    }
    finish_streaming();
  });
}

template <class T, class Isa>
void gather_windows(const ConvolutionShape& s, const T* large, const Accum<T>* weight, const Accum<T>* bias, T* small,
                    const Cpu<Isa>& exec) {
  for_shuffled_pixels<Accum<T>>(s, exec, [&](int64_t begin, int64_t end, int64_t plane, int64_t group, auto& scratch) {
    gather_pixels(s, begin, end, large + plane * s.large_channels * s.large_h * s.large_w,
                  weight + s.weight(group, 0, 0), bias ? bias + group * s.small_channels : nullptr,
                  small + plane * s.small_channels * s.small_h * s.small_w, scratch);
  });
}

template <class T, class Isa>
void scatter_windows(const ConvolutionShape& s, const T* small, const Accum<T>* weight, const Accum<T>* bias, T* large,
                     const Cpu<Isa>& exec) {
  const int64_t channels = s.groups * s.large_channels, plane_size = s.large_h * s.large_w;
  if (has_rest(s))
    exec(s.batch * channels, 1 + 65536 / (plane_size + 1), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k)
        std::fill_n(large + k * plane_size, plane_size, from_accum<T>(bias ? bias[k % channels] : Accum<T>(0)));
    });
  const std::vector<Accum<T>> ordered = by_product(s, weight, exec);
  const bool past_caches = s.batch * channels * plane_size * int64_t(sizeof(T)) >= kStreamedBytes;
  for_shuffled_pixels<Accum<T>>(s, exec, [&](int64_t begin, int64_t end, int64_t plane, int64_t group, auto& scratch) {
    scatter_pixels(s, begin, end, small + plane * s.small_channels * s.small_h * s.small_w,
                   ordered.data() + s.weight(group, 0, 0), bias ? bias + group * s.large_channels : nullptr,
                   past_caches, large + plane * s.large_channels * plane_size, scratch);
  });
}

}  // namespace
}  // namespace fastvision
