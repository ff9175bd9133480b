// A matrix product in registers, for kernels that make its factors piece by piece.
#pragma once

#include "simd.h"
#include "unrolled.h"

namespace fastvision {
namespace {

// Columns of the result that are computed together; the second factor comes in panels of as many.
template <class A>
constexpr int64_t kPanel = (kVectorBytes == 64 ? 4 : 2) * kLanes<A>;

// Rows that are computed together.
constexpr int kProductRows = 6;

// Where the first factor is: at[row * by_row + depth * by_depth].
template <class A>
struct Factor {
  const A* at;
  int64_t by_row, by_depth;
};

// For each k brings `next` + k * step to the cache. Written without loops over the sums: these would be stored before
// every prefetch.
template <int kRows, int kVectors, class A>
FV_HD void add_product_block(int64_t depth, Factor<A> a, const A* b, int64_t b_stride, A* sums, int64_t sums_stride,
                             const char* next, int64_t step) {
  Vec<A> sum[kRows][kVectors];
  unrolled<kRows>([&](auto r) FV_INLINE {
    unrolled<kVectors>([&](auto v) FV_INLINE { sum[r][v] = load_vector(sums + r * sums_stride + v * kLanes<A>); });
  });
  for (int64_t k = 0; k < depth; ++k) {
    __builtin_prefetch(next + k * step, 0, 2);
    Vec<A> y[kVectors];
    unrolled<kVectors>([&](auto v) FV_INLINE { y[v] = load_vector(b + k * b_stride + v * kLanes<A>); });
    unrolled<kRows>([&](auto r) FV_INLINE {
      const Vec<A> x(a.at[r * a.by_row + k * a.by_depth]);
      unrolled<kVectors>([&](auto v) FV_INLINE { sum[r][v] = multiply_add(x, y[v], sum[r][v]); });
    });
  }
  unrolled<kRows>([&](auto r) FV_INLINE {
    unrolled<kVectors>([&](auto v) FV_INLINE { store_vector(sums + r * sums_stride + v * kLanes<A>, sum[r][v]); });
  });
}

// sums[r][c] += sum over k < depth of a[r][k] * b[k][c], for one panel of b of which `columns` count. Whole vectors of
// the sums are read and written. Meanwhile `next`, the panel of b that is needed next, comes to the cache.
template <class A>
FV_HD void add_product(int64_t rows, int64_t columns, int64_t depth, Factor<A> a, const A* b, int64_t b_stride, A* sums,
                       int64_t sums_stride, const A* next = nullptr) {
  constexpr int kVectors = kPanel<A> / kLanes<A>;
  const bool whole = columns > (kVectors - 1) * kLanes<A>;
  const char* const to_fetch = reinterpret_cast<const char*>(next ? next : b);
  const int64_t blocks = max_of(rows / kProductRows, int64_t(1));
  const int64_t step = min_of(ceil_div(kPanel<A> * int64_t(sizeof(A)), blocks), int64_t(64));  // a block's share
  const auto row_block = [&](auto count, int64_t r) {
    const Factor<A> part{a.at + r * a.by_row, a.by_row, a.by_depth};
    A* const to = sums + r * sums_stride;
    const char* const fetch = to_fetch + r / kProductRows % blocks * step * depth;
    if (whole) return add_product_block<count(), kVectors>(depth, part, b, b_stride, to, sums_stride, fetch, step);
    int64_t c = 0;
    for (; c + kLanes<A> < columns; c += 2 * kLanes<A>)
      add_product_block<count(), 2>(depth, part, b + c, b_stride, to + c, sums_stride, fetch, step);
    if (c < columns) add_product_block<count(), 1>(depth, part, b + c, b_stride, to + c, sums_stride, fetch, step);
  };
  int64_t r = 0;
  for (; r + kProductRows <= rows; r += kProductRows) row_block(std::integral_constant<int, kProductRows>(), r);
  for (; r + 2 <= rows; r += 2) row_block(std::integral_constant<int, 2>(), r);
  if (r < rows) row_block(std::integral_constant<int, 1>(), r);
}

}  // namespace
}  // namespace fastvision
