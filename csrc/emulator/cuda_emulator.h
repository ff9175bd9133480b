// Runs CUDA kernels on the CPU: device-facing part. Compiled by g++/clang++ only; nvcc never sees this file.
// Every CUDA thread of a block is a fiber; blocks run one after another; the scheduler is in cuda_emulator.cpp.
#pragma once
#if defined(__CUDACC__)
#error "cuda_emulator.h is for the host compiler; include kernels/cuda.cuh"
#endif
#include <atomic>
#include <math.h>   // not <cmath>: the float overloads must be visible in the global namespace, as under nvcc
#include <stdlib.h>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <source_location>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

// ---------------------------------------------------------------- keywords
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define FV_EMULATED 1
#define FV_UNROLL
// ---------------------------------------------------------------- vector types
#define FV_EMULATOR_VEC(T, name, al)                                                                            \
  struct alignas(al(1)) name##1 { T x; };                                                                  \
  struct alignas(al(2)) name##2 { T x, y; };                                                               \
  struct name##3 { T x, y, z; };                                                                           \
  struct alignas(al(4)) name##4 { T x, y, z, w; };                                                         \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                               \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                       \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
#define FV_AL1(n) (n)
#define FV_AL2(n) (2 * (n))
#define FV_AL4(n) (4 * (n))
#define FV_AL8(n) ((n) == 1 ? 8 : 16)
FV_EMULATOR_VEC(float, float, FV_AL4)
FV_EMULATOR_VEC(int, int, FV_AL4)
FV_EMULATOR_VEC(unsigned, uint, FV_AL4)
FV_EMULATOR_VEC(short, short, FV_AL2)
FV_EMULATOR_VEC(unsigned short, ushort, FV_AL2)
FV_EMULATOR_VEC(signed char, char, FV_AL1)
FV_EMULATOR_VEC(unsigned char, uchar, FV_AL1)
FV_EMULATOR_VEC(double, double, FV_AL8)
FV_EMULATOR_VEC(long long, longlong, FV_AL8)
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline uint3 threadIdx, blockIdx;   // set by the scheduler before a fiber resumes
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

// ---------------------------------------------------------------- runtime interface (cuda_emulator.cpp, uninstrumented)
namespace fastvision::emulator {
using Loc = std::source_location;
struct Error : std::runtime_error { using std::runtime_error::runtime_error; };
enum class Order { forward, reverse, random };
struct Config {               // FV_EMULATOR_ORDER=forward|reverse|random  FV_EMULATOR_SEED=n  FV_EMULATOR_CP_ASYNC=lazy|eager ...
  Order order = Order::forward;
  std::uint64_t seed = 0;
  bool poison = true;         // fill shared memory at the start of every block
  bool cp_async_lazy = true;  // copy at the latest legal point (wait), not at issue
  bool strict_exit = false;   // error when a barrier completes although some threads have already returned
  unsigned poison_byte = 0xFF;
  std::size_t stack_bytes = 0;            // 0: default
  std::size_t max_smem = 163 * 1024;      // sm_80 limit per block
};
struct Stats { std::uint64_t launches, blocks, threads, switches, barriers, warp_ops, stacks; };
Config& config();
Stats& stats();
struct SharedVar { std::size_t size, align; const char* name; void* ptr; std::uint64_t block; };
void* shared_var(SharedVar& v);             // poisons the variable on the first use in a block
void* dynamic_shared();
void check_shared(const void* p, std::size_t n, std::size_t align, const char* what, const Loc& l);
enum class BlockOp { sync, count, all, any };
int block_barrier(BlockOp op, int pred, const Loc& l);
enum class WarpOp { sync, shfl, ballot, match, mma_bf16, mma_f16, mma_tf32, ldmatrix, ldmatrix_t, reduce_add };
struct WarpArg {                            // one per lane, lives on the lane's own stack
  std::uint64_t in = 0, out = 0;
  int src = 0;                              // shfl: source lane (already resolved) or -1
  const std::uint32_t *a = nullptr, *b = nullptr;
  const float* c = nullptr;
  float* d = nullptr;
  std::uint32_t row[4] = {}, frag[4] = {};  // ldmatrix
  int n = 0;
};
void warp_collective(WarpOp op, unsigned mask, unsigned elem_size, WarpArg& arg, const Loc& l);
unsigned lane_id();
void check_cp_async(const void* dst, const void* src, int size, int src_bytes, const Loc& l);
void cp_async_queue(void* dst, const void* src, int size, int src_bytes);
void cp_async_commit();
void cp_async_wait(int n_pending, bool all);
void fence();
void before_atomic(const void* p);
void after_atomic(const void* p);
[[noreturn]] void fail(const std::string& what, const Loc& l = Loc::current());
void run(dim3 grid, dim3 block, std::size_t smem, void (*body)(void*), void* ctx, const Loc& l);

struct Grid {                 // remembers where launch() was called
  dim3 d; Loc loc;
  Grid(dim3 d_, Loc l = Loc::current()) : d(d_), loc(l) {}
  template <class I> requires std::is_integral_v<I>
  Grid(I x, Loc l = Loc::current()) : d(static_cast<unsigned>(x)), loc(l) {}
};
template <class... P, class Tuple>
void run_kernel(void (*kernel)(P...), Grid g, dim3 block, std::size_t smem, Tuple&& args) {
  auto body = [&] { std::apply(kernel, args); };      // by-value parameters: each thread gets its own copy
  run(g.d, block, smem, [](void* p) { (*static_cast<decltype(body)*>(p))(); }, &body, g.loc);
}
template <class T> inline std::uint64_t pack(T v) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  std::uint64_t r = 0; std::memcpy(&r, &v, sizeof(T)); return r;
}
template <class T> inline T unpack(std::uint64_t r) { T v; std::memcpy(&v, &r, sizeof(T)); return v; }
template <class T> inline T shfl(unsigned mask, T v, int src, const Loc& l) {
  WarpArg a; a.in = pack(v); a.src = src;
  warp_collective(WarpOp::shfl, mask, sizeof(T), a, l);
  return unpack<T>(a.out);
}
inline unsigned vote(unsigned mask, bool p, const Loc& l) {
  WarpArg a; a.in = p;
  warp_collective(WarpOp::ballot, mask, 4, a, l);
  return static_cast<unsigned>(a.out);
}
}  // namespace fastvision::emulator

