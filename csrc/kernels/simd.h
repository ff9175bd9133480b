// Vectors as wide as the instruction set that the file is compiled for (see FV_ISA), on the vector extensions of GCC
// and Clang. The only file with intrinsics: where the extensions have no word for an instruction.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include <type_traits>
#include <utility>

#include "common.h"

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

template <class A, class Isa>
FV_HD A sum_of(VecOf<A, Isa> v) {  // a tree of fixed shape
  A lanes[VecOf<A, Isa>::kLanes];
  v.store(lanes);
  for (int step = VecOf<A, Isa>::kLanes / 2; step; step /= 2)
    for (int i = 0; i < step; ++i) lanes[i] += lanes[i + step];
  return lanes[0];
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
    A lanes[kLanes];
    for (int i = 0; i < kParts; ++i) parts[i].store(lanes + i * VecOf<A, Isa>::kLanes);
    for (int step = kLanes / 2; step; step /= 2)
      for (int i = 0; i < step; ++i) lanes[i] += lanes[i + step];
    return lanes[0];
  }
};
template <class A>
using GroupSum = GroupSumOf<A, FV_ISA>;

// Calls f(first lane, part of the group, how many lanes are in range) for the vectors of [0, n).
template <class A, class F>
FV_HD void for_each_vector(int64_t n, F&& f) {
  constexpr int64_t kLanes = Vec<A>::kLanes, kGroup = GroupSum<A>::kLanes;
  const int64_t whole = n / kGroup * kGroup;
  for (int64_t i = 0; i < whole; i += kGroup)
    for (int part = 0; part < GroupSum<A>::kParts; ++part)
      f(i + part * kLanes, part, std::integral_constant<int64_t, kLanes>());
  for (int64_t i = whole; i < n; i += kLanes) f(i, int((i - whole) / kLanes), min_of(n - i, kLanes));
}
template <class A, class Count>
FV_HD MaskOf<A, FV_ISA> lanes_in_range(Count count) {
  return {lanes_below<A>(count)};
}

// Loads and stores of storage type T as vectors of its accumulation type.
typedef uint16_t RawHalves __attribute__((vector_size(kVectorBytes / 2)));
typedef uint32_t RawBits __attribute__((vector_size(kVectorBytes)));

