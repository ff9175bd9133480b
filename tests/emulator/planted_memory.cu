// Small kernels, each with one mistake in memory. test_planted_defects.py says which build must find what.
#include <cmath>

#include "harness.h"

using namespace fastvision;

namespace {

constexpr int kSize = 256;

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
  expect_all(out, [](int) { return 0; });
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
  expect_all(out, [](int) { return 0; });
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

}  // namespace

std::vector<Case> planted_memory_cases() {
  return {{"global_write", global_write},
          {"global_read", global_read},
          {"shared_write", shared_write},
          {"shared_row_write", shared_row_write},
          {"dynamic_shared_write", dynamic_shared_write},
          {"local_write", local_write},
          {"constant_read", constant_read},
          {"copy_source", copy_source},
          {"misaligned_load", misaligned_load},
          {"stack_overflow", stack_overflow},
          {"integer_overflow", integer_overflow},
          {"nan_to_integer", nan_to_integer},
          {"uninitialised_shared", uninitialised_shared},
          {"uninitialised_counter", uninitialised_counter}};
}