#define FV_SHARED(name, ...)                                                                               \
  using name##_fv_t = __VA_ARGS__;                                                                         \
  static_assert(std::is_trivially_default_constructible_v<name##_fv_t>, "shared memory is not initialised");  \
  static ::fastvision::emulator::SharedVar name##_fv_slot{sizeof(name##_fv_t), 16, #name, nullptr, 0};                   \
  name##_fv_t& name = *static_cast<name##_fv_t*>(::fastvision::emulator::shared_var(name##_fv_slot))
#define FV_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::fastvision::emulator::dynamic_shared())

// ---------------------------------------------------------------- barriers and warp intrinsics
#define FV_LOC const fastvision::emulator::Loc& l = fastvision::emulator::Loc::current()
inline void __syncthreads(FV_LOC) { fastvision::emulator::block_barrier(fastvision::emulator::BlockOp::sync, 0, l); }
inline int __syncthreads_count(int p, FV_LOC) { return fastvision::emulator::block_barrier(fastvision::emulator::BlockOp::count, p != 0, l); }
inline int __syncthreads_and(int p, FV_LOC) { return fastvision::emulator::block_barrier(fastvision::emulator::BlockOp::all, p != 0, l); }
inline int __syncthreads_or(int p, FV_LOC) { return fastvision::emulator::block_barrier(fastvision::emulator::BlockOp::any, p != 0, l); }
inline void __syncwarp(unsigned mask = 0xffffffffu, FV_LOC) {
  fastvision::emulator::WarpArg a; fastvision::emulator::warp_collective(fastvision::emulator::WarpOp::sync, mask, 0, a, l);
}
template <class T> inline T __shfl_sync(unsigned mask, T v, int src, int width = 32, FV_LOC) {
  const int lane = fastvision::emulator::lane_id();
  return fastvision::emulator::shfl(mask, v, (lane & ~(width - 1)) | (src & (width - 1)), l);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, FV_LOC) {
  const int lane = fastvision::emulator::lane_id(), s = lane - static_cast<int>(delta);
  return fastvision::emulator::shfl(mask, v, s < (lane & ~(width - 1)) ? lane : s, l);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, FV_LOC) {
  const int lane = fastvision::emulator::lane_id(), s = lane + static_cast<int>(delta);
  return fastvision::emulator::shfl(mask, v, s > (lane | (width - 1)) ? lane : s, l);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32, FV_LOC) {
  const int lane = fastvision::emulator::lane_id(), s = lane ^ x;
  return fastvision::emulator::shfl(mask, v, s > (lane | (width - 1)) ? lane : s, l);
}
inline unsigned __ballot_sync(unsigned mask, int p, FV_LOC) { return fastvision::emulator::vote(mask, p != 0, l); }
inline int __any_sync(unsigned mask, int p, FV_LOC) { return fastvision::emulator::vote(mask, p != 0, l) != 0; }
inline int __all_sync(unsigned mask, int p, FV_LOC) { return fastvision::emulator::vote(mask, p == 0, l) == 0; }
inline unsigned __activemask() { return 1u << fastvision::emulator::lane_id(); }  // worst legal answer: the lane is alone
template <class T> inline unsigned __match_any_sync(unsigned mask, T v, FV_LOC) {
  fastvision::emulator::WarpArg a; a.in = fastvision::emulator::pack(v);
  fastvision::emulator::warp_collective(fastvision::emulator::WarpOp::match, mask, sizeof(T), a, l);
  return static_cast<unsigned>(a.out);
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned v, FV_LOC) {
  fastvision::emulator::WarpArg a; a.in = v;
  fastvision::emulator::warp_collective(fastvision::emulator::WarpOp::reduce_add, mask, 4, a, l);
  return static_cast<unsigned>(a.out);
}
// ---------------------------------------------------------------- bits, memory, fences
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __clz(int v) { return v ? __builtin_clz(static_cast<unsigned>(v)) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll(static_cast<unsigned long long>(v)) : 64; }
inline unsigned __brev(unsigned v) { unsigned r = 0; for (int i = 0; i < 32; ++i) r |= ((v >> i) & 1u) << (31 - i); return r; }
template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline void __stcs(T* p, T v) { *p = v; }
inline void __threadfence() { fastvision::emulator::fence(); }
inline void __threadfence_block() { fastvision::emulator::fence(); }
inline void __threadfence_system() { fastvision::emulator::fence(); }
inline void __nanosleep(unsigned) { fastvision::emulator::before_atomic(nullptr); }
[[noreturn]] inline void __trap(FV_LOC) { fastvision::emulator::fail("__trap()", l); }
#define FV_DEVICE_ASSERT(c) do { if (!(c)) ::fastvision::emulator::fail("device assertion failed: " #c); } while (0)
// ---------------------------------------------------------------- math
template <class A, class B> constexpr auto min(A a, B b) -> std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>, std::common_type_t<A, B>> {
  using C = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<C>) return std::fmin(C(a), C(b)); else return C(a) < C(b) ? C(a) : C(b);
}
template <class A, class B> constexpr auto max(A a, B b) -> std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>, std::common_type_t<A, B>> {
  using C = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<C>) return std::fmax(C(a), C(b)); else return C(a) > C(b) ? C(a) : C(b);
}
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 0.f ? (x < 1.f ? x : 1.f) : 0.f; }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { volatile float r = a * b; return r; }
inline float __fadd_rn(float a, float b) { volatile float r = a + b; return r; }
inline int __float_as_int(float f) { return __builtin_bit_cast(int, f); }
inline unsigned __float_as_uint(float f) { return __builtin_bit_cast(unsigned, f); }
inline float __int_as_float(int i) { return __builtin_bit_cast(float, i); }
inline float __uint_as_float(unsigned i) { return __builtin_bit_cast(float, i); }
inline int __float2int_rn(float f) { return static_cast<int>(std::nearbyint(f)); }
inline int __float2int_rd(float f) { return static_cast<int>(std::floor(f)); }
// ---------------------------------------------------------------- atomics (return the old value)
namespace fastvision::emulator {
template <class T, class F> inline T rmw(T* p, F f) {
  using U = std::conditional_t<sizeof(T) == 2, std::uint16_t, std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>;
  before_atomic(p);
  U* q = reinterpret_cast<U*>(p);
  U old = __atomic_load_n(q, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(q, &old, __builtin_bit_cast(U, f(__builtin_bit_cast(T, old))), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  after_atomic(p);
  return __builtin_bit_cast(T, old);
}
template <class T> struct id { using type = T; };
template <class T> using id_t = typename id<T>::type;
}  // namespace fastvision::emulator
template <class T> inline T atomicAdd(T* p, fastvision::emulator::id_t<T> v) { return fastvision::emulator::rmw(p, [v](T o) { return T(o + v); }); }
template <class T> inline T atomicSub(T* p, fastvision::emulator::id_t<T> v) { return fastvision::emulator::rmw(p, [v](T o) { return T(o - v); }); }
template <class T> inline T atomicMax(T* p, fastvision::emulator::id_t<T> v) { return fastvision::emulator::rmw(p, [v](T o) { return o > v ? o : v; }); }
template <class T> inline T atomicMin(T* p, fastvision::emulator::id_t<T> v) { return fastvision::emulator::rmw(p, [v](T o) { return o < v ? o : v; }); }
template <class T> inline T atomicOr(T* p, fastvision::emulator::id_t<T> v) { return fastvision::emulator::rmw(p, [v](T o) { return T(o | v); }); }
template <class T> inline T atomicAnd(T* p, fastvision::emulator::id_t<T> v) { return fastvision::emulator::rmw(p, [v](T o) { return T(o & v); }); }
template <class T> inline T atomicExch(T* p, fastvision::emulator::id_t<T> v) { return fastvision::emulator::rmw(p, [v](T) { return v; }); }
template <class T> inline T atomicCAS(T* p, fastvision::emulator::id_t<T> c, fastvision::emulator::id_t<T> v) {
  return fastvision::emulator::rmw(p, [c, v](T o) { return o == c ? v : o; });
}
inline unsigned atomicInc(unsigned* p, unsigned v) { return fastvision::emulator::rmw(p, [v](unsigned o) { return o >= v ? 0u : o + 1; }); }