template <class T>
FV_HD Vec<float> from_halves(RawHalves halves) {
  Vec<float> v;
  if constexpr (T::kExponentBits == 8) {
    v.raw = bit_cast<Vec<float>::Raw>(__builtin_convertvector(halves, RawBits) << 16);
  } else {
#if defined(__AVX512F__)
    v.raw = _mm512_maskz_cvtph_ps(0xffff, __m256i(halves));
#elif defined(__AVX2__)
    v.raw = _mm256_cvtph_ps(__m128i(halves));
#else
    for (int i = 0; i < Vec<float>::kLanes; ++i) v.raw[i] = half_to_float(halves[i]);
#endif
  }
  return v;
}
template <class T>
FV_HD RawHalves to_halves(Vec<float> v) {
  RawHalves halves;
  if constexpr (T::kExponentBits == 8) {  // see float_to_bfloat16
    const RawBits u = bit_cast<RawBits>(v.raw), rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
    const RawBits nan = RawBits((u & 0x7fffffffu) > 0x7f800000u);
    halves = __builtin_convertvector((nan & (u >> 16 | 0x0040u)) | (~nan & rounded), RawHalves);
  } else {
#if defined(__AVX512F__)
    halves = RawHalves(_mm512_maskz_cvtps_ph(0xffff, v.raw, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
    halves = RawHalves(_mm256_cvtps_ph(v.raw, _MM_FROUND_TO_NEAREST_INT));
#else
    for (int i = 0; i < Vec<float>::kLanes; ++i) halves[i] = float_to_half(v.raw[i]);
#endif
  }
  return halves;
}

template <class T>
FV_HD Vec<Accum<T>> load_vector(const T* p) {
  if constexpr (sizeof(T) == sizeof(Accum<T>)) {
    return Vec<T>::load(p);
  } else {
    RawHalves halves;
    memcpy(&halves, p, sizeof halves);
    return from_halves<T>(halves);
  }
}
template <class T>
FV_HD void store_vector(T* p, Vec<Accum<T>> v) {
  if constexpr (sizeof(T) == sizeof(Accum<T>)) {
    v.store(p);
  } else {
    const RawHalves halves = to_halves<T>(v);
    memcpy(p, &halves, sizeof halves);
  }
}
// All lanes: what for_each_vector calls with whole vectors.
template <class T>
FV_HD Vec<Accum<T>> load_vector(const T* p, std::integral_constant<int64_t, Vec<Accum<T>>::kLanes>) {
  return load_vector(p);
}
template <class T>
FV_HD void store_vector(T* p, Vec<Accum<T>> v, std::integral_constant<int64_t, Vec<Accum<T>>::kLanes>) {
  store_vector(p, v);
}
// The first n lanes; the others are zero, or left alone. Memory behind them is not touched.
template <class T>
FV_HD Vec<Accum<T>> load_vector(const T* p, int64_t n) {
#if defined(__AVX512F__)
  const uint32_t lanes = (1u << n) - 1;
  if constexpr (sizeof(T) == 4) return Vec<float>(_mm512_maskz_loadu_ps(__mmask16(lanes), p));
  else if constexpr (sizeof(T) == 8) return Vec<double>(_mm512_maskz_loadu_pd(__mmask8(lanes), p));
  else return from_halves<T>(RawHalves(_mm256_maskz_loadu_epi16(__mmask16(lanes), p)));
#else
  if (n == Vec<Accum<T>>::kLanes) return load_vector(p);
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return Vec<float>(_mm256_maskload_ps(p, __m256i(lanes_below<float>(n))));
  else if constexpr (sizeof(T) == 8) return Vec<double>(_mm256_maskload_pd(p, __m256i(lanes_below<double>(n))));
#endif
  T lanes_in_memory[Vec<Accum<T>>::kLanes] = {};
  memcpy(lanes_in_memory, p, size_t(n) * sizeof(T));
  return load_vector(lanes_in_memory);
#endif
}
template <class T>
FV_HD void store_vector(T* p, Vec<Accum<T>> v, int64_t n) {
#if defined(__AVX512F__)
  const uint32_t lanes = (1u << n) - 1;
  if constexpr (sizeof(T) == 4) return _mm512_mask_storeu_ps(p, __mmask16(lanes), v.raw);
  else if constexpr (sizeof(T) == 8) return _mm512_mask_storeu_pd(p, __mmask8(lanes), v.raw);
  else return _mm256_mask_storeu_epi16(p, __mmask16(lanes), __m256i(to_halves<T>(v)));
#else
  if (n == Vec<Accum<T>>::kLanes) return store_vector(p, v);
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return _mm256_maskstore_ps(p, __m256i(lanes_below<float>(n)), v.raw);
  else if constexpr (sizeof(T) == 8) return _mm256_maskstore_pd(p, __m256i(lanes_below<double>(n)), v.raw);
#endif
  T lanes_in_memory[Vec<Accum<T>>::kLanes];
  store_vector(lanes_in_memory, v);
  memcpy(p, lanes_in_memory, size_t(n) * sizeof(T));
#endif
}

// Lanes that lie `stride` apart in memory.
template <class T>
FV_HD Vec<Accum<T>> load_strided(const T* p, int64_t stride, int64_t n) {
  if (stride == 1) return n == Vec<Accum<T>>::kLanes ? load_vector(p) : load_vector(p, n);
  Accum<T> lanes[Vec<Accum<T>>::kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = to_accum(p[i * stride]);
  return Vec<Accum<T>>::load(lanes);
}
template <class T>
FV_HD void store_strided(T* p, int64_t stride, Vec<Accum<T>> v, int64_t n) {
  if (stride == 1) return n == Vec<Accum<T>>::kLanes ? store_vector(p, v) : store_vector(p, v, n);
  Accum<T> lanes[Vec<Accum<T>>::kLanes];
  v.store(lanes);
  for (int64_t i = 0; i < n; ++i) p[i * stride] = from_accum<T>(lanes[i]);
}

// Lanes of a and b in turn: the lower halves, then the upper halves.
template <class A, class Isa, int... kLane>
FV_HD void interleave(VecOf<A, Isa> a, VecOf<A, Isa> b, VecOf<A, Isa>& low, VecOf<A, Isa>& high,
                      std::integer_sequence<int, kLane...>) {
  constexpr int kLanes = VecOf<A, Isa>::kLanes;
  low = __builtin_shufflevector(a.raw, b.raw, (kLane / 2 + kLane % 2 * kLanes)...);
  high = __builtin_shufflevector(a.raw, b.raw, (kLanes / 2 + kLane / 2 + kLane % 2 * kLanes)...);
}
// The opposite: lanes 0, 2, 4 ... of both, and 1, 3, 5 ...
template <class A, class Isa, int... kLane>
FV_HD void part(VecOf<A, Isa> low, VecOf<A, Isa> high, VecOf<A, Isa>& even, VecOf<A, Isa>& odd,
                std::integer_sequence<int, kLane...>) {
  even = __builtin_shufflevector(low.raw, high.raw, (2 * kLane)...);
  odd = __builtin_shufflevector(low.raw, high.raw, (2 * kLane + 1)...);
}
// to[j * to_stride + i] = from[i * from_stride + j] for i < rows, j < columns.
template <class To, class From>
FV_HD void transpose(const From* from, int64_t from_stride, int64_t rows, int64_t columns, To* to, int64_t to_stride) {
  static_assert(std::is_same_v<Accum<To>, Accum<From>>);
  using V = Vec<Accum<From>>;
  constexpr int64_t kLanes = V::kLanes;
  for (int64_t i = 0; i < rows; i += kLanes)
    for (int64_t j = 0; j < columns; j += kLanes) {
      const int64_t height = min_of(kLanes, rows - i), width = min_of(kLanes, columns - j);
      V v[kLanes], mixed[kLanes];
      for (int64_t k = 0; k < kLanes; ++k) {
        const From* p = from + (i + min_of(k, height - 1)) * from_stride + j;
        v[k] = width == kLanes ? load_vector(p) : load_vector(p, width);
      }
      for (int64_t step = 1; step < kLanes; step *= 2) {
        for (int64_t k = 0; k < kLanes / 2; ++k)
          interleave(v[k], v[k + kLanes / 2], mixed[2 * k], mixed[2 * k + 1],
                     std::make_integer_sequence<int, int(kLanes)>());
        for (int64_t k = 0; k < kLanes; ++k) v[k] = mixed[k];
      }
      for (int64_t k = 0; k < width; ++k) {
        To* p = to + (j + k) * to_stride + i;
        if (height == kLanes) store_vector(p, v[k]);
        else store_vector(p, v[k], height);
      }
    }
}

// Indices of lanes as 32-bit integers.
template <class A>
FV_HD void store_indices(int32_t* p, IndexVec<A> index) {
  typedef int32_t Narrow __attribute__((vector_size(kVectorBytes / sizeof(A) * sizeof(int32_t))));
  const Narrow narrow = __builtin_convertvector(index, Narrow);
  memcpy(p, &narrow, sizeof narrow);
}

// A byte per lane, 0 or 1.
template <class A, class Isa>
FV_HD void store_bytes(uint8_t* p, MaskOf<A, Isa> m) {
  typedef uint8_t Bytes __attribute__((vector_size(VecOf<A, Isa>::kLanes)));
  const Bytes bytes = __builtin_convertvector(m.raw, Bytes) & 1;
  memcpy(p, &bytes, sizeof bytes);
}

// values[index] for every lane.
template <class A>
FV_HD Vec<A> gather(const A* values, const int32_t* index) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4)
    return Vec<A>(_mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xffff, _mm512_loadu_si512(index), values, 4));
#elif defined(__AVX2__)
  if constexpr (sizeof(A) == 4)
    return Vec<A>(_mm256_i32gather_ps(values, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index)), 4));
