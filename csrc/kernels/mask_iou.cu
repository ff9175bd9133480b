// Packing reads each byte once, eight neighbouring pixels per thread and access where rows allow it. Pairs: a block
// takes 16 x 16 of them and a slice of the words, which it moves through shared memory 32 at a time, so that a mask is
// read once for 16 others; the slices of a pair meet in an integer atomic sum, which has one result in any order. Bound
// by counting bits: 16 words of 32 pixels per clock and multiprocessor.
#include "cuda.cuh"
#include "mask_iou.h"

namespace fastvision {
namespace {

constexpr int kTile = 16, kDepth = 32;
constexpr int64_t kEnoughBlocks = 1024;  // a few for each multiprocessor of the largest devices

__device__ __forceinline__ uint32_t packed_byte(const uint8_t* pixels, int count) {
  uint32_t byte = 0;
  for (int k = 0; k < count; ++k) byte |= uint32_t(pixels[k] != 0) << k;
  return byte;
}

// A thread makes one byte of the words.
__global__ void __launch_bounds__(kThreads)
    pack_kernel(MaskShape s, const uint8_t* __restrict__ masks, const int64_t* __restrict__ order,
                uint8_t* __restrict__ out, bool whole_rows) {
  const int64_t row_bytes = s.row_bytes(), used = s.height * row_bytes, padded = s.words() * 8;
  FV_FOR(i, s.batch * s.masks * padded) {
    const int64_t n = i / padded, k = i % padded;
    uint32_t byte = 0;
    if (k < used) {
      const uint8_t* mask = masks + (order ? n / s.masks * s.masks + order[n] : n) * s.height * s.width;
      if (!s.dense) {
        byte = mask[k];
      } else if (whole_rows) {  // eight bytes at once
        const auto pixels = load_pack<8>(mask + 8 * k);
        byte = packed_byte(pixels.at, 8);
      } else {
        const int64_t x = k % row_bytes * 8;
        byte = packed_byte(mask + k / row_bytes * s.width + x, int(min_of(s.width - x, int64_t(8))));
      }
    }
    out[i] = uint8_t(byte);
  }
}

// A warp takes a mask.
__global__ void __launch_bounds__(kThreads)
    area_kernel(int64_t masks, int64_t words, const uint64_t* __restrict__ packed, uint32_t* __restrict__ areas) {
  const int lane = threadIdx.x % 32;
  for (int64_t n = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32; n < masks;
       n += int64_t(gridDim.x) * kThreads / 32) {
    uint32_t count = 0;
    for (int64_t k = lane; k < words; k += 32) count += uint32_t(__popcll(packed[n * words + k]));
    count = __reduce_add_sync(kFullWarp, count);
    if (lane == 0) areas[n] = count;
  }
}

__global__ void __launch_bounds__(kTile* kTile)
    intersection_kernel(MaskPairs p, int64_t slices, int64_t slice_words, const uint64_t* __restrict__ a,
                        const uint64_t* __restrict__ b, uint32_t* __restrict__ counts) {
  // One word more per row, so that the 16 columns of a warp are in different banks.
  FV_SHARED(rows, uint64_t[kTile][kDepth + 1]);
  FV_SHARED(cols, uint64_t[kTile][kDepth + 1]);
  const int64_t down = ceil_div(p.rows, int64_t(kTile)), across = ceil_div(p.cols, int64_t(kTile));
  const int x = threadIdx.x % kTile, y = threadIdx.x / kTile;
  for (int64_t i = blockIdx.x; i < p.batch * down * across * slices; i += gridDim.x) {
    const int64_t slice = i % slices, tile = i / slices, n = tile / (down * across);
    const int64_t row = tile / across % down * kTile, col = tile % across * kTile;
    if (col >= row + kTile - 1 + p.diagonal) continue;
    const int64_t first = slice * slice_words, last = min_of(first + slice_words, p.words);
    uint32_t count = 0;
    for (int64_t k = first; k < last; k += kDepth) {
      __syncthreads();
      for (int j = threadIdx.x; j < kTile * kDepth; j += kTile * kTile) {
        const int64_t word = k + j % kDepth;
        const int line = j / kDepth;
        const bool in_a = word < last && row + line < p.rows, in_b = word < last && col + line < p.cols;
        rows[line][j % kDepth] = in_a ? a[(n * p.a_stride + row + line) * p.words + word] : 0;
        cols[line][j % kDepth] = in_b ? b[(n * p.b_stride + col + line) * p.words + word] : 0;
      }
      __syncthreads();
      for (int j = 0; j < kDepth; ++j) count += uint32_t(__popcll(rows[y][j] & cols[x][j]));
    }
    if (row + y < p.rows && col + x < p.cols) atomicAdd(&counts[(n * p.rows + row + y) * p.stride + col + x], count);
  }
}

__global__ void __launch_bounds__(kThreads)
    overlap_kernel(MaskPairs p, const uint32_t* __restrict__ areas_a, const uint32_t* __restrict__ areas_b,
                   const bool* __restrict__ crowd, float* counts) {
  FV_FOR(i, p.batch * p.rows * p.cols) {
    const int64_t r = i / p.cols, c = i % p.cols, other = r / p.rows * p.cols + c;
    float& value = counts[r * p.stride + c];
    value = mask_overlap(bit_cast<uint32_t>(value), areas_a[r], areas_b[other], crowd && crowd[other]);
  }
}

}  // namespace

void pack_masks(const MaskShape& s, const uint8_t* masks, const int64_t* order, uint64_t* words, uint32_t* areas,
                const CudaExec& exec) {
  const int64_t all = s.batch * s.masks, bytes = all * s.words() * 8;
  if (all == 0) return;
  if (bytes > 0)
    launch(exec, pack_kernel, grid_for(bytes), kThreads, 0, s, masks, order, reinterpret_cast<uint8_t*>(words),
           s.dense && s.width % 8 == 0 && is_aligned(masks, 8));
  launch(exec, area_kernel, grid_for(all * 32), kThreads, 0, all, s.words(), words, areas);
}

void count_intersections(const MaskPairs& p, const uint64_t* a, const uint64_t* b, uint32_t* counts,
                         const CudaExec& exec) {
  const int64_t tiles = p.batch * ceil_div(p.rows, int64_t(kTile)) * ceil_div(p.cols, int64_t(kTile));
  if (tiles == 0) return;
  fill_bytes(exec, counts, 0, size_t(((p.batch * p.rows - 1) * p.stride + p.cols) * 4));
  if (p.words == 0) return;
  // Slices of whole steps, as many as make enough blocks.
  const int64_t steps = ceil_div(p.words, int64_t(kDepth));
  const int64_t slice_words = ceil_div(steps, min_of(steps, ceil_div(kEnoughBlocks, tiles))) * kDepth;
  const int64_t slices = ceil_div(p.words, slice_words);
  launch(exec, intersection_kernel, grid_for(tiles * slices, 1), kTile * kTile, 0, p, slices, slice_words, a, b,
         counts);
}

void mask_overlaps(const MaskPairs& p, const uint32_t* areas_a, const uint32_t* areas_b, const bool* crowd,
                   float* counts, const CudaExec& exec) {
  const int64_t pairs = p.batch * p.rows * p.cols;
  if (pairs > 0) launch(exec, overlap_kernel, grid_for(pairs), kThreads, 0, p, areas_a, areas_b, crowd, counts);
}

}  // namespace fastvision
