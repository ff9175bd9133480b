// Which bytes differ from 0, as bits.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include <cstring>

#include "common.h"

namespace fastvision {

FV_HD uint64_t load_word(const uint8_t* p) {
  uint64_t word;
  memcpy(&word, p, sizeof word);
  return word;
}

// The top bit of every byte that is not 0.
FV_HD uint64_t nonzero_top_bits(uint64_t word) {
  constexpr uint64_t kTop = 0x8080808080808080u;
  return (((word & ~kTop) + ~kTop) | word) & kTop;
}

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
  constexpr uint64_t kToOneByte = 0x0102040810204080u;  // a bit in each byte, moved next to each other into the last
  uint64_t r = 0;
  for (int k = 0; k < 8; ++k) r |= (nonzero_top_bits(load_word(p + 8 * k)) >> 7) * kToOneByte >> 56 << (8 * k);
  return r;
#endif
}

}  // namespace fastvision
