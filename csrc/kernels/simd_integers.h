// Integers in vectors: indices and bytes per lane, and lookups.
#pragma once

#include "nonzero_bytes.h"
#include "simd.h"

namespace fastvision {

// Indices of lanes as 32-bit integers.
template <class A>
FV_HD void store_indices(int32_t* p, IndexVec<A> index) {
  typedef int32_t Narrow __attribute__((vector_size(kVectorBytes / sizeof(A) * sizeof(int32_t))));
  const Narrow narrow = __builtin_convertvector(index, Narrow);
  memcpy(p, &narrow, sizeof narrow);
}

// As many lanes from lane k on as 64-bit integers fill a vector, and the same back.
template <class A>
FV_HD IndexVec<double> wide_lanes(const IndexVec<A>& lanes, int k) {
  if constexpr (sizeof(A) == 8) {
    return lanes;
  } else {
    typedef int32_t Narrow __attribute__((vector_size(kVectorBytes / 2)));
    Narrow narrow;
    memcpy(&narrow, reinterpret_cast<const char*>(&lanes) + k * sizeof(int32_t), sizeof narrow);
    return __builtin_convertvector(narrow, IndexVec<double>);
  }
}
template <class A>
FV_HD void set_wide_lanes(IndexVec<A>& lanes, int k, IndexVec<double> wide) {
  if constexpr (sizeof(A) == 8) {
    lanes = wide;
  } else {
    int32_t narrow[kLanes<double>];
    store_indices<double>(narrow, wide);
    memcpy(reinterpret_cast<char*>(&lanes) + k * sizeof(int32_t), narrow, sizeof narrow);
  }
}

// A byte per lane. Twice as wide or half as wide at a time: other conversions GCC 12 makes one by one.
template <class A>
struct LanesAsBytes {
  typedef uint8_t Bytes __attribute__((vector_size(kLanes<A>)));
  typedef uint16_t Halves __attribute__((vector_size(2 * kLanes<A>)));
  typedef uint32_t Words __attribute__((vector_size(4 * kLanes<A>)));
};
template <class A>
FV_HD IndexVec<A> load_bytes(const uint8_t* p) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4)
    return IndexVec<A>(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
  if constexpr (sizeof(A) == 4)
    return IndexVec<A>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#endif
  typename LanesAsBytes<A>::Bytes bytes;
  memcpy(&bytes, p, sizeof bytes);
  const auto halves = __builtin_convertvector(bytes, typename LanesAsBytes<A>::Halves);
  return __builtin_convertvector(__builtin_convertvector(halves, typename LanesAsBytes<A>::Words), IndexVec<A>);
}
// The first n; the others are 0.
template <class A>
FV_HD IndexVec<A> load_bytes(const uint8_t* p, int64_t n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4)
    return IndexVec<A>(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(__mmask16((1u << n) - 1), p)));
#endif
  uint8_t bytes[kLanes<A>] = {};
  memcpy(bytes, p, size_t(n));
  return load_bytes<A>(bytes);
}
template <class A>
FV_HD void store_bytes(uint8_t* p, IndexVec<A> lanes, int64_t n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4)
    return _mm_mask_storeu_epi8(p, __mmask16((1u << n) - 1), _mm512_cvtepi32_epi8(__m512i(lanes)));
#endif
  const auto words = __builtin_convertvector(lanes, typename LanesAsBytes<A>::Words);
  const auto halves = __builtin_convertvector(words, typename LanesAsBytes<A>::Halves);
  const auto bytes = __builtin_convertvector(halves, typename LanesAsBytes<A>::Bytes);
  if (n == kLanes<A>) memcpy(p, &bytes, sizeof bytes);
  else memcpy(p, &bytes, size_t(n));
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
  for (int i = 0; i < kLanes<A>; ++i) v.raw[i] = values[index[i]];
  return v;
}

// The same where `kVectors` vectors, at most four, hold the values: in registers where one instruction looks them up.
template <class A, int kVectors>
class Table {
  static_assert(kVectors >= 1 && kVectors <= 4);

#if defined(__AVX512F__)
  static constexpr bool kInRegisters = sizeof(A) == 4;
#else
  static constexpr bool kInRegisters = false;
#endif

 public:
  Table() = default;
  FV_HD explicit Table(const Vec<A> (&vectors)[kVectors]) {
    for (int i = 0; i < kVectors; ++i) {
      if constexpr (kInRegisters) values_[i] = vectors[i];
      else vectors[i].store(values_ + i * kLanes<A>);
    }
  }
  FV_HD Vec<A> at(const int32_t* index) const {
#if defined(__AVX512F__)
    if constexpr (kInRegisters) {
      const __m512i i = _mm512_loadu_si512(index);
      const __m512 low = _mm512_permutex2var_ps(values_[0].raw, i, values_[kVectors > 1].raw);
      if constexpr (kVectors <= 2) return Vec<A>(low);
      const __m512 high = _mm512_permutex2var_ps(values_[kVectors > 2 ? 2 : 0].raw, i, values_[kVectors - 1].raw);
      return Vec<A>(_mm512_mask_mov_ps(low, _mm512_test_epi32_mask(i, _mm512_set1_epi32(2 * kLanes<A>)), high));
    }
#endif
    if constexpr (!kInRegisters) return gather(values_, index);
  }

 private:
  std::conditional_t<kInRegisters, Vec<A>, A> values_[kInRegisters ? kVectors : kVectors * kLanes<A>];
};

// Words of bits, as many as a vector holds.
typedef uint64_t RawWords __attribute__((vector_size(kVectorBytes)));

}  // namespace fastvision
