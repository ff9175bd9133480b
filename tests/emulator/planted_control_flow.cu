// Small kernels whose threads go different ways: mistakes, and two that are right. See planted_memory.cu.
#include "harness.h"

using namespace fastvision;

namespace {

// Half of the block is at one barrier, half at another.
__global__ void two_barriers() {
  if (threadIdx.x < 32) __syncthreads();
  else __syncthreads();
}
void divergent_barrier() { run(two_barriers, 1, 64, 0); }

// Some threads wait at the barrier, some for lanes that wait at the barrier.
__global__ void barrier_or_shuffle(int* out) {
  if (threadIdx.x >= 96) return;
  if (threadIdx.x < 40) __syncthreads();
  else out[threadIdx.x] = __shfl_sync(kFullWarp, int(threadIdx.x), 0);
}
void deadlock() {
  Buffer<int> out(128);
  run(barrier_or_shuffle, 1, 128, 0, out.data());
}

// Half of the lanes shuffle, half only synchronise.
__global__ void shuffle_or_sync(int* out) {
  if (threadIdx.x % 2) out[threadIdx.x] = __shfl_sync(kFullWarp, int(threadIdx.x), 1);
  else __syncwarp();
}
void divergent_warp() {
  Buffer<int> out(32);
  run(shuffle_or_sync, 1, 32, 0, out.data());
}

// The upper lanes name themselves alone, the lower lanes name all.
__global__ void masks_that_differ(int* out) {
  out[threadIdx.x] = __shfl_sync(threadIdx.x < 16 ? 0xffffffffu : 0xffff0000u, int(threadIdx.x), 16);
  __syncwarp();
}
void different_masks() {
  Buffer<int> out(32);
  run(masks_that_differ, 1, 32, 0, out.data());
}

// The upper lanes are not in the mask that they pass.
__global__ void mask_of_others(int* out) { out[threadIdx.x] = __shfl_sync(0x0000ffffu, int(threadIdx.x), 1); }
void not_in_own_mask() {
  Buffer<int> out(32);
  run(mask_of_others, 1, 32, 0, out.data());
}

// Half a warp multiplies matrices.
__global__ void multiply_with_half_a_warp(float* out) {
  const uint32_t a[4] = {}, b[2] = {};
  float sum[4] = {};
  mma_m16n8k16<BFloat16>(sum, a, b, sum);
  out[threadIdx.x] = sum[0];
}
void partial_mma() {
  Buffer<float> out(16);
  run(multiply_with_half_a_warp, 1, 16, 0, out.data());
}

// A thread waits for a number that nobody changes.
__global__ void wait_for(unsigned* flag, unsigned setter) {
  if (threadIdx.x == 0) {
    while (atomicAdd(flag, 0u) == 0) {
    }
  } else if (threadIdx.x == setter) {
    atomicAdd(flag, 1u);
  }
}
void endless_spin() {
  Buffer<unsigned> flag(1);
  run(wait_for, 1, 64, 0, flag.data(), 1000);
}
// Control: for one that another thread changes.
void spin() {
  Buffer<unsigned> flag(1);
  run(wait_for, 1, 64, 0, flag.data(), 33);
}

// Control: with half of the warp gone, a full mask names the lanes that are left.
__global__ void vote_with_half_a_warp(unsigned* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __ballot_sync(kFullWarp, 1);
}
void half_warp() {
  Buffer<unsigned> out(16);
  run(vote_with_half_a_warp, 1, 32, 0, out.data());
  expect_all(out, [](int) { return 0xffff; });
}

}  // namespace

std::vector<Case> planted_control_flow_cases() {
  return {{"divergent_barrier", divergent_barrier},
          {"deadlock", deadlock},
          {"divergent_warp", divergent_warp},
          {"different_masks", different_masks},
          {"not_in_own_mask", not_in_own_mask},
          {"partial_mma", partial_mma},
          {"endless_spin", endless_spin},
          {"spin", spin},
          {"half_warp", half_warp}};
}
