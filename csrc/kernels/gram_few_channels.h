// CPU: Gram matrices of few channels, summed from where they lie.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "gram_matrix.h"
#include "simd.h"
#include "unrolled.h"

namespace fastvision {
namespace {

bool has_few_channels(const GramShape& s) { return max_of(s.rows, s.columns) <= 32; }

// Products of few channels, in NCHW: rows of pixels, 4 by 4 of them at a time with their sums in registers.
constexpr int64_t kFewPixels = 1024;
constexpr int64_t kFewStride = kFewPixels + 16;  // rows at powers of two drive each other from the cache

template <int kRows, int kColumns, class A>
void add_dot_products(const A* x, int64_t x_stride, const A* y, int64_t y_stride, int64_t pixels, A* sums,
                      int64_t stride) {
  Vec<A> sum[kRows][kColumns];
  unrolled<kRows>([&](auto r) FV_INLINE { unrolled<kColumns>([&](auto c) FV_INLINE { sum[r][c] = Vec<A>(A(0)); }); });
  for_each_vector<A>(pixels, [&](int64_t i, int, auto n) FV_INLINE {
    Vec<A> of_y[kColumns];
    unrolled<kColumns>([&](auto c) FV_INLINE { of_y[c] = load_vector(y + c * y_stride + i, n); });
    unrolled<kRows>([&](auto r) FV_INLINE {
      const Vec<A> of_x = load_vector(x + r * x_stride + i, n);
      unrolled<kColumns>([&](auto c) FV_INLINE { sum[r][c] = multiply_add(of_x, of_y[c], sum[r][c]); });
    });
  });
  unrolled<kRows>([&](auto r) FV_INLINE {
    unrolled<kColumns>([&](auto c) FV_INLINE { sums[r * stride + c] += sum_of(sum[r][c]); });
  });
}

template <class A>
void add_rows(const GramShape& s, const A* x, const A* y, int64_t row_stride, int64_t pixels, A* sums) {
  for (int64_t r = 0; r < s.rows; r += 4)
    for (int64_t c = s.symmetric ? r : 0; c < s.columns; c += 4)
      with_constant(s.rows - r, [&](auto rows) {
        with_constant(s.columns - c, [&](auto columns) {
          add_dot_products<rows(), columns()>(x + r * row_stride, row_stride, y + c * row_stride, row_stride, pixels,
                                              sums + r * s.columns + c, s.columns);
        });
      });
}

// The same in channels_last: the channels of a pixel by those of y, kRows of them with their sums in registers. Vectors
// may reach into the next pixels.
template <int kRows, class A>
void add_outer_products(const A* x, int64_t x_stride, const A* y, int64_t y_stride, int64_t pixels, int64_t columns,
                        A* sums, int64_t stride) {
  constexpr int kChains = kRows < 8 ? 2 : 1;  // of sums that wait for each other
  Vec<A> sum[kChains][kRows];
  unrolled<kChains>([&](auto k) FV_INLINE { unrolled<kRows>([&](auto r) FV_INLINE { sum[k][r] = Vec<A>(A(0)); }); });
  const auto add = [&](int64_t p, auto chain, auto n) FV_INLINE {
    const Vec<A> of_y = load_vector(y + p * y_stride, n);
    unrolled<kRows>([&](auto r)
                        FV_INLINE { sum[chain][r] = multiply_add(Vec<A>(x[p * x_stride + r]), of_y, sum[chain][r]); });
  };
  constexpr std::integral_constant<int64_t, kLanes<A>> whole;
  const int64_t inside = max_of(pixels - ceil_div(whole(), y_stride), int64_t(0)) / kChains * kChains;
  for (int64_t p = 0; p < inside; p += kChains) unrolled<kChains>([&](auto k) FV_INLINE { add(p + k, k, whole); });
  for (int64_t p = inside; p < pixels; ++p) add(p, std::integral_constant<int, 0>(), columns);
  unrolled<kRows>([&](auto r) FV_INLINE {
    Vec<A> all = sum[0][r];
    if constexpr (kChains > 1) all = all + sum[1][r];
    store_vector(sums + r * stride, load_vector(sums + r * stride, columns) + all, columns);
  });
}

template <class A>
void add_pixels(const GramShape& s, const A* x, const A* y, int64_t pixels, A* sums) {
  for (int64_t c = 0; c < s.columns; c += kLanes<A>) {
    const auto block = [&](auto rows, int64_t r) {
      add_outer_products<rows()>(x + r, s.rows, y + c, s.columns, pixels, min_of(s.columns - c, kLanes<A>),
                                 sums + r * s.columns + c, s.columns);
    };
    // The same blocks with one input as with two, so that their sums have the same bits.
    const int64_t last = s.symmetric ? c + kLanes<A> : s.rows;
    int64_t r = 0;
    if constexpr (kVectorBytes == 64)
      for (; r < last && r + 16 <= s.rows; r += 16) block(std::integral_constant<int, 16>(), r);
    for (; r < last && r + 8 <= s.rows; r += 8) block(std::integral_constant<int, 8>(), r);
    for (; r < last && r < s.rows; r += 4) with_constant(s.rows - r, [&](auto rows) { block(rows, r); });
  }
}

// All products of an image over one part of the pixels.
template <class T>
void sum_few(const GramShape& s, int64_t part, const T* x, const T* y, std::vector<Accum<T>>& scratch,
             Accum<T>* partial) {
  using A = Accum<T>;
  constexpr bool kInPlace = std::is_same_v<T, A>;
  if (!kInPlace) scratch.resize(size_t((s.rows + s.columns) * kFewStride));
  std::fill_n(partial, s.rows * s.columns, A(0));
  const int64_t first = part * s.pixels_per_part(), end = min_of(first + s.pixels_per_part(), s.pixels);
  for (int64_t p = first; p < end; p += kFewPixels) {
    const int64_t pixels = min_of(kFewPixels, end - p);
    const auto at = [&](const T* features, int64_t channels, int64_t offset) {
      const T* const from = features + p * (s.channels_last ? channels : 1);
      if constexpr (kInPlace) return from;
      A* const to = scratch.data() + offset;
      if (s.channels_last) copy_numbers(from, pixels * channels, to);
      else
        for (int64_t c = 0; c < channels; ++c) copy_numbers(from + c * s.pixels, pixels, to + c * kFewStride);
      return static_cast<const A*>(to);
    };
    const A* const of_x = at(x, s.rows, 0);
    const A* const of_y = s.symmetric ? of_x : at(y, s.columns, s.rows * kFewStride);
    if (s.channels_last) add_pixels(s, of_x, of_y, pixels, partial);
    else add_rows(s, of_x, of_y, kInPlace ? s.pixels : kFewStride, pixels, partial);
  }
}

}  // namespace
}  // namespace fastvision
