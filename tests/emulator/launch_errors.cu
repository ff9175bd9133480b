// Mistakes that a GPU would answer with an error code, silence or a hang: here an exception that says what and where.
// After each the emulator must work as before.
#include "harness.h"

using fastvision::kFullWarp;

namespace {

__global__ void store_index(int* out) { out[threadIdx.x] = int(threadIdx.x); }
__global__ void use_dynamic(int* out) {
  FV_DYNAMIC_SHARED(int, values);
  values[threadIdx.x] = 1;
  out[threadIdx.x] = values[threadIdx.x];
}
__global__ void use_much_static(float* out) {
  FV_SHARED(values, float[13000]);
  values[threadIdx.x] = 0;
  out[threadIdx.x] = values[threadIdx.x];
}
__global__ void copy_misaligned(const float* in, float* out) {
  FV_SHARED(values, float[8]);
  fastvision::cp_async<16>(values, in + 1);
  fastvision::cp_async_wait_all();
  out[0] = values[0];
}
__global__ void copy_to_global(const float* in, float* out) {
  fastvision::cp_async<16>(out, in);
  fastvision::cp_async_wait_all();
}
__global__ void copy_past_variable(const float* in, float* out) {
  FV_SHARED(values, float[8]);
  fastvision::cp_async<16>(&values[threadIdx.x * 4], in);
  fastvision::cp_async_wait_all();
  out[threadIdx.x] = values[threadIdx.x * 4];
}
__global__ void copy_too_many(const float* in, float* out) {
  FV_SHARED(values, float[8]);
  fastvision::cp_async<8>(values, in, 9);
  fastvision::cp_async_wait_all();
  out[0] = values[0];
}
__global__ void load_from_global(const float* in, float* out) {
  uint32_t fragment[4];
  fastvision::ldmatrix_x4(fragment, in);
  out[threadIdx.x] = float(fragment[0]);
}
__global__ void add_misaligned(char* out) { atomicAdd(reinterpret_cast<int*>(out + 1), 1); }
__global__ void stop() { __trap(); }

// The call must fail with a text that holds `expected`.
template <class F>
void expect_error(const std::string& expected, F call) {
  std::string got = "no error";
  try {
    call();
  } catch (const fastvision::emulator::Error& error) {
    got = error.what();
  }
  if (got.find(expected) == std::string::npos) throw WrongResult("expected '" + expected + "', got: " + got);
  Buffer<int> out(64);
  run(store_index, 1, 64, 0, out.data());
  for (int i = 0; i < 64; ++i) expect_equal(out[i], i, "after an error, thread", i);
}

void bad_sizes() {
  Buffer<int> out(64);
  const auto launch = [&](dim3 grid, dim3 block, std::size_t shared_bytes = 0) {
    fastvision::launch({}, store_index, grid, block, shared_bytes, out.data());
  };
  expect_error("invalid launch at launch_errors.cu:", [&] { launch(1, 2048); });
  expect_error("block of 2048 threads", [&] { launch(1, 2048); });
  expect_error("block of 0 threads", [&] { launch(1, 0); });
  expect_error("block of 65 threads", [&] { launch(1, dim3(1, 1, 65)); });
  expect_error("grid (0,1,1)", [&] { launch(0, 64); });
  expect_error("grid (1,65536,1)", [&] { launch(dim3(1, 65536), 64); });
  expect_error("dynamic shared memory of 200000 bytes", [&] { launch(1, 64, 200000); });
}

void shared_memory_limits() {
  Buffer<int> out(64);
  Buffer<float> real(64);
  expect_error("launched with none [launch_errors.cu:", [&] { run(use_dynamic, 1, 64, 0, out.data()); });
  expect_error("more than 48 KiB of static shared memory: 52000 bytes with values [launch_errors.cu:",
               [&] { run(use_much_static, 1, 64, 0, real.data()); });
}

void bad_addresses() {
  Buffer<float> in(64), out(64);
  Buffer<char> bytes(16);
  expect_error("cp.async source: address not aligned to 16 bytes [launch_errors.cu:",
               [&] { run(copy_misaligned, 1, 1, 0, in.data(), out.data()); });
  expect_error("cp.async destination: address is not in shared memory",
               [&] { run(copy_to_global, 1, 1, 0, in.data(), out.data()); });
  expect_error("cp.async destination: address is not in shared memory",
               [&] { run(copy_past_variable, 1, 3, 0, in.data(), out.data()); });
  expect_error("expected 0 to 8 source bytes, got 9", [&] { run(copy_too_many, 1, 1, 0, in.data(), out.data()); });
  expect_error("ldmatrix row: address is not in shared memory",
               [&] { run(load_from_global, 1, 32, 0, in.data(), out.data()); });
  expect_error("atomic: the address is not aligned to its type [launch_errors.cu:",
               [&] { run(add_misaligned, 1, 1, 0, bytes.data()); });
}

void trap() {
  expect_error("__trap()", [] { run(stop, 1, 1, 0); });
  expect_error("block (0,0,0) thread (0,0,0)]", [] { run(stop, 1, 1, 0); });
}

}  // namespace

std::vector<Case> launch_cases() {
  return {{"bad_sizes", bad_sizes},
          {"shared_memory_limits", shared_memory_limits},
          {"bad_addresses", bad_addresses},
          {"trap", trap}};
}
