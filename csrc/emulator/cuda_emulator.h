// CUDA's device language for a host compiler, as kernels/cuda.cuh uses it: every CUDA thread is a fiber, see README.md.
// Everything here is inline and compiled with the kernel, so its errors carry the kernel's own file and line.
#pragma once

#if defined(__CUDACC__)
#error "include kernels/cuda.cuh: nvcc must not see the emulator"
#endif

#include <cstring>

#include "arithmetic.h"
#include "atomics.h"
#include "runtime.h"
#include "vector_types.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define FV_UNROLL

// __shared__ could only become `static`, which hides steps outside from AddressSanitizer in templates, starts as zero
// and keeps what the previous block left. So a shared variable is a reference to memory that the runtime provides.
#define FV_SHARED(name, ...)                                                                                 \
  using name##_type = __VA_ARGS__;                                                                           \
  static_assert(std::is_trivially_default_constructible_v<name##_type>, "shared memory is not initialised"); \
  static ::fastvision::emulator::SharedVariable name##_variable{sizeof(name##_type), #name};                 \
  name##_type& name = *static_cast<name##_type*>(::fastvision::emulator::shared_memory(name##_variable))
#define FV_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::fastvision::emulator::dynamic_shared_memory())

inline constexpr int warpSize = 32;

// Barriers.
inline void __syncthreads(FV_HERE) {
  fastvision::emulator::block_barrier(fastvision::emulator::Vote::none, false, here);
}
inline int __syncthreads_count(int predicate, FV_HERE) {
  return fastvision::emulator::block_barrier(fastvision::emulator::Vote::count, predicate != 0, here);
}
inline int __syncthreads_and(int predicate, FV_HERE) {
  return fastvision::emulator::block_barrier(fastvision::emulator::Vote::all, predicate != 0, here);
}
inline int __syncthreads_or(int predicate, FV_HERE) {
  return fastvision::emulator::block_barrier(fastvision::emulator::Vote::any, predicate != 0, here);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, FV_HERE) { fastvision::emulator::sync_warp(mask, here); }

// Shuffles: each computes the lane it reads from, within its segment of `width` lanes.
namespace fastvision::emulator {
template <class T>
inline T shuffle_value(const char* name, unsigned mask, T value, int source_lane, const Location& here) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle(name, mask, bits, sizeof(T), source_lane, here);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
inline int first_of_segment(int lane, int width) { return lane & ~(width - 1); }
inline int last_of_segment(int lane, int width) { return lane | (width - 1); }
}  // namespace fastvision::emulator

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, FV_HERE) {
  using namespace fastvision::emulator;
  const int lane = int(lane_id());
  return shuffle_value("__shfl_sync", mask, value, first_of_segment(lane, width) | (source & (width - 1)), here);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, FV_HERE) {
  using namespace fastvision::emulator;
  const int lane = int(lane_id()), source = lane - int(delta);
  const bool inside = source >= first_of_segment(lane, width);
  return shuffle_value("__shfl_up_sync", mask, value, inside ? source : lane, here);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, FV_HERE) {
  using namespace fastvision::emulator;
  const int lane = int(lane_id()), source = lane + int(delta);
  const bool inside = source <= last_of_segment(lane, width);
  return shuffle_value("__shfl_down_sync", mask, value, inside ? source : lane, here);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, FV_HERE) {
  using namespace fastvision::emulator;
  const int lane = int(lane_id()), source = lane ^ lane_mask;
  const bool inside = source <= last_of_segment(lane, width);
  return shuffle_value("__shfl_xor_sync", mask, value, inside ? source : lane, here);
}

// Votes, matches and reductions.
inline unsigned __ballot_sync(unsigned mask, int predicate, FV_HERE) {
  return fastvision::emulator::ballot(mask, predicate != 0, here);
}
inline int __any_sync(unsigned mask, int predicate, FV_HERE) {
  return fastvision::emulator::ballot(mask, predicate != 0, here) != 0;
}
inline int __all_sync(unsigned mask, int predicate, FV_HERE) {
  return fastvision::emulator::ballot(mask, predicate == 0, here) == 0;
}
inline unsigned __activemask() { return 1u << fastvision::emulator::lane_id(); }  // the worst legal answer: alone
template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, FV_HERE) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return fastvision::emulator::match_any(mask, bits, sizeof(T), here);
}

#define FV_REDUCE(name, T, reduction)                                                                                \
  inline T name(unsigned mask, T value, FV_HERE) {                                                                   \
    return T(fastvision::emulator::reduce(fastvision::emulator::Reduction::reduction, mask, unsigned(value), here)); \
  }
FV_REDUCE(__reduce_add_sync, unsigned, add)
FV_REDUCE(__reduce_add_sync, int, add)
FV_REDUCE(__reduce_min_sync, unsigned, min)
FV_REDUCE(__reduce_min_sync, int, min_signed)
FV_REDUCE(__reduce_max_sync, unsigned, max)
FV_REDUCE(__reduce_max_sync, int, max_signed)
FV_REDUCE(__reduce_and_sync, unsigned, bit_and)
FV_REDUCE(__reduce_or_sync, unsigned, bit_or)
FV_REDUCE(__reduce_xor_sync, unsigned, bit_xor)
#undef FV_REDUCE

// Memory.
inline void __threadfence() { fastvision::emulator::fence(); }
inline void __threadfence_block() { fastvision::emulator::fence(); }
inline void __threadfence_system() { fastvision::emulator::fence(); }
template <class T>
inline T __ldg(const T* p) {
  return *p;
}
template <class T>
inline T __ldcs(const T* p) {
  return *p;
}
template <class T>
inline T __ldcg(const T* p) {
  return *p;
}
template <class T>
inline void __stcs(T* p, T value) {
  *p = value;
}
template <class T>
inline void __stcg(T* p, T value) {
  *p = value;
}

// Control.
inline void __nanosleep(unsigned, FV_HERE) { fastvision::emulator::spin(here); }
[[noreturn]] inline void __trap(FV_HERE) { fastvision::emulator::fail("__trap()", here); }
