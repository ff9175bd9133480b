// A product of two tiles in shared memory by a block of 256 threads: sum[i][j] += x[i][k] y[j][k].
#pragma once

#include "tensor_core.cuh"

namespace fastvision {

constexpr int kProductTile = 64;
template <class T>
constexpr int kProductDepth = sizeof(T) == 8 ? 16 : 32;

// A factor as it lies in memory: by row, or by depth with neighbouring rows side by side. Lines are padded so that the
// 8 of a fragment lie in different banks.
template <class T, int kRows, bool kByDepth>
struct ProductFactor {
  static constexpr int kLine = kByDepth ? kRows + 8 : kProductDepth<T> + (sizeof(T) == 2 ? 8 : 4);
  alignas(16) T at[kByDepth ? kProductDepth<T> : kRows][kLine];

  __device__ T& operator()(int row, int k) { return kByDepth ? at[k][row] : at[row][k]; }
  __device__ const T& operator()(int row, int k) const { return kByDepth ? at[k][row] : at[row][k]; }

  // Matrices of 8 x 8 for mma_m16n8k16. Lane 8 m + i passes where matrix m is: at row + 8 * down, k + 8 * across.
  __device__ void load(uint32_t (&fragment)[4], int row, int k, int down, int across) const {
    const int line = threadIdx.x % 8;
    if constexpr (kByDepth) ldmatrix_x4_trans(fragment, &at[k + across * 8 + line][row + down * 8]);
    else ldmatrix_x4(fragment, &at[row + down * 8 + line][k + across * 8]);
  }
};

template <class T, int kRows = kProductTile, bool kXByDepth = false, bool kYByDepth = false>
struct ProductStage {
  ProductFactor<T, kRows, kXByDepth> x;
  ProductFactor<T, kProductTile, kYByDepth> y;
};

// Calls f with every k < kCount that is this thread's.
template <int kCount, class F>
__device__ __forceinline__ void for_threads(F&& f) {
  static_assert(kCount % kThreads == 0);
  FV_UNROLL
  for (int k = 0; k < kCount; k += kThreads) f(k + int(threadIdx.x));
}

// One element of a factor, or zero; for where cp.async cannot copy 16 bytes.
template <class T>
__device__ __forceinline__ void copy_element(T& to, const T* from, bool counts) {
  if constexpr (sizeof(T) >= 4) cp_async<sizeof(T)>(&to, from, counts ? sizeof(T) : 0);
  else to = counts ? *from : T{};
}

// What one warp or thread adds up, and where in the tile its results are. 16-bit types use tensor cores, as does float
// rounded to tf32.
template <class T, int kTileRows = kProductTile>
struct TensorCoreTile {
  static constexpr int kRows = kTileRows, kBands = kRows / 64;
  float sum[kBands][4][4] = {};  // 16 x 8 results each: rows 64 band + warp % 4 * 16, columns warp / 4 * 32 + 8 k

  template <class Stage>
  __device__ void add(const Stage& stage) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row = warp % 4 * 16, column = warp / 4 * 32;
    if constexpr (sizeof(T) == 2) {
      FV_UNROLL
      for (int k = 0; k < kProductDepth<T>; k += 16) {
        uint32_t b[2][4];  // matrices: columns 0..7 at k and k + 8, columns 8..15 at k and k + 8
        FV_UNROLL
        for (int n = 0; n < 2; ++n) stage.y.load(b[n], column + n * 16, k, lane / 16, lane / 8 % 2);
        FV_UNROLL
        for (int band = 0; band < kBands; ++band) {
          uint32_t a[4];
          stage.x.load(a, band * 64 + row, k, lane / 8 % 2, lane / 16);
          FV_UNROLL
          for (int n = 0; n < 4; ++n) {
            const uint32_t columns[2] = {b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]};
            mma_m16n8k16<T>(sum[band][n], a, columns, sum[band][n]);
          }
        }
      }
    } else {
      const int group = lane / 4, member = lane % 4;
      FV_UNROLL
      for (int k = 0; k < kProductDepth<T>; k += 8) {
        uint32_t b[4][2];
        FV_UNROLL
        for (int n = 0; n < 4; ++n) FV_UNROLL
        for (int i = 0; i < 2; ++i) b[n][i] = to_tf32(stage.y(column + n * 8 + group, k + member + i * 4));
        FV_UNROLL
        for (int band = 0; band < kBands; ++band) {
          uint32_t a[4];
          FV_UNROLL
          for (int i = 0; i < 4; ++i)
            a[i] = to_tf32(stage.x(band * 64 + row + group + i % 2 * 8, k + member + i / 2 * 4));
          FV_UNROLL
          for (int n = 0; n < 4; ++n) mma_m16n8k8_tf32(sum[band][n], a, b[n], sum[band][n]);
        }
      }
    }
  }
  template <class F>
  __device__ void each(F&& f) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    FV_UNROLL
    for (int band = 0; band < kBands; ++band) FV_UNROLL
    for (int n = 0; n < 4; ++n) FV_UNROLL
    for (int i = 0; i < 4; ++i)
      f(band * 64 + warp % 4 * 16 + lane / 4 + i / 2 * 8, warp / 4 * 32 + n * 8 + lane % 4 * 2 + i % 2,
        sum[band][n][i]);
  }
};

template <class T>
struct PlainTile {
  static constexpr int kRows = kProductTile;
  Accum<T> sum[4][4] = {};  // rows threadIdx.x / 16 + 16 i, columns threadIdx.x % 16 + 16 j

  template <class Stage>
  __device__ void add(const Stage& stage) {
    for (int k = 0; k < kProductDepth<T>; ++k) {
      Accum<T> a[4], b[4];
      FV_UNROLL
      for (int i = 0; i < 4; ++i) {
        a[i] = to_accum(stage.x(threadIdx.x / 16 + 16 * i, k));
        b[i] = to_accum(stage.y(threadIdx.x % 16 + 16 * i, k));
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

// Adds up `steps` products. load(stage), called that many times, starts to fill a stage or fills it; it may use
// cp_async and need not wait. All stages but one are under way at a time. Called by a whole block; on return the stages
// are free.
template <int kStages, class Tile, class Stage, class F>
__device__ void add_products(Tile& tile, Stage* stages, int64_t steps, F&& load) {
  for (int64_t step = 1 - kStages; step < steps; ++step) {
    if (step >= 0) {
      cp_async_wait<kStages - 2>();
      __syncthreads();  // the stage is full, and that of the step before is free
    }
    if (step + kStages - 1 < steps) load(stages[(step + kStages - 1) % kStages]);
    cp_async_commit();
    if (step >= 0) tile.add(stages[step % kStages]);
  }
  __syncthreads();
}

}  // namespace fastvision
