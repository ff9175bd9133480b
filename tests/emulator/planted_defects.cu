// Small kernels, each with one mistake, and a few without. test_planted_defects.py says which build must find what.
#include <cmath>

#include "harness.h"

using namespace fastvision;

namespace {

constexpr int kSize = 256;

template <class T, class F>
void expect_all(Buffer<T>& out, F expected) {
  for (std::size_t i = 0; i < out.size(); ++i) expect_equal(out[i], T(expected(int(i))), "element", i);
}
int any(int) { return 0; }  // for results that do not matter

// ---- memory

// The last thread writes one element past the end.
__global__ void write_past_end(float* out, int n) {
  if (int(threadIdx.x) <= n) out[threadIdx.x] = 1.f;
}
void global_write() {
  Buffer<float> out(kSize);
  run(write_past_end, 1, kSize + 1, 0, out.data(), kSize);
}

// The last thread reads one element past the end.
__global__ void read_next(const float* in, float* out) { out[threadIdx.x] = in[threadIdx.x + 1]; }
void global_read() {
  Buffer<float> in(kSize), out(kSize);
  run(read_next, 1, kSize, 0, in.data(), out.data());
}

// The last thread writes one element past the end of a shared variable.
template <class T>
__global__ void write_past_shared(T* out) {
  FV_SHARED(values, T[kSize]);
  values[threadIdx.x + 1] = T(1);
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}
void shared_write() {
  Buffer<double> out(kSize);
  run(write_past_shared<double>, 1, kSize, 0, out.data());
}

// The last thread of a row writes into the next row.
__global__ void write_past_row(float* out) {
  FV_SHARED(values, float[8][32]);
  const int row = threadIdx.x / 32, col = threadIdx.x % 32;
  values[row][col + 1] = 1.f;
  __syncthreads();
  out[threadIdx.x] = values[row][col];
}
void shared_row_write() {
  Buffer<float> out(kSize);
  run(write_past_row, 1, kSize, 0, out.data());
}

// The last thread writes past the end of dynamic shared memory.
__global__ void write_past_dynamic(float* out) {
  FV_DYNAMIC_SHARED(float, values);
  values[threadIdx.x + 1] = 1.f;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}
void dynamic_shared_write() {
  Buffer<float> out(kSize);
  run(write_past_dynamic, 1, kSize, kSize * sizeof(float), out.data());
}

// A local array has one element too few.
__global__ void write_past_local(float* out, int n) {
  float values[4];
  for (int i = 0; i <= n; ++i) values[i] = float(i);
  out[threadIdx.x] = values[threadIdx.x % 4];
}
void local_write() {
  Buffer<float> out(kSize);
  run(write_past_local, 1, kSize, 0, out.data(), 4);
}

// A table in constant memory is read past its end.
__constant__ float kWeights[4] = {1, 2, 3, 4};
__global__ void read_past_constant(float* out, int n) { out[threadIdx.x] = kWeights[threadIdx.x % unsigned(n)]; }
void constant_read() {
  Buffer<float> out(kSize);
  run(read_past_constant, 1, kSize, 0, out.data(), 5);
}

// The last asynchronous copy reads past the end of its source.
__global__ void copy_all(const float* in, float* out) {
  FV_SHARED(values, float[kSize * 4]);
  cp_async<16>(&values[threadIdx.x * 4], in + threadIdx.x * 4);
  cp_async_wait_all();
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x * 4];
}
void copy_source() {
  Buffer<float> in(kSize * 4 - 3), out(kSize);
  run(copy_all, 1, kSize, 0, in.data(), out.data());
}

// Four floats are loaded at once from an address that is not aligned to 16 bytes.
__global__ void load_four(const float* in, float* out) {
  out[threadIdx.x] = load_pack<4>(in + 1 + threadIdx.x * 4).at[0];
}
void misaligned_load() {
  Buffer<float> in(kSize * 4 + 4), out(kSize);
  run(load_four, 1, kSize, 0, in.data(), out.data());
}

// A function has locals of 512 KiB.
__global__ void use_much_stack(float* out) {
  volatile float values[1 << 17];
  for (int i = 0; i < 1 << 17; i += 256) values[i] = float(i);
  out[threadIdx.x] = values[threadIdx.x * 256];
}
void stack_overflow() {
  Buffer<float> out(64);
  run(use_much_stack, 1, 64, 0, out.data());
}

// A product of two widths does not fit in an int.
__global__ void square(int* out, int width) { out[threadIdx.x] = width * width > 0; }
void integer_overflow() {
  Buffer<int> out(32);
  run(square, 1, 32, 0, out.data(), 50000);
}

// NaN is converted to an int.
__global__ void convert(const float* in, int* out) { out[threadIdx.x] = int(in[threadIdx.x]); }
void nan_to_integer() {
  Buffer<float> in(32, NAN);
  Buffer<int> out(32);
  run(convert, 1, 32, 0, in.data(), out.data());
  expect_all(out, any);
}

// The last element of a shared variable is never written.
__global__ void forget_last(float* out) {
  FV_SHARED(values, float[kSize]);
  if (threadIdx.x < kSize - 1) values[threadIdx.x] = 0.f;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}
void uninitialised_shared() {
  Buffer<float> out(kSize);
  run(forget_last, 1, kSize, 0, out.data());
  expect_all(out, any);
}

// A counter in shared memory is never set to zero.
__global__ void count_from_nothing(int* out) {
  FV_SHARED(count, int);
  atomicAdd(&count, 1);
  __syncthreads();
  out[threadIdx.x] = count;
}
void uninitialised_counter() {
  Buffer<int> out(kSize);
  run(count_from_nothing, 1, kSize, 0, out.data());
  expect_all(out, [](int) { return kSize; });
}

// ---- synchronisation

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
  expect_all(out, any);
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
  expect_all(out, any);
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
  expect_all(out, any);
}

// ---- control flow

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

#define CASE(name) {#name, name}
std::vector<Case> planted_cases() {
  return {CASE(global_write),
          CASE(global_read),
          CASE(shared_write),
          CASE(shared_row_write),
          CASE(dynamic_shared_write),
          CASE(local_write),
          CASE(constant_read),
          CASE(copy_source),
          CASE(misaligned_load),
          CASE(stack_overflow),
          CASE(integer_overflow),
          CASE(nan_to_integer),
          CASE(uninitialised_shared),
          CASE(uninitialised_counter),
          CASE(missing_barrier),
          CASE(missing_barrier_in_order),
          CASE(missing_barrier_in_loop),
          CASE(missing_syncwarp),
          CASE(shuffle_as_barrier),
          CASE(race_within_block),
          CASE(race_between_blocks),
          CASE(missing_fence_before),
          CASE(missing_fence_after),
          CASE(missing_wait),
          CASE(missing_commit),
          CASE(missing_barrier_after_wait),
          CASE(divergent_barrier),
          CASE(deadlock),
          CASE(divergent_warp),
          CASE(different_masks),
          CASE(not_in_own_mask),
          CASE(partial_mma),
          CASE(endless_spin),
          CASE(fences),
          CASE(spin),
          CASE(half_warp)};
}
