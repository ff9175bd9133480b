// A product of two tiles of 64 rows in shared memory by a block of 256 threads: sum[i][j] += x[i][k] y[j][k].
#pragma once

#include "tensor_core.cuh"

namespace fastvision {

constexpr int kProductTile = 64;
template <class T>
constexpr int kProductDepth = sizeof(T) == 8 ? 16 : 32;

// Rows of the shared tiles are padded so that the 8 rows of a fragment lie in different banks.
template <class T>
constexpr int kProductRow = kProductDepth<T> + (sizeof(T) == 2 ? 8 : 4);

template <class T>
struct ProductStage {
  alignas(16) T x[kProductTile][kProductRow<T>], y[kProductTile][kProductRow<T>];
};

// What one warp or thread adds up, and where in the tile its results are. 16-bit types use tensor cores, as does float
// rounded to tf32.
template <class T>
struct TensorCoreTile {
  float sum[4][4] = {};  // 16 x 8 results each: rows warp % 4 * 16, columns warp / 4 * 32 + 8 k

  __device__ void add(const ProductStage<T>& stage) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row = warp % 4 * 16, column = warp / 4 * 32;
    if constexpr (sizeof(T) == 2) {
      FV_UNROLL
      for (int k = 0; k < kProductDepth<T>; k += 16) {
        uint32_t a[4];
        ldmatrix_x4(a, &stage.x[row + lane % 16][k + lane / 16 * 8]);
        FV_UNROLL
        for (int n = 0; n < 4; n += 2) {
          uint32_t b[4];  // matrices: columns 0..7 at k and k + 8, columns 8..15 at k and k + 8
          ldmatrix_x4(b, &stage.y[column + n * 8 + lane % 8 + lane / 16 * 8][k + lane / 8 % 2 * 8]);
          const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
          mma_m16n8k16<T>(sum[n], a, first, sum[n]);
          mma_m16n8k16<T>(sum[n + 1], a, second, sum[n + 1]);
        }
      }
    } else {
      const int group = lane / 4, member = lane % 4;
      FV_UNROLL
      for (int k = 0; k < kProductDepth<T>; k += 8) {
        uint32_t a[4];
        FV_UNROLL
        for (int i = 0; i < 4; ++i) a[i] = to_tf32(stage.x[row + group + i % 2 * 8][k + member + i / 2 * 4]);
        FV_UNROLL
        for (int n = 0; n < 4; ++n) {
          const uint32_t b[2] = {to_tf32(stage.y[column + n * 8 + group][k + member]),
                                 to_tf32(stage.y[column + n * 8 + group][k + member + 4])};
          mma_m16n8k8_tf32(sum[n], a, b, sum[n]);
        }
      }
    }
  }
  template <class F>
  __device__ void each(F&& f) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    FV_UNROLL
    for (int n = 0; n < 4; ++n) FV_UNROLL
    for (int i = 0; i < 4; ++i)
      f(warp % 4 * 16 + lane / 4 + i / 2 * 8, warp / 4 * 32 + n * 8 + lane % 4 * 2 + i % 2, sum[n][i]);
  }
};

template <class T>
struct PlainTile {
  Accum<T> sum[4][4] = {};  // rows threadIdx.x / 16 + 16 i, columns threadIdx.x % 16 + 16 j

  __device__ void add(const ProductStage<T>& stage) {
    for (int k = 0; k < kProductDepth<T>; ++k) {
      Accum<T> a[4], b[4];
      FV_UNROLL
      for (int i = 0; i < 4; ++i) {
        a[i] = to_accum(stage.x[threadIdx.x / 16 + 16 * i][k]);
        b[i] = to_accum(stage.y[threadIdx.x % 16 + 16 * i][k]);
      }
      FV_UNROLL
      for (int i = 0; i < 4; ++i) FV_UNROLL
      for (int j = 0; j < 4; ++j) sum[i][j] = multiply_add(a[i], b[j], sum[i][j]);
    }
  }
  template <class F>
  __device__ void each(F&& f) const {
    FV_UNROLL
    for (int i = 0; i < 4; ++i) FV_UNROLL
    for (int j = 0; j < 4; ++j) f(threadIdx.x / 16 + 16 * i, threadIdx.x % 16 + 16 * j, sum[i][j]);
  }
};

}  // namespace fastvision
