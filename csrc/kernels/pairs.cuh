// A value for all pairs of two sets.
#pragma once

#include "cuda.cuh"

namespace fastvision {

constexpr int kPairsPerThread = 4;  // of one row or two, stored at once

// out[row][column] = value(row, column of all batches). Shape: as BoxIouShape.
template <class Shape, class T, class F>
__device__ void store_pairs(const Shape& s, T* __restrict__ out, F&& value) {
  const int64_t total = s.out_size();
  FV_FOR(thread, ceil_div(total, int64_t(kPairsPerThread))) {
    const int64_t i = thread * kPairsPerThread;
    Pack<T, kPairsPerThread> values;
    int64_t row = i / s.cols, col = i - row * s.cols;
    FV_UNROLL
    for (int k = 0; k < kPairsPerThread; ++k) {
      if (i + k >= total) break;
      values.at[k] = value(row, row / s.rows * s.cols + col);
      if (++col == s.cols) col = 0, ++row;
    }
    if (i + kPairsPerThread <= total) {
      store_pack(out + i, values);
    } else {
      FV_UNROLL
      for (int k = 0; k < kPairsPerThread; ++k)
        if (i + k < total) out[i + k] = values.at[k];
    }
  }
}
template <class Shape>
unsigned int grid_for_pairs(const Shape& s) {
  return grid_for(ceil_div(s.out_size(), int64_t(kPairsPerThread)));
}

}  // namespace fastvision
