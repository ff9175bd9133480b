// The gradient of the weights of convolutions whose windows lie side by side, in NCHW: the taps of 64 windows and their
// pixels of the small map are turned over to be factors of a product.
#pragma once

#include <algorithm>
#include <vector>

#include "pixel_shuffle.h"

namespace fastvision {
namespace {

// Numbers of sums of products of a group, rows padded alike for all instruction sets: parts, and so results, follow.
inline int64_t sums_of_windows(const ConvolutionShape& s) {
  return s.small_channels * ceil_div(s.large_channels * s.taps(), int64_t(64)) * 64;
}

// Whether they are not many times the weights, as with many small groups.
inline bool has_small_sums(const ConvolutionShape& s) {
  return s.groups * sums_of_windows(s) <= max_of(4 * s.weights(), int64_t(1) << 22);
}

// Parts of the windows, of `all`, that have sums of their own.
inline int64_t parts_of_windows(const ConvolutionShape& s, int64_t all) {
  constexpr int64_t kMostNumbers = 1 << 22, kMostParts = 16;
  return max_of(min_of(min_of(kMostNumbers / (s.groups * sums_of_windows(s)), kMostParts), all), int64_t(1));
}

// Adds the products of `channels` of the small map and pixels [begin, end), at most 64, to sums: (channel, padded
// window).
template <class T>
void add_product_of_pixels(const ConvolutionShape& s, int64_t channels, int64_t begin, int64_t end, const T* small,
                           const T* large, std::vector<Accum<T>>& scratch, Accum<T>* sums) {
  using A = Accum<T>;
  const int64_t rows = s.large_channels * s.taps(), stride = padded<A>(rows), count = end - begin;
  scratch.resize(size_t((rows + channels + stride) * kShuffledPixels));
  A *const windows = scratch.data(), *const pixels = windows + rows * kShuffledPixels;
  A* const turned = pixels + channels * kShuffledPixels;
  unshuffle_pixels(s, begin, end, large, windows);
  transpose(windows, kShuffledPixels, rows, count, turned, stride);
  copy_pixels(s, channels, begin, end, small, pixels);
  for (int64_t c = 0; c < rows; c += kPanel<A>)
    add_product(channels, kPanel<A>, count, Factor<A>{pixels, kShuffledPixels, 1}, turned + c, stride, sums + c,
                stride);
}

// Adds up the parts of some sums, `size` apart.
template <class T>
void add_parts(const Accum<T>* sums, int64_t parts, int64_t size, int64_t count, T* to) {
  using A = Accum<T>;
  for_each_vector<A>(count, [&](int64_t i, int, auto n) {
    Vec<A> sum(A(0));
    for (int64_t p = 0; p < parts; ++p) sum = sum + load_vector(sums + p * size + i);
    store_vector(to + i, sum, n);
  });
}

// The gradient of the weights: parts of the pixels of all images have sums of their own, added up in order.
template <class T, class Isa>
void product_of_windows(const ConvolutionShape& s, const T* small, const T* large, T* weight, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  constexpr int64_t kRows = 128;  // channels of the small map of a task
  const int64_t pixels = s.small_h * s.small_w, panels = ceil_div(pixels, kShuffledPixels), all = s.batch * panels;
  const int64_t width = s.large_channels * s.taps(), stride = padded<A>(width), size = s.small_channels * stride;
  const int64_t parts = parts_of_windows(s, all), blocks = ceil_div(s.small_channels, kRows);
  std::vector<A> sums(size_t(s.groups * parts * size));
  exec(s.groups * parts * blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<A> scratch, span;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t k = task / blocks, part = k % parts, channel = task % blocks * kRows;
      const int64_t rows = min_of(kRows, s.small_channels - channel), last = (part + 1) * all / parts - 1;
      A* const to = &sums[size_t(k * size + channel * stride)];
      span.assign(size_t(rows * stride), A(0));
      for (int64_t i = part * all / parts; i <= last; ++i) {
        const int64_t plane = i / panels * s.groups + k / parts, first = i % panels * kShuffledPixels;
        add_product_of_pixels(s, rows, first, min_of(first + kShuffledPixels, pixels),
                              small + (plane * s.small_channels + channel) * pixels,
                              large + plane * s.large_channels * s.large_h * s.large_w, scratch, span.data());
        if (i == last || i % (kSpan / kShuffledPixels) == 0) add_span(span, to);
      }
    }
  });
  exec(s.groups * s.small_channels, 1 + 65536 / (parts * width + 1), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t row = k / s.small_channels * parts * s.small_channels + k % s.small_channels;
      add_parts(&sums[size_t(row * stride)], parts, size, width, weight + k * width);
    }
  });
}

}  // namespace
}  // namespace fastvision
