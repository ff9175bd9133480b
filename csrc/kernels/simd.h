// Vectors (simd_arithmetic.h) in memory: loads, stores and transpositions. (Integers: simd_integers.h.)
#pragma once

#include "simd_arithmetic.h"
#include "unrolled.h"

namespace fastvision {

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
    for (int i = 0; i < kLanes<float>; ++i) v.raw[i] = half_to_float(halves[i]);
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
    for (int i = 0; i < kLanes<float>; ++i) halves[i] = float_to_half(v.raw[i]);
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
FV_HD Vec<Accum<T>> load_vector(const T* p, std::integral_constant<int64_t, kLanes<Accum<T>>>) {
  return load_vector(p);
}
template <class T>
FV_HD void store_vector(T* p, Vec<Accum<T>> v, std::integral_constant<int64_t, kLanes<Accum<T>>>) {
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
  if (n == kLanes<Accum<T>>) return load_vector(p);
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return Vec<float>(_mm256_maskload_ps(p, __m256i(lanes_below<float>(n))));
  else if constexpr (sizeof(T) == 8) return Vec<double>(_mm256_maskload_pd(p, __m256i(lanes_below<double>(n))));
#endif
  T lanes_in_memory[kLanes<Accum<T>>] = {};
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
  if (n == kLanes<Accum<T>>) return store_vector(p, v);
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return _mm256_maskstore_ps(p, __m256i(lanes_below<float>(n)), v.raw);
  else if constexpr (sizeof(T) == 8) return _mm256_maskstore_pd(p, __m256i(lanes_below<double>(n)), v.raw);
#endif
  T lanes_in_memory[kLanes<Accum<T>>];
  store_vector(lanes_in_memory, v);
  memcpy(p, lanes_in_memory, size_t(n) * sizeof(T));
#endif
}

// Puts lanes `stride` apart into memory.
template <class T>
FV_HD void store_strided(T* p, int64_t stride, Vec<Accum<T>> v, int64_t n) {
  if (stride == 1) return n == kLanes<Accum<T>> ? store_vector(p, v) : store_vector(p, v, n);
  Accum<T> lanes[kLanes<Accum<T>>];
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
// Lanes that lie `stride` apart in memory.
template <class T>
FV_HD Vec<Accum<T>> load_strided(const T* p, int64_t stride, int64_t n) {
  using V = Vec<Accum<T>>;
  if (stride == 1) return n == V::kLanes ? load_vector(p) : load_vector(p, n);
  if (stride == 2 && n > 0) {
    const int64_t reach = 2 * n - 1, behind = reach - V::kLanes;
    const V low = behind >= 0 ? load_vector(p) : load_vector(p, reach);
    V even, odd;
    part(low, behind > 0 ? load_vector(p + V::kLanes, behind) : V(Accum<T>(0)), even, odd,
         std::make_integer_sequence<int, V::kLanes>());
    return even;
  }
  Accum<T> lanes[V::kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = to_accum(p[i * stride]);
  return V::load(lanes);
}
template <class To, class From>
FV_HD void copy_numbers(const From* from, int64_t count, To* to) {
  static_assert(std::is_same_v<Accum<To>, Accum<From>>);
  for_each_vector<Accum<To>>(
      count, [&](int64_t i, int, auto n) FV_INLINE { store_vector(to + i, load_vector(from + i, n), n); });
}
// Whether a vector that is stored as T is a line, the bytes that travel together between memory and caches.
template <class T>
inline constexpr bool kVectorIsLine = kVectorBytes == 64 && sizeof(T) == sizeof(Accum<T>);

// Whether a vector that begins here fills a line.
template <class T>
FV_HD bool starts_line(const T* p) {
  return kVectorIsLine<T> && reinterpret_cast<uintptr_t>(p) % uintptr_t(kVectorBytes) == 0;
}

// Vectors that are fetched before they are needed, where there are more planes than the machine's prefetchers follow.
constexpr int64_t kAhead = 8;

// Results of at least as many bytes are larger than caches.
constexpr int64_t kStreamedBytes = int64_t(32) << 20;

// Stores a line past the caches: for a result that is larger than they are and is not written from front to back. Call
// finish_streaming after the last one.
template <class T>
FV_HD void stream_line(T* p, Vec<Accum<T>> v) {
#if defined(__AVX512F__)
  if constexpr (kVectorIsLine<T>) return _mm512_stream_si512(reinterpret_cast<__m512i*>(p), __m512i(v.raw));
#endif
  store_vector(p, v);
}
// A vector of a result, past the caches where it may be and fills a line.
template <class T>
FV_HD void store_result(T* p, Vec<Accum<T>> v, bool past_caches) {
  if (past_caches && starts_line(p)) stream_line(p, v);
  else store_vector(p, v);
}
template <class T>
FV_HD void store_result(T* p, Vec<Accum<T>> v, int64_t count, bool past_caches) {
  if (count == kLanes<Accum<T>>) store_result(p, v, past_caches);
  else store_vector(p, v, count);
}
FV_HD void finish_streaming() {
#if defined(__AVX512F__)
  _mm_sfence();
#endif
}

// to[j * to_stride + i] = from[i * from_stride + j] for i < rows, j < columns. Blocks of vectors are in registers.
// past_caches: see store_result.
template <class To, class From>
FV_HD void transpose(const From* from, int64_t from_stride, int64_t rows, int64_t columns, To* to, int64_t to_stride,
                     bool past_caches = false) {
  static_assert(std::is_same_v<Accum<To>, Accum<From>>);
  using V = Vec<Accum<From>>;
  constexpr int kLanes = V::kLanes;
  for (int64_t i = 0; i < rows; i += kLanes)
    for (int64_t j = 0; j < columns; j += kLanes) {
      const int64_t height = min_of<int64_t>(kLanes, rows - i), width = min_of<int64_t>(kLanes, columns - j);
      V v[kLanes], mixed[kLanes];
      unrolled<kLanes>([&](auto k) FV_INLINE {
        const From* p = from + (i + min_of<int64_t>(k, height - 1)) * from_stride + j;
        v[k] = width == kLanes ? load_vector(p) : load_vector(p, width);
      });
      unrolled<__builtin_ctz(kLanes)>([&](auto) FV_INLINE {
        unrolled<kLanes / 2>([&](auto k) FV_INLINE {
          interleave(v[k], v[k + kLanes / 2], mixed[2 * k], mixed[2 * k + 1],
                     std::make_integer_sequence<int, kLanes>());
        });
        unrolled<kLanes>([&](auto k) FV_INLINE { v[k] = mixed[k]; });
      });
      unrolled<kLanes>([&](auto k) FV_INLINE {
        if (k >= width) return;
        To* p = to + (j + k) * to_stride + i;
        store_result(p, v[k], height, past_caches);
      });
    }
}

}  // namespace fastvision
