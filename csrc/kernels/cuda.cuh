// The only header that knows CUDA: every kernel includes it and nothing else of CUDA's. Under nvcc it is CUDA; under a
// host compiler it is the emulator (csrc/emulator), where a fiber plays each thread. Raw __shared__, <<<>>> and PTX
// live here alone, which the host compiler enforces: it knows none of them.
#pragma once

#include <stdexcept>
#include <string>

#include "common.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>

#define FV_UNROLL _Pragma("unroll")
// FV_SHARED(tile, float[32][33]) declares a variable in shared memory; the type comes last because of its commas.
#define FV_SHARED(name, ...)       \
  using name##_type = __VA_ARGS__; \
  __shared__ __align__(16) name##_type name
#define FV_DYNAMIC_SHARED(T, name)                                     \
  extern __shared__ __align__(128) unsigned char fv_dynamic_shared_[]; \
  T* const name = reinterpret_cast<T*>(fv_dynamic_shared_)
#else
#include "../emulator/cuda_emulator.h"
#endif

namespace fastvision {

template <class T>
struct TypeIdentity {
  using type = T;
};

#if defined(__CUDACC__)
inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

template <class... P>
void launch(const CudaExec& exec, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
            typename TypeIdentity<P>::type... args) {
  if (shared_bytes > 48 * 1024)
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)),
               "shared memory");
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(exec.stream)>>>(args...);
  check_cuda(cudaGetLastError(), "kernel launch");
}

inline void fill_bytes(const CudaExec& exec, void* p, int value, size_t bytes) {
  check_cuda(cudaMemsetAsync(p, value, bytes, static_cast<cudaStream_t>(exec.stream)), "memset");
}
#else
template <class... P>
void launch(const CudaExec&, void (*kernel)(P...), emulator::Grid grid, dim3 block, size_t shared_bytes,
            typename TypeIdentity<P>::type... args) {
  emulator::run_kernel(kernel, grid, block, shared_bytes, std::tuple<P...>(args...));
}

inline void fill_bytes(const CudaExec&, void* p, int value, size_t bytes) {
  if (bytes) memset(p, value, bytes);  // p may be null if there are none
}
#endif

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kThreads = 256;

#if defined(__CUDACC__)
inline int64_t max_blocks() { return 65535; }
#else
inline int64_t max_blocks() { return emulator::config().max_blocks; }
#endif

// Blocks for a kernel that loops over its items in steps of the grid.
inline unsigned grid_for(int64_t items, int64_t per_block = kThreads) {
  const int64_t blocks = ceil_div(items, per_block);
  return unsigned(blocks < max_blocks() ? blocks : max_blocks());
}

// Grid-stride loop with 64-bit indices.
#define FV_FOR(i, n)                                                                           \
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, fv_end_ = (n); i < fv_end_; \
       i += int64_t(gridDim.x) * blockDim.x)

// kCount neighbouring elements as one access of up to 16 bytes.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount <= 16 ? sizeof(T) * kCount : 16) Pack {
  T at[kCount];
};
template <int kCount, class T>
__device__ __forceinline__ Pack<T, kCount> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<T, kCount>*>(p);
}
template <int kCount, class T>
__device__ __forceinline__ void store_pack(T* p, const Pack<T, kCount>& v) {
  *reinterpret_cast<Pack<T, kCount>*>(p) = v;
}
inline bool is_aligned(const void* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

// Writes the values of the threads that take part to list, in the order of the threads, and returns how many there are.
// Called by a whole block; on return list is ready and may be read until the next call.
template <int kBlock, class V>
__device__ int gather_in_order(bool takes_part, V value, V* list) {
  FV_SHARED(warp_counts, int[kBlock / 32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const unsigned ballot = __ballot_sync(kFullWarp, takes_part);
  if (lane == 0) warp_counts[warp] = __popc(ballot);
  __syncthreads();
  int count = 0, place = __popc(ballot & ((1u << lane) - 1));
  for (int w = 0; w < kBlock / 32; ++w) {
    if (w < warp) place += warp_counts[w];
    count += warp_counts[w];
  }
  if (takes_part) list[place] = value;
  __syncthreads();
  return count;
}

// Counts a row that holds an index out of range, and remembers the first.
__device__ inline void report_bad_row(DeviceErrors* errors, OpId op, int64_t row) {
  if (atomicAdd(&errors->count, 1ull) == 0) {
    errors->op = int64_t(op);
    errors->row = row;
  }
}

}  // namespace fastvision
