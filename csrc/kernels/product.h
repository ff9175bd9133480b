// A matrix product in registers, for kernels that make its factors piece by piece.
#pragma once

#include "simd.h"

namespace fastvision {
namespace {

// Columns of the result that are computed together; the second factor comes in panels of as many.
template <class A>
constexpr int64_t kPanel = (kVectorBytes == 64 ? 4 : 2) * Vec<A>::kLanes;

// Rows that are computed together.
constexpr int kProductRows = 6;

// Where the first factor is: at[row * by_row + depth * by_depth].
template <class A>
struct Factor {
  const A* at;
  int64_t by_row, by_depth;
};

template <int kRows, int kVectors, class A>
FV_HD void add_product_block(int64_t depth, Factor<A> a, const A* b, int64_t b_stride, A* sums, int64_t sums_stride) {
  constexpr int64_t kLanes = Vec<A>::kLanes;
  Vec<A> sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) sum[r][v] = load_vector(sums + r * sums_stride + v * kLanes);
  for (int64_t k = 0; k < depth; ++k) {
    Vec<A> y[kVectors];
    for (int v = 0; v < kVectors; ++v) y[v] = load_vector(b + k * b_stride + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Vec<A> x(a.at[r * a.by_row + k * a.by_depth]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] = multiply_add(x, y[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) store_vector(sums + r * sums_stride + v * kLanes, sum[r][v]);
}

// sums[r][c] += sum over k < depth of a[r][k] * b[k][c], for one panel of b of which `columns` count. Whole vectors of
// the sums are read and written.
template <class A>
FV_HD void add_product(int64_t rows, int64_t columns, int64_t depth, Factor<A> a, const A* b, int64_t b_stride, A* sums,
                       int64_t sums_stride) {
  constexpr int64_t kLanes = Vec<A>::kLanes;
  constexpr int kVectors = kPanel<A> / kLanes;
  const bool whole = columns > (kVectors - 1) * kLanes;
  const auto row_block = [&](auto count, int64_t r) {
    const Factor<A> part{a.at + r * a.by_row, a.by_row, a.by_depth};
    A* const to = sums + r * sums_stride;
    if (whole) return add_product_block<count(), kVectors>(depth, part, b, b_stride, to, sums_stride);
    int64_t c = 0;
    for (; c + kLanes < columns; c += 2 * kLanes)
      add_product_block<count(), 2>(depth, part, b + c, b_stride, to + c, sums_stride);
    if (c < columns) add_product_block<count(), 1>(depth, part, b + c, b_stride, to + c, sums_stride);
  };
  int64_t r = 0;
  for (; r + kProductRows <= rows; r += kProductRows) row_block(std::integral_constant<int, kProductRows>(), r);
  for (; r + 2 <= rows; r += 2) row_block(std::integral_constant<int, 2>(), r);
  if (r < rows) row_block(std::integral_constant<int, 1>(), r);
}

}  // namespace
}  // namespace fastvision
