// Bits are counted by carry-save adders (Harley and Seal): 16 vectors of words become one vector of sixteens and a few
// that are carried on, so that the count proper is made for every sixteenth vector only, on any instruction set.
#include "mask_iou.h"

#include "simd_integers.h"

namespace fastvision {
namespace {

constexpr int64_t kVectorWords = kVectorBytes / 8;
constexpr int64_t kStrip = 1024;  // words of each mask that are worked on together, to stay in the caches

FV_HD RawWords load_words(const uint64_t* p) {
  RawWords v;
  memcpy(&v, p, sizeof v);
  return v;
}

// The number of set bits in each word.
FV_HD RawWords bit_counts(RawWords v) {
  v -= v >> 1 & 0x5555555555555555u;
  v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
  v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  v += v >> 8;
  v += v >> 16;
  v += v >> 32;
  return v & 0xff;
}

// Adds two vectors to a sum, bit by bit; returns what carries over.
FV_HD RawWords add_bits(RawWords& sum, RawWords x, RawWords y) {
  const RawWords half = sum ^ x, carry = (sum & x) | (half & y);
  sum = half ^ y;
  return carry;
}

// Set bits of a & b. n is a multiple of 8.
FV_HD uint32_t count_common(const uint64_t* a, const uint64_t* b, int64_t n) {
  const auto both = [&](int64_t i) { return load_words(a + i * kVectorWords) & load_words(b + i * kVectorWords); };
  const int64_t vectors = n / kVectorWords;
  RawWords total{}, ones{}, twos{}, fours{}, eights{};
  int64_t i = 0;
  for (; i + 16 <= vectors; i += 16) {
    const auto four_carry = [&](int64_t at) {
      const RawWords first = add_bits(ones, both(at), both(at + 1)),
                     second = add_bits(ones, both(at + 2), both(at + 3));
      return add_bits(twos, first, second);
    };
    const auto eight_carry = [&](int64_t at) {
      const RawWords first = four_carry(at), second = four_carry(at + 4);
      return add_bits(fours, first, second);
    };
    const RawWords first = eight_carry(i), second = eight_carry(i + 8);
    total += bit_counts(add_bits(eights, first, second));
  }
  total = total * 16 + bit_counts(eights) * 8 + bit_counts(fours) * 4 + bit_counts(twos) * 2 + bit_counts(ones);
  for (; i < vectors; ++i) total += bit_counts(both(i));
  uint64_t sum = 0;
  for (int lane = 0; lane < kVectorWords; ++lane) sum += total[lane];
  return uint32_t(sum);
}

// The bits of n pixels to the bytes of a row; the bits behind them are 0.
FV_HD void pack_row(const uint8_t* pixels, int64_t n, uint8_t* out) {
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    const uint64_t bits = nonzero_bits(pixels + i);
    memcpy(out + i / 8, &bits, sizeof bits);
  }
  if (i == n) return;
  uint8_t rest[64] = {};
  memcpy(rest, pixels + i, size_t(n - i));
  const uint64_t bits = nonzero_bits(rest);
  memcpy(out + i / 8, &bits, size_t(ceil_div(n - i, int64_t(8))));
}

}  // namespace

template <class Isa>
void pack_masks(const MaskShape& s, const uint8_t* masks, const int64_t* order, uint64_t* words, uint32_t* areas,
                const Cpu<Isa>& exec) {
  const int64_t bytes = s.height * s.width, used = s.height * s.row_bytes();
  if (bytes == 0) {  // there is no memory to write to
    for (int64_t n = 0; n < s.batch * s.masks; ++n) areas[n] = 0;
    return;
  }
  exec(s.batch * s.masks, 1 + (int64_t(1) << 18) / (bytes + 1), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const uint8_t* mask = masks + (order ? n / s.masks * s.masks + order[n] : n) * bytes;
      uint64_t* to = words + n * s.words();
      uint8_t* out = reinterpret_cast<uint8_t*>(to);
      memset(out + used, 0, size_t(s.words() * 8 - used));
      if (!s.dense) memcpy(out, mask, size_t(bytes));
      else if (s.width % 8 == 0) pack_row(mask, bytes, out);
      else
        for (int64_t y = 0; y < s.height; ++y) pack_row(mask + y * s.width, s.width, out + y * s.row_bytes());
      areas[n] = count_common(to, to, s.words());
    }
  });
}

template <class Isa>
void count_intersections(const MaskPairs& p, const uint64_t* a, const uint64_t* b, uint32_t* counts,
                         const Cpu<Isa>& exec) {
  const int64_t row_work = p.cols * (p.words + 16);
  exec(p.batch * p.rows, 1 + (int64_t(1) << 16) / (row_work + 1), [&](int64_t begin, int64_t end) {
    for (int64_t strip = 0; strip == 0 || strip < p.words; strip += kStrip) {
      const int64_t here = min_of(kStrip, p.words - strip);
      for (int64_t r = begin; r < end; ++r) {
        const int64_t n = r / p.rows;
        const uint64_t* row = a + (n * p.a_stride + r % p.rows) * p.words + strip;
        uint32_t* to = counts + r * p.stride;
        for (int64_t c = 0; c < min_of(p.cols, r % p.rows + p.diagonal); ++c) {
          const uint32_t count = count_common(row, b + (n * p.b_stride + c) * p.words + strip, here);
          to[c] = strip == 0 ? count : to[c] + count;
        }
      }
    }
  });
}

template <class Isa>
void mask_overlaps(const MaskPairs& p, const uint32_t* areas_a, const uint32_t* areas_b, const bool* crowd,
                   float* counts, const Cpu<Isa>& exec) {
  exec(p.batch * p.rows, 1 + 4096 / (p.cols + 1), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t set = r / p.rows * p.cols;
      float* row = counts + r * p.stride;
      for (int64_t c = 0; c < p.cols; ++c)
        row[c] = mask_overlap(bit_cast<uint32_t>(row[c]), areas_a[r], areas_b[set + c], crowd && crowd[set + c]);
    }
  });
}

template void pack_masks(const MaskShape&, const uint8_t*, const int64_t*, uint64_t*, uint32_t*, const CpuExec&);
template void count_intersections(const MaskPairs&, const uint64_t*, const uint64_t*, uint32_t*, const CpuExec&);
template void mask_overlaps(const MaskPairs&, const uint32_t*, const uint32_t*, const bool*, float*, const CpuExec&);

}  // namespace fastvision
