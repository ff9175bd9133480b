// Small kernels, each with one mistake in synchronisation, and one without. See planted_memory.cu.
#include "harness.h"

using namespace fastvision;

namespace {

constexpr int kSize = 256;

// No barrier between writing a shared variable and reading what another thread wrote.
__global__ void mirror_unsynchronised(const int* in, int* out) {
  FV_SHARED(values, int[kSize]);
  values[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = values[kSize - 1 - threadIdx.x];
}
void missing_barrier() {
  Buffer<int> in(kSize, 7), out(kSize);
  run(mirror_unsynchronised, 1, kSize, 0, in.data(), out.data());
  expect_all(out, [](int) { return 7; });
}

// The same, but each thread reads what a thread of lower index wrote: right as long as they run in order.
__global__ void shift_unsynchronised(const int* in, int* out) {
  FV_SHARED(values, int[kSize]);
  values[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = values[threadIdx.x ? threadIdx.x - 1 : 0];
}
void missing_barrier_in_order() {
  Buffer<int> in(kSize, 7), out(kSize);
  run(shift_unsynchronised, 1, kSize, 0, in.data(), out.data());
  expect_all(out, [](int) { return 7; });
}

// No barrier between reading a shared variable and overwriting it in the next round.
__global__ void overwrite_unsynchronised(int* out) {
  FV_SHARED(values, int[kSize]);
  for (int k = 0; k < 4; ++k) {
    values[threadIdx.x] = k * 1000 + int(threadIdx.x);
    __syncthreads();
    out[k * kSize + int(threadIdx.x)] = values[(threadIdx.x + 1) % kSize];
  }
}
void missing_barrier_in_loop() {
  Buffer<int> out(kSize * 4);
  run(overwrite_unsynchronised, 1, kSize, 0, out.data());
  expect_all(out, [](int i) { return i / kSize * 1000 + (i + 1) % kSize; });
}

// No __syncwarp between writing and reading within a warp.
__global__ void exchange_unsynchronised(int* out) {
  FV_SHARED(values, int[32]);
  const int lane = int(threadIdx.x);
  values[lane] = lane;
  __syncwarp();
  const int other = values[lane ^ 16];
  __syncwarp();
  values[lane] = other + 1;
  out[lane] = values[lane ^ 1];
}
void missing_syncwarp() {
  Buffer<int> out(32);
  run(exchange_unsynchronised, 1, 32, 0, out.data());
  expect_all(out, [](int i) { return (i ^ 17) + 1; });
}

// A shuffle makes the lanes meet but does not order their memory accesses.
__global__ void shuffle_for_barrier(int* out) {
  FV_SHARED(values, int[32]);
  const int lane = int(threadIdx.x);
  values[lane] = lane;
  __shfl_sync(kFullWarp, lane, 0);
  out[lane] = values[lane ^ 1];
}
void shuffle_as_barrier() {
  Buffer<int> out(32);
  run(shuffle_for_barrier, 1, 32, 0, out.data());
  expect_all(out, [](int i) { return i ^ 1; });
}

// All threads of a block add to one number without an atomic.
__global__ void add_plainly(int* out) { *out += 1; }
void race_within_block() {
  Buffer<int> out(1);
  run(add_plainly, 1, 64, 0, out.data());
  expect_all(out, [](int) { return 64; });
}

// One thread of each block adds to one number without an atomic.
__global__ void add_plainly_per_block(int* out) {
  if (threadIdx.x == 0) *out += 1;
}
void race_between_blocks() {
  Buffer<int> out(1);
  run(add_plainly_per_block, 4, 64, 0, out.data());
  expect_all(out, [](int) { return 4; });
}

// A block signals by an atomic that its result is there, another reads it; fences as asked for.
__global__ void signal(int* data, unsigned* flag, int* out, bool fence_before, bool fence_after) {
  if (threadIdx.x > 0) return;
  if (blockIdx.x == 0) {
    *data = 42;
    if (fence_before) __threadfence();
    atomicAdd(flag, 1u);
  } else if (atomicAdd(flag, 0u) > 0) {
    if (fence_after) __threadfence();
    *out = *data;
  }
}
void signal_with(bool fence_before, bool fence_after) {
  Buffer<int> data(1), out(1, 42);
  Buffer<unsigned> flag(1);
  run(signal, 2, 64, 0, data.data(), flag.data(), out.data(), fence_before, fence_after);
  expect_all(out, [](int) { return 42; });
}
// No fence before the signal.
void missing_fence_before() { signal_with(false, true); }
// No fence after it.
void missing_fence_after() { signal_with(true, false); }
// Control: both fences.
void fences() { signal_with(true, true); }

// The copy is committed but never waited for.
__global__ void copy_without_wait(const float* in, float* out) {
  FV_SHARED(values, float[kSize * 4]);
  cp_async<16>(&values[threadIdx.x * 4], in + threadIdx.x * 4);
  cp_async_commit();
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x * 4];
}
void missing_wait() {
  Buffer<float> in(kSize * 4), out(kSize);
  run(copy_without_wait, 1, kSize, 0, in.data(), out.data());
  expect_all(out, [](int) { return 0; });
}

// The wait allows the latest group to be pending, but the copies were never made a group of their own.
__global__ void copy_without_commit(const float* in, float* out) {
  FV_SHARED(values, float[2][kSize * 4]);
  cp_async<16>(&values[0][threadIdx.x * 4], in + threadIdx.x * 4);
  cp_async<16>(&values[1][threadIdx.x * 4], in + threadIdx.x * 4);
  cp_async_commit();
  cp_async_wait<1>();
  __syncthreads();
  out[threadIdx.x] = values[0][threadIdx.x * 4];
}
void missing_commit() {
  Buffer<float> in(kSize * 4), out(kSize);
  run(copy_without_commit, 1, kSize, 0, in.data(), out.data());
  expect_all(out, [](int) { return 0; });
}

// The copy is waited for, but another thread's copy is read without a barrier.
__global__ void copy_without_barrier(const float* in, float* out) {
  FV_SHARED(values, float[kSize * 4]);
  cp_async<16>(&values[threadIdx.x * 4], in + threadIdx.x * 4);
  cp_async_wait_all();
  out[threadIdx.x] = values[(threadIdx.x ^ 1) * 4];
}
void missing_barrier_after_wait() {
  Buffer<float> in(kSize * 4), out(kSize);
  run(copy_without_barrier, 1, kSize, 0, in.data(), out.data());
  expect_all(out, [](int) { return 0; });
}

}  // namespace

std::vector<Case> planted_synchronisation_cases() {
  return {{"missing_barrier", missing_barrier},
          {"missing_barrier_in_order", missing_barrier_in_order},
          {"missing_barrier_in_loop", missing_barrier_in_loop},
          {"missing_syncwarp", missing_syncwarp},
          {"shuffle_as_barrier", shuffle_as_barrier},
          {"race_within_block", race_within_block},
          {"race_between_blocks", race_between_blocks},
          {"missing_fence_before", missing_fence_before},
          {"missing_fence_after", missing_fence_after},
          {"fences", fences},
          {"missing_wait", missing_wait},
          {"missing_commit", missing_commit},
          {"missing_barrier_after_wait", missing_barrier_after_wait}};
}
