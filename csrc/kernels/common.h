// Vocabulary shared by every kernel. Nothing under csrc/kernels/ includes torch, Python or NumPy.
#pragma once

#include <math.h>

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#define FV_HD __host__ __device__ __forceinline__
#else
// always_inline: the same source is compiled once per instruction set, and a shared out-of-line copy would be
// whichever of them the linker met first.
#define FV_HD inline __attribute__((always_inline))
#endif

namespace fastvision {

// 16-bit floats in memory. Arithmetic happens in float: see to_accum and from_accum.
struct Half {
  static constexpr int kExponentBits = 5;
  uint16_t bits;
};
struct BFloat16 {
  static constexpr int kExponentBits = 8;
  uint16_t bits;
};

// The type that values of type T are computed in.
template <class T>
struct AccumOf {
  using type = float;
};
template <>
struct AccumOf<double> {
  using type = double;
};
template <class T>
using Accum = typename AccumOf<T>::type;

template <class To, class From>
FV_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

FV_HD float half_to_float(uint16_t bits) {
#if defined(__CUDACC__)
  return __half2float(__ushort_as_half(bits));
#else
  const uint32_t sign = uint32_t(bits & 0x8000u) << 16, exponent = bits & 0x7c00u, fraction = bits & 0x03ffu;
  if (exponent == 0x7c00u) return bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  // Scaling by a power of two is exact and renormalises subnormal halves.
  const float magnitude = bit_cast<float>((exponent | fraction) << 13) * 0x1p112f;
  return bit_cast<float>(sign | bit_cast<uint32_t>(magnitude));
#endif
}

FV_HD uint16_t float_to_half(float value) {  // round to nearest, ties to even
#if defined(__CUDACC__)
  return __half_as_ushort(__float2half_rn(value));
#else
  const uint32_t u = bit_cast<uint32_t>(value), sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return uint16_t(sign | 0x7c00u);
  if (magnitude < 0x38800000u)  // subnormal half: let the float adder round at the right bit
    return uint16_t(sign | (bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u));
  return uint16_t(sign | (magnitude - 0x38000000u + 0x0fffu + (magnitude >> 13 & 1u)) >> 13);
#endif
}

FV_HD float bfloat16_to_float(uint16_t bits) { return bit_cast<float>(uint32_t(bits) << 16); }

FV_HD uint16_t float_to_bfloat16(float value) {  // round to nearest, ties to even
  const uint32_t u = bit_cast<uint32_t>(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return uint16_t(u >> 16 | 0x0040u);
  return uint16_t((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

FV_HD float to_accum(float v) { return v; }
FV_HD double to_accum(double v) { return v; }
FV_HD float to_accum(Half v) { return half_to_float(v.bits); }
FV_HD float to_accum(BFloat16 v) { return bfloat16_to_float(v.bits); }

template <class T>
FV_HD T from_accum(Accum<T> v) {
  return T(v);
}
template <>
FV_HD Half from_accum<Half>(float v) {
  return {float_to_half(v)};
}
template <>
FV_HD BFloat16 from_accum<BFloat16>(float v) {
  return {float_to_bfloat16(v)};
}

// Instruction sets that the CPU twins are compiled for; FV_ISA names the one of this translation unit.
struct Baseline;  // what every machine of the architecture has
struct Avx2;      // x86-64-v3: AVX2, FMA, F16C
struct Avx512;    // x86-64-v4: AVX-512 F, BW, CD, DQ, VL

// ThreadSanitizer is to see tasks of the smallest inputs side by side.
#if defined(__SANITIZE_THREAD__)
constexpr bool kSplitsAlways = true;
#else
constexpr bool kSplitsAlways = false;
#endif

// Where a CPU twin runs: an instruction set, and a pool to run body(begin, end) over [0, n) on. The twins own no
// threads; the binding passes torch's pool in, so that torch.set_num_threads() is obeyed.
template <class Isa>
struct Cpu {
  void (*parallel_for)(int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context);
  int64_t threads;

  template <class F>
  void operator()(int64_t n, int64_t grain, F&& f) const {
    if (n <= (kSplitsAlways ? 1 : grain)) {
      if (n > 0) f(int64_t(0), n);
      return;
    }
    parallel_for(n, grain, [](void* c, int64_t begin, int64_t end) { (*static_cast<F*>(c))(begin, end); }, &f);
  }
};
#if defined(FV_ISA)
using CpuExec = Cpu<FV_ISA>;
#endif

// What a CUDA kernel noticed about index-like values (an image index out of range): it may not stop the host, so the
// bad row yields zeros and is counted here. fastvision.ops.device_errors() reads and clears it.
enum class OpId : int64_t {
  none,
  roi_align,
  multiscale_roi_align,
  roi_pool,
  ps_roi_align,
  ps_roi_pool,
  roi_align_rotated,
  sigmoid_focal_loss,
  softmax_focal_loss,
  dice_loss,
  max_unpool2d
};
struct DeviceErrors {
  unsigned long long count;
  int64_t op, row;  // of the first one
};

// Where a CUDA twin runs. No CUDA type here, so that bindings need no CUDA headers.
struct CudaExec {
  void* stream;          // cudaStream_t
  DeviceErrors* errors;  // in device memory
};

// Explicit instantiation: #define INSTANTIATE(T) ..., then one of these. Kernels on features have all four types;
// kernels on boxes have two, since the Python functions widen 16-bit boxes, of which there are few.
#define FV_FLOATS(F) F(float) F(double)
#define FV_ALL_FLOATS(F) FV_FLOATS(F) F(::fastvision::Half) F(::fastvision::BFloat16)

FV_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// min and max that prefer the first argument when the comparison is false, NaN included.
template <class A>
FV_HD A min_of(A a, A b) {
  return b < a ? b : a;
}
template <class A>
FV_HD A max_of(A a, A b) {
  return a < b ? b : a;
}

// What vectors have too (simd.h), so that a formula is written once for both.
FV_HD float select(bool m, float yes, float no) { return m ? yes : no; }
FV_HD double select(bool m, double yes, double no) { return m ? yes : no; }
FV_HD bool both(bool a, bool b) { return a && b; }
FV_HD float abs_of(float a) { return fabsf(a); }
FV_HD double abs_of(double a) { return fabs(a); }
FV_HD float sqrt_of(float a) { return __builtin_sqrtf(a); }
FV_HD double sqrt_of(double a) { return __builtin_sqrt(a); }
FV_HD float power_of(float a, double exponent) { return __builtin_powf(a, float(exponent)); }
FV_HD double power_of(double a, double exponent) { return __builtin_pow(a, exponent); }

// a * b + c, rounded once where the machine can. Everywhere else the compilers are told not to fuse, so that
// comparisons (which box overlaps more) come out the same on every backend.
FV_HD float multiply_add(float a, float b, float c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
FV_HD double multiply_add(double a, double b, double c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

}  // namespace fastvision
