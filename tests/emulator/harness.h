// What the tests of the emulator share. The cases in threads.cu, memory.cu and fragments.cu also run on a GPU, which
// shows that the emulator and the PTX wrappers agree with it: see csrc/emulator/README.md.
#pragma once

#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "tensor_core.cuh"

struct Case {
  const char* name;
  void (*run)();
};
std::vector<Case> thread_cases();
std::vector<Case> memory_cases();
std::vector<Case> fragment_cases();
std::vector<Case> launch_cases();
std::vector<Case> planted_memory_cases();
std::vector<Case> planted_synchronisation_cases();
std::vector<Case> planted_control_flow_cases();

struct WrongResult : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class A, class B, class... Parts>
void expect_equal(const A& actual, const B& expected, const Parts&... what) {
  if (actual == expected) return;
  std::ostringstream text;
  ((text << what << ' '), ...);
  text << "is " << actual << ", expected " << expected;
  throw WrongResult(text.str());
}

// Memory of exactly this size that kernels and tests both reach.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t size, T value = T{}) : size_(size), data_(allocate(size)) {
    for (std::size_t i = 0; i < size; ++i) data_[i] = value;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { release(data_); }
  T& operator[](std::size_t i) { return data_[i]; }
  T* data() { return data_; }
  std::size_t size() const { return size_; }

 private:
#if defined(__CUDACC__)
  static T* allocate(std::size_t size) {
    T* p = nullptr;
    fastvision::check_cuda(cudaMallocManaged(&p, size * sizeof(T)), "cudaMallocManaged");
    return p;
  }
  static void release(T* p) { cudaFree(p); }
#else
  static T* allocate(std::size_t size) { return new T[size]; }
  static void release(T* p) { delete[] p; }
#endif
  std::size_t size_;
  T* data_;
};

template <class T, class F>
void expect_all(Buffer<T>& out, F expected) {
  for (std::size_t i = 0; i < out.size(); ++i) expect_equal(out[i], T(expected(int(i))), "element", i);
}

// Launches and waits.
template <class... P>
void run(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes,
         typename fastvision::TypeIdentity<P>::type... arguments) {
  fastvision::launch(fastvision::CudaExec{}, kernel, grid, block, shared_bytes, arguments...);
#if defined(__CUDACC__)
  fastvision::check_cuda(cudaDeviceSynchronize(), "kernel");
#endif
}
