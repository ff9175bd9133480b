// Run lengths of a mask that changes so often that sorting its changes is what takes time: its pixels as bits, 64
// columns at a time, in blocks that are transposed, so that changes come out in column-major order.
#pragma once

#include <array>
#include <vector>

#include "common.h"
#include "rle.h"

namespace fastvision {
namespace {

using BitBlock = std::array<uint64_t, 64>;

// Bit i of word j becomes bit j of word i: halves, quarters, ... of the block change places.
inline void transpose(BitBlock& block) {
  uint64_t mask = 0xffffffffu;
  for (size_t half = 32; half; half /= 2, mask ^= mask << half)
    for (size_t i = 0; i < 64; i = ((i | half) + 1) & ~half) {
      const uint64_t change = ((block[i] >> half) ^ block[i | half]) & mask;
      block[i] ^= change << half;
      block[i | half] ^= change;
    }
}

// rows.bits(y, x, n): n pixels, at most 64, from (y, x) on; the others are 0.
template <class Rows>
void encode_noise(const Rows& rows, RunEnds& mask, std::vector<uint32_t>& changes) {
  const int64_t h = mask.height, w = mask.width;
  std::vector<BitBlock> strip(size_t(ceil_div(h, int64_t(64))));
  changes.resize(size_t(h) + 64);
  uint64_t before = 0;  // the last pixel
  for (int64_t first = 0; first < w; first += 64) {
    const int64_t columns = min_of(w - first, int64_t(64));
    for (int64_t y = 0; y < h; ++y) strip[size_t(y / 64)][size_t(y % 64)] = rows.bits(y, first, columns);
    for (int64_t y = h; y % 64; ++y) strip[size_t(y / 64)][size_t(y % 64)] = 0;
    for (BitBlock& block : strip) transpose(block);
    for (int64_t x = 0; x < columns; ++x) {
      uint32_t* end = changes.data();
      for (int64_t y = 0; y < h; y += 64) {
        const int64_t down = min_of(h - y, int64_t(64));
        const uint64_t pixels = strip[size_t(y / 64)][size_t(x)];
        uint64_t changed = pixels ^ (pixels << 1 | before);
        if (down < 64) changed &= (uint64_t(1) << down) - 1;
        before = pixels >> (down - 1) & 1;
        const int64_t at = (first + x) * h + y;
        for (; changed; changed &= changed - 1) *end++ = uint32_t(at + __builtin_ctzll(changed));
      }
      mask.ends.insert(mask.ends.end(), changes.data(), end);
    }
  }
  mask.ends.push_back(uint32_t(h * w));
}

}  // namespace
}  // namespace fastvision
