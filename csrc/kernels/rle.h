// Binary masks as run lengths, in the format of the COCO dataset (Lin et al., ECCV 2014): pixels in column-major order,
// background first, counts of at most 32 bits. Every function throws std::invalid_argument where its input is wrong.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace fastvision {

// A mask by where its runs end: run i covers [ends[i - 1], ends[i]) of the column-major pixels and is foreground if i
// is odd. Ends never decrease and the last one is height * width.
struct RunEnds {
  int64_t height = 0, width = 0;
  std::vector<uint32_t> ends;
};

// A dense mask; every byte but 0 is foreground. Strides in bytes.
struct MaskView {
  const uint8_t* data;
  int64_t height, width, row_stride, column_stride;
};

struct PixelBox {
  int64_t x, y, width, height;
};

// Memory that encoding and decoding use again from mask to mask.
struct RleScratch {
  std::vector<uint32_t> columns, rows, starts;
  std::vector<uint8_t> copy;
};

constexpr int64_t kMaxMaskPixels = 0xffffffff;
// Beyond this many pixels a polygon's coordinates could not be sampled as the format prescribes.
constexpr double kMaxPolygonCoordinate = 1e6;

template <class... Parts>
[[noreturn]] void fail_mask(const Parts&... parts) {
  std::string text;
  ((text += parts), ...);
  throw std::invalid_argument(text);
}

// Checks a mask's size, which must be known good before anything else is computed from it.
void check_mask_size(int64_t height, int64_t width);

RunEnds rle_from_counts(const std::vector<int64_t>& counts, int64_t height, int64_t width);
RunEnds rle_from_string(std::string_view text, int64_t height, int64_t width);
std::string rle_to_string(const RunEnds&);

RunEnds rle_encode(const MaskView&, RleScratch&);
// Eight pixels to a byte, the first in the lowest bit; each row begins with a byte.
RunEnds rle_encode_bits(const uint8_t* bits, int64_t height, int64_t width, RleScratch&);
inline int64_t row_bytes(int64_t width) { return width / 8 + (width % 8 != 0); }
// mask: row-major height * width zeros; foreground becomes 1.
void rle_decode(const RunEnds&, uint8_t* mask, RleScratch&);

int64_t rle_area(const RunEnds&);
PixelBox rle_box(const RunEnds&);  // all zero for an empty mask
int64_t rle_intersection(const RunEnds&, const RunEnds&);
// Union or intersection of masks of one size, at least one of them.
RunEnds rle_merge(const std::vector<RunEnds>&, bool intersect);

// The pixels inside a polygon of `points` corners x, y, by the COCO format's rule: edges sampled at a fifth of a pixel.
RunEnds rle_from_polygon(const double* xy, int64_t points, int64_t height, int64_t width);

}  // namespace fastvision
