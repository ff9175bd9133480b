// Vectors as wide as the instruction set that the file is compiled for (see FV_ISA), on the vector extensions of GCC
// and Clang, and their arithmetic. Only this file, simd.h and simd_integers.h have intrinsics, where the extensions
// have no word for an instruction.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include <type_traits>
#include <utility>

#include "common.h"
#include "unrolled.h"

namespace fastvision {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

// The compiler's vector of A, and of the integers that comparing two of them gives.
template <class A>
struct RawVector;
template <>
struct RawVector<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t mask __attribute__((vector_size(kVectorBytes)));
};
template <>
struct RawVector<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef int64_t mask __attribute__((vector_size(kVectorBytes)));
};
template <>
struct RawVector<int32_t> {
  typedef int32_t type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t mask __attribute__((vector_size(kVectorBytes)));
};

// The instruction set is part of the type, so that code for two of them never shares a symbol.
template <class A, class Isa>
struct VecOf {
  static constexpr int kLanes = kVectorBytes / int(sizeof(A));
  using Lane = A;
  using Raw = typename RawVector<A>::type;
  using Bits = typename RawVector<A>::mask;
  Raw raw;

  VecOf() = default;
  FV_HD VecOf(Raw r) : raw(r) {}
  FV_HD VecOf(A scalar) : raw(scalar - Raw{}) {}

  static FV_HD VecOf load(const A* p) {
    VecOf v;
    memcpy(&v.raw, p, sizeof v.raw);
    return v;
  }
  FV_HD void store(A* p) const { memcpy(p, &raw, sizeof raw); }
  FV_HD A operator[](int lane) const { return raw[lane]; }

  friend FV_HD VecOf operator+(VecOf a, VecOf b) { return a.raw + b.raw; }
  friend FV_HD VecOf operator-(VecOf a, VecOf b) { return a.raw - b.raw; }
  friend FV_HD VecOf operator*(VecOf a, VecOf b) { return a.raw * b.raw; }
  friend FV_HD VecOf operator/(VecOf a, VecOf b) { return a.raw / b.raw; }
  friend FV_HD VecOf operator-(VecOf a) { return -a.raw; }
};
template <class A>
using Vec = VecOf<A, FV_ISA>;
template <class A>
static constexpr int64_t kLanes = Vec<A>::kLanes;  // static: another number for each instruction set

// The result of a comparison: all bits of a lane set, or none.
template <class A, class Isa>
struct MaskOf {
  using Raw = typename RawVector<A>::mask;
  Raw raw;

  FV_HD bool operator[](int lane) const { return raw[lane] != 0; }
  friend FV_HD MaskOf both(MaskOf a, MaskOf b) { return {a.raw & b.raw}; }
  friend FV_HD MaskOf either(MaskOf a, MaskOf b) { return {a.raw | b.raw}; }
  friend FV_HD MaskOf operator!(MaskOf a) { return {~a.raw}; }
};
template <class A, class Isa>
FV_HD MaskOf<A, Isa> operator<(VecOf<A, Isa> a, VecOf<A, Isa> b) {
  return {a.raw < b.raw};
}
template <class A, class Isa>
FV_HD MaskOf<A, Isa> operator>(VecOf<A, Isa> a, VecOf<A, Isa> b) {
  return {a.raw > b.raw};
}
template <class A, class Isa>
FV_HD MaskOf<A, Isa> operator<=(VecOf<A, Isa> a, VecOf<A, Isa> b) {
  return {a.raw <= b.raw};
}
template <class A, class Isa>
FV_HD MaskOf<A, Isa> operator>=(VecOf<A, Isa> a, VecOf<A, Isa> b) {
  return {a.raw >= b.raw};
}
template <class A, class Isa>
FV_HD MaskOf<A, Isa> operator==(VecOf<A, Isa> a, VecOf<A, Isa> b) {
  return {a.raw == b.raw};
}

