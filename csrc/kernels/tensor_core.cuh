// Tensor cores (mma, ldmatrix) and asynchronous copies (cp.async), compute capability 8.0 and later. Under the emulator
// the same functions, exactly rounded; tests/emulator compares the layouts below with an independent description.
//
// A warp multiplies together: d[16][8] = a[16][k] b[k][8] + c[16][8]. Each lane holds a piece. With group = lane / 4
// and member = lane % 4:
//   c, d (float)     c[i] is at row group + i / 2 * 8, column 2 * member + i % 2.
//   k = 16 (Half or BFloat16, two to a register, the lower column or row in the lower bits)
//     a[i] holds row group + i % 2 * 8,               columns 2 * member + i / 2 * 8 and the next.
//     b[i] holds rows 2 * member + i * 8 and the next, column group.
//   k = 8 (float in tf32 precision, one to a register: see to_tf32)
//     a[i] holds row group + i % 2 * 8, column member + i / 2 * 4.
//     b[i] holds row member + i * 4,    column group.
#pragma once

#include "cuda.cuh"

namespace fastvision {

#if defined(__CUDACC__)

__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

#define FV_MMA(types)                                                                                               \
  asm volatile("mma.sync.aligned." types " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"     \
               : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])                                                     \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), \
                 "f"(c[3]))

// T is Half or BFloat16.
template <class T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                             const float (&c)[4]) {
  if constexpr (T::kExponentBits == 8) FV_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
  else FV_MMA("m16n8k16.row.col.f32.f16.f16.f32");
}

__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                                 const float (&c)[4]) {
  FV_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
}
#undef FV_MMA

// Rounds to 10 bits of fraction: to nearest, ties away from zero.
__device__ __forceinline__ uint32_t to_tf32(float v) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
  return bits;
}

// Loads four 8 x 8 matrices of 16-bit elements from shared memory. Lane 8 * m + r passes the address of row r of matrix
// m (16 bytes, so aligned); fragment[m] then holds columns 2 * member and the next of row `group` of matrix m. With
// _trans it holds rows 2 * member and the next of column `group`.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&fragment)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&fragment)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(shared_address(row))
               : "memory");
}

// Starts to copy kBytes (4, 8 or 16, to which both addresses are aligned) from global to shared memory: the first
// source_bytes from there, zeros for the rest. The thread may read them after a wait, other threads after a barrier
// too.
template <int kBytes>
__device__ __forceinline__ void cp_async(void* to, const void* from, int source_bytes = kBytes) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(source_bytes)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(from), "n"(kBytes),
                 "r"(source_bytes)
                 : "memory");
}
// Makes a group of the copies since the last commit.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all but the latest kGroups groups are complete.
template <int kGroups>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}
__device__ __forceinline__ void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

#else

template <class T>
inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4], FV_HERE) {
  using emulator::MatrixType;
  emulator::multiply_accumulate(T::kExponentBits == 8 ? MatrixType::bfloat16 : MatrixType::half, d, a, b, c, here);
}

inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
                             FV_HERE) {
  emulator::multiply_accumulate(emulator::MatrixType::tf32, d, a, b, c, here);
}

inline uint32_t to_tf32(float v) {
  const uint32_t bits = bit_cast<uint32_t>(v);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return (finite ? bits + 0x1000u : bits) & 0xffffe000u;
}

namespace emulator {
inline void load_matrices_of(const void* row, bool transposed, uint32_t (&fragment)[4], const Location& here) {
  check_shared("ldmatrix row", row, 16, 16, here);
  uint32_t elements[4];
  for (int i = 0; i < 4; ++i) elements[i] = static_cast<const uint32_t*>(row)[i];  // the sanitizers see this access
  load_matrices(transposed, fragment, elements, here);
}
}  // namespace emulator
inline void ldmatrix_x4(uint32_t (&fragment)[4], const void* row, FV_HERE) {
  emulator::load_matrices_of(row, false, fragment, here);
}
inline void ldmatrix_x4_trans(uint32_t (&fragment)[4], const void* row, FV_HERE) {
  emulator::load_matrices_of(row, true, fragment, here);
}

// A lazy copy happens at the wait. Until then the destination holds junk, so that a missing wait shows. Both sides are
// touched here all the same, for the sanitizers to see a bad address where the kernel passes it.
template <int kBytes>
inline void cp_async(void* to, const void* from, int source_bytes = kBytes, FV_HERE) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  emulator::check_copy(to, from, kBytes, source_bytes, here);
  const bool lazy = emulator::config().lazy_copies;
  auto* const destination = static_cast<volatile unsigned char*>(to);
  auto* const source = static_cast<const volatile unsigned char*>(from);
  for (int i = 0; i < kBytes; ++i) {
    const unsigned char byte = i < source_bytes ? source[i] : 0;
    destination[i] = lazy ? 0xff : byte;
  }
  if (lazy) emulator::queue_copy(to, from, kBytes, source_bytes);
}
inline void cp_async_commit() { emulator::commit_copies(); }
template <int kGroups>
inline void cp_async_wait() {
  emulator::wait_for_copies(kGroups);
}
inline void cp_async_wait_all() { emulator::wait_for_all_copies(); }

#endif

}  // namespace fastvision