#endif
  Vec<A> v;
  for (int i = 0; i < Vec<A>::kLanes; ++i) v.raw[i] = values[index[i]];
  return v;
}

// The same from two vectors that hold the values, for indices below twice the lanes.
template <class A>
FV_HD Vec<A> lookup(Vec<A> first, Vec<A> second, const int32_t* index) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4) return Vec<A>(_mm512_permutex2var_ps(first.raw, _mm512_loadu_si512(index), second.raw));
#endif
  A values[2 * Vec<A>::kLanes];
  first.store(values);
  second.store(values + Vec<A>::kLanes);
  return gather(values, index);
}

// Words of bits, as many as a vector holds.
typedef uint64_t RawWords __attribute__((vector_size(kVectorBytes)));

// One bit for each of 64 bytes, the first in the lowest bit: whether it differs from 0.
FV_HD uint64_t nonzero_bits(const uint8_t* p) {
#if defined(__AVX512BW__)
  const __m512i v = _mm512_loadu_si512(p);
  return _mm512_test_epi8_mask(v, v);
#elif defined(__AVX2__)
  const auto zeros = [p](int i) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i));
    return uint64_t(uint32_t(_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, _mm256_setzero_si256()))));
  };
  return ~(zeros(0) | zeros(32) << 32);
#elif defined(__SSE2__)
  const auto zeros = [p](int i) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i));
    return uint64_t(_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_setzero_si128())));
  };
  return ~(zeros(0) | zeros(16) << 16 | zeros(32) << 32 | zeros(48) << 48);
#else
  uint64_t r = 0;
  for (int i = 0; i < 64; ++i) r |= uint64_t(p[i] != 0) << i;
  return r;
#endif
}

}  // namespace fastvision