template <class A, class Isa>
FV_HD VecOf<A, Isa> select(MaskOf<A, Isa> m, VecOf<A, Isa> yes, VecOf<A, Isa> no) {
  return m.raw ? yes.raw : no.raw;
}
// Integers as wide as the lanes of A, for indices.
template <class A>
using IndexVec = typename RawVector<A>::mask;
template <class A>
FV_HD IndexVec<A> all_lanes(int64_t index) {
  IndexVec<A> v{};
  return v + decltype(v[0] + v[0])(index);
}
template <class A>
FV_HD IndexVec<A> lane_numbers() {
  IndexVec<A> v;
  for (int i = 0; i < kVectorBytes / int(sizeof(A)); ++i) v[i] = i;
  return v;
}
template <class A>
FV_HD IndexVec<A> lanes_below(int64_t n) {  // all bits of the first n lanes
  return lane_numbers<A>() < all_lanes<A>(n);
}
template <class A, class Isa>
FV_HD IndexVec<A> select(MaskOf<A, Isa> m, int64_t yes, IndexVec<A> no) {
  return m.raw ? all_lanes<A>(yes) : no;
}
// The instructions return their second argument unless the first is smaller (larger), NaN included: as in common.h.
template <class A, class Isa>
FV_HD VecOf<A, Isa> min_of(VecOf<A, Isa> a, VecOf<A, Isa> b) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<A, float>) return _mm512_maskz_min_ps(0xffff, b.raw, a.raw);
  else if constexpr (std::is_same_v<A, double>) return _mm512_maskz_min_pd(0xff, b.raw, a.raw);
#elif defined(__AVX2__)
  if constexpr (std::is_same_v<A, float>) return _mm256_min_ps(b.raw, a.raw);
  else if constexpr (std::is_same_v<A, double>) return _mm256_min_pd(b.raw, a.raw);
#endif
  return b.raw < a.raw ? b.raw : a.raw;
}
template <class A, class Isa>
FV_HD VecOf<A, Isa> max_of(VecOf<A, Isa> a, VecOf<A, Isa> b) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<A, float>) return _mm512_maskz_max_ps(0xffff, b.raw, a.raw);
  else if constexpr (std::is_same_v<A, double>) return _mm512_maskz_max_pd(0xff, b.raw, a.raw);
#elif defined(__AVX2__)
  if constexpr (std::is_same_v<A, float>) return _mm256_max_ps(b.raw, a.raw);
  else if constexpr (std::is_same_v<A, double>) return _mm256_max_pd(b.raw, a.raw);
#endif
  return a.raw < b.raw ? b.raw : a.raw;
}
template <class A, class Isa>
FV_HD VecOf<A, Isa> abs_of(VecOf<A, Isa> a) {
  return a.raw < A(0) ? -a.raw : a.raw;
}

// f of every lane, for functions that have no instruction.
template <class A, class Isa, class F>
FV_HD VecOf<A, Isa> each_lane(VecOf<A, Isa> a, F&& f) {
  A lanes[VecOf<A, Isa>::kLanes];
  a.store(lanes);
  for (int i = 0; i < VecOf<A, Isa>::kLanes; ++i) lanes[i] = f(lanes[i]);
  return VecOf<A, Isa>::load(lanes);
}
template <class A, class Isa>
FV_HD VecOf<A, Isa> sqrt_of(VecOf<A, Isa> a) {
  return each_lane(a, [](A v) { return sqrt_of(v); });
}
template <class A, class Isa>
FV_HD VecOf<A, Isa> power_of(VecOf<A, Isa> a, double exponent) {
  return each_lane(a, [=](A v) { return power_of(v, exponent); });
}

// One bit per lane.
template <class A, class Isa>
FV_HD uint32_t bits(MaskOf<A, Isa> m) {
#if defined(__AVX512DQ__)
  if constexpr (sizeof(A) == 4) return _mm512_movepi32_mask(__m512i(m.raw));
  else return _mm512_movepi64_mask(__m512i(m.raw));
#elif defined(__AVX2__)
  if constexpr (sizeof(A) == 4) return uint32_t(_mm256_movemask_ps(__m256(m.raw)));
  else return uint32_t(_mm256_movemask_pd(__m256d(m.raw)));
#elif defined(__SSE2__)
  if constexpr (sizeof(A) == 4) return uint32_t(_mm_movemask_ps(__m128(m.raw)));
  else return uint32_t(_mm_movemask_pd(__m128d(m.raw)));
#else
  uint32_t r = 0;
  for (int i = 0; i < VecOf<A, Isa>::kLanes; ++i) r |= uint32_t(m.raw[i] != 0) << i;
  return r;
#endif
}
template <class A, class Isa>
FV_HD bool any(MaskOf<A, Isa> m) {
  return bits(m) != 0;
}

