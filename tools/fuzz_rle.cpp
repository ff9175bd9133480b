// What tools/fuzz_rle.py runs on each input: masks read from hostile run lengths keep the promises of rle.h.

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "../csrc/kernels/rle.h"

namespace {

using namespace fastvision;

void require(bool ok) {
  if (!ok) std::abort();
}

// Two bytes: a size, small enough to decode or anything up to 2^40.
int64_t side(const uint8_t* bytes) {
  const int64_t low = bytes[0], shift = bytes[1] % 64;
  return shift < 32 ? low : low << (shift - 24) | bytes[1];
}

void check_mask(const RunEnds& mask) {
  const int64_t pixels = mask.height * mask.width, area = rle_area(mask);
  require(area >= 0 && area <= pixels);
  const RunEnds again = rle_from_string(rle_to_string(mask), mask.height, mask.width);
  require(rle_area(again) == area && rle_intersection(mask, again) == area);
  require(rle_area(rle_merge({mask, again}, true)) == area && rle_area(rle_merge({mask, again}, false)) == area);
  const PixelBox box = rle_box(mask);
  require(box.x >= 0 && box.y >= 0 && box.x + box.width <= mask.width && box.y + box.height <= mask.height);
  require(area <= box.width * box.height);
  if (pixels > 1 << 16) return;
  RleScratch scratch;
  std::vector<uint8_t> dense(pixels);
  rle_decode(mask, dense.data(), scratch);
  int64_t ones = 0;
  for (int64_t i = 0; i < pixels; ++i) {
    if (!dense[i]) continue;
    const int64_t y = i / mask.width, x = i % mask.width;
    ++ones;
    require(x >= box.x && y >= box.y && x < box.x + box.width && y < box.y + box.height);
  }
  require(ones == area);
  const RunEnds encoded = rle_encode({dense.data(), mask.height, mask.width, mask.width, 1}, scratch);
  require(rle_area(encoded) == area && rle_intersection(encoded, mask) == area);
  std::vector<uint8_t> packed(mask.height * row_bytes(mask.width));
  for (int64_t i = 0; i < pixels; ++i) {
    const int64_t y = i / mask.width, x = i % mask.width;
    packed[y * row_bytes(mask.width) + x / 8] |= dense[i] << x % 8;
  }
  require(rle_encode_bits(packed.data(), mask.height, mask.width, scratch).ends == encoded.ends);
}

}  // namespace

extern "C" void fuzz_rle(const uint8_t* bytes, size_t size) {
  if (size < 5) return;
  const int64_t height = side(bytes + 1), width = side(bytes + 3);
  const uint8_t *data = bytes + 5, *end = bytes + size;
  try {
    if (bytes[0] % 2) {
      check_mask(rle_from_string({reinterpret_cast<const char*>(data), size_t(end - data)}, height, width));
    } else {
      std::vector<int64_t> counts;  // each of 1, 2 or 8 bytes
      while (data < end) {
        const int length = *data % 16 == 0 ? 8 : *data % 4 == 0 ? 2 : 1;
        uint64_t count = *data++ / 4;
        for (int i = 1; i < length && data < end; ++i) count = count << 8 | *data++;
        counts.push_back(int64_t(count));
      }
      check_mask(rle_from_counts(counts, height, width));
    }
  } catch (const std::invalid_argument&) {
  }
}