// a * b + c, rounded once where the instruction set can.
template <class A, class Isa>
FV_HD VecOf<A, Isa> multiply_add(VecOf<A, Isa> a, VecOf<A, Isa> b, VecOf<A, Isa> c) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4) return _mm512_fmadd_ps(a.raw, b.raw, c.raw);
  else return _mm512_fmadd_pd(a.raw, b.raw, c.raw);
#elif defined(__FMA__)
  if constexpr (sizeof(A) == 4) return _mm256_fmadd_ps(a.raw, b.raw, c.raw);
  else return _mm256_fmadd_pd(a.raw, b.raw, c.raw);
#elif defined(__aarch64__)
  if constexpr (sizeof(A) == 4) return vfmaq_f32(c.raw, a.raw, b.raw);
  else return vfmaq_f64(c.raw, a.raw, b.raw);
#else
  return a.raw * b.raw + c.raw;
#endif
}

// Adds to the exponent of each lane of y the integer in the low bits of t (see exponential.h).
template <class A, class Isa>
FV_HD VecOf<A, Isa> add_to_exponent(VecOf<A, Isa> y, VecOf<A, Isa> t) {
  constexpr int kFractionBits = sizeof(A) == 4 ? 23 : 52;
  typedef std::conditional_t<sizeof(A) == 4, uint32_t, uint64_t> Bits __attribute__((vector_size(kVectorBytes)));
  return bit_cast<typename VecOf<A, Isa>::Raw>(bit_cast<Bits>(y.raw) + (bit_cast<Bits>(t.raw) << kFractionBits));
}

// f of all lanes, in a tree of fixed shape: of each half of the lanes with the other, then of halves of these.
template <class A, class Isa, class F>
FV_HD A fold_lanes(VecOf<A, Isa> v, F&& f) {
  constexpr int kLanes = VecOf<A, Isa>::kLanes;
  unrolled<__builtin_ctz(kLanes)>([&](auto k) FV_INLINE {
    const auto other = [&]<int... lane>(std::integer_sequence<int, lane...>) FV_INLINE {
      return __builtin_shufflevector(v.raw, v.raw, ((lane + (kLanes >> (k + 1))) % kLanes)...);
    };
    v = f(v, VecOf<A, Isa>(other(std::make_integer_sequence<int, kLanes>())));
  });
  return v[0];
}
template <class A, class Isa>
FV_HD A sum_of(VecOf<A, Isa> v) {
  return fold_lanes(v, [](auto a, auto b) FV_INLINE { return a + b; });
}
template <class A, class Isa>
FV_HD A max_of_lanes(VecOf<A, Isa> v) {
  return fold_lanes(v, [](auto a, auto b) FV_INLINE { return max_of(a, b); });
}

// A sum in as many lanes as the widest instruction set has: all of them add in the same order, if terms come in turn.
template <class A, class Isa>
struct GroupSumOf {
  static constexpr int kParts = 64 / kVectorBytes;
  static constexpr int64_t kLanes = kParts * VecOf<A, Isa>::kLanes;
  VecOf<A, Isa> parts[kParts];

  FV_HD GroupSumOf() {
    for (auto& part : parts) part = A(0);
  }
  FV_HD A total() const {  // a tree of fixed shape
    GroupSumOf sums = *this;
    for (int n = kParts / 2; n; n /= 2)
      for (int i = 0; i < n; ++i) sums.parts[i] = sums.parts[i] + sums.parts[i + n];
    return sum_of(sums.parts[0]);
  }
};
template <class A>
using GroupSum = GroupSumOf<A, FV_ISA>;

// Calls f(first lane, part of the group, how many lanes are in range) for the vectors of [0, n).
template <class A, class F>
FV_HD void for_each_vector(int64_t n, F&& f) {
  constexpr int64_t kGroup = GroupSum<A>::kLanes;
  const int64_t whole = n / kGroup * kGroup;
  for (int64_t i = 0; i < whole; i += kGroup)
    for (int part = 0; part < GroupSum<A>::kParts; ++part)
      f(i + part * kLanes<A>, part, std::integral_constant<int64_t, kLanes<A>>());
  for (int64_t i = whole; i < n; i += kLanes<A>) f(i, int((i - whole) / kLanes<A>), min_of(n - i, kLanes<A>));
}
template <class A, class Count>
FV_HD MaskOf<A, FV_ISA> lanes_in_range(Count count) {
  return {lanes_below<A>(count)};
}

}  // namespace fastvision
