#include "rle.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "nonzero_bytes.h"
#include "rle_noise.h"

namespace fastvision {
namespace {

// Calls found(i) for each i in [0, n), ascending, where one of a[i], b[i] is foreground and the other is not. Masks are
// mostly smooth, so blocks that are equal byte for byte are what has to be fast.
template <class F>
void each_difference(const uint8_t* a, const uint8_t* b, int64_t n, F&& found) {
  constexpr int64_t kBlock = 64;
  const auto word_at = [&](int64_t i) {
    uint64_t differ = nonzero_top_bits(load_word(a + i)) ^ nonzero_top_bits(load_word(b + i));
    for (; differ; differ &= differ - 1) found(i + __builtin_ctzll(differ) / 8);
  };
  int64_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    uint64_t any = 0;
    for (int64_t k = 0; k < kBlock; k += 8) any |= load_word(a + i + k) ^ load_word(b + i + k);
    if (any == 0) continue;
    for (int64_t k = 0; k < kBlock; k += 8) word_at(i + k);
  }
  for (; i + 8 <= n; i += 8) word_at(i);
  for (; i < n; ++i)
    if ((a[i] != 0) != (b[i] != 0)) found(i);
}

// Rows of bytes.
struct ByteRows {
  const uint8_t* data;
  int64_t height, width, stride;

  bool begins_with_foreground() const { return data[0] != 0; }
  uint64_t bits(int64_t y, int64_t x, int64_t n) const {
    const uint8_t* const p = data + y * stride + x;
    if (n == 64) return nonzero_bits(p);
    uint8_t pixels[64] = {};
    memcpy(pixels, p, size_t(n));
    return nonzero_bits(pixels);
  }
  // found(x) for each pixel (y, x), ascending, that is not like the one above.
  template <class F>
  void each_change(int64_t y, F&& found) const {
    each_difference(data + y * stride, data + (y - 1) * stride, width, found);
  }
  // The pixel before (0, x) is the last one of column x - 1.
  template <class F>
  void each_change_of_first_row(F&& found) const {
    each_difference(data + 1, data + (height - 1) * stride, width - 1, [&](int64_t x) { found(x + 1); });
  }
};

// Rows of bits, which begin with a byte.
struct BitRows {
  const uint8_t* data;
  int64_t height, width, stride;

  bool begins_with_foreground() const { return data[0] & 1; }
  // x: a multiple of 8.
  uint64_t bits(int64_t y, int64_t x, int64_t n) const {
    const int64_t at = y * stride + x / 8, bytes = stride - x / 8;
    uint64_t word = 0;
    if (bytes >= 8) word = load_word(data + at);
    else if (at + bytes >= 8) word = load_word(data + at + bytes - 8) >> (64 - 8 * bytes);
    else memcpy(&word, data + at, size_t(bytes));
    return n < 64 ? word & ((uint64_t(1) << n) - 1) : word;
  }
  template <class F>
  void each_change(int64_t y, F&& found) const {
    if (memcmp(data + y * stride, data + (y - 1) * stride, size_t(stride)) == 0) return;  // most rows
    for (int64_t x = 0; x < width; x += 64) {
      const int64_t n = std::min<int64_t>(width - x, 64);
      each_bit(bits(y, x, n) ^ bits(y - 1, x, n), x, found);
    }
  }
  template <class F>
  void each_change_of_first_row(F&& found) const {
    for (int64_t x = 0; x < width - 1; x += 64) {
      const int64_t n = std::min<int64_t>(width - 1 - x, 64);
      const uint64_t next = x + 64 < width ? bits(0, x + 64, 1) << 63 : 0;
      each_bit((bits(0, x, std::min<int64_t>(n + 1, 64)) >> 1 | next) ^ bits(height - 1, x, n), x + 1, found);
    }
  }

 private:
  template <class F>
  static void each_bit(uint64_t word, int64_t x, F&& found) {
    for (; word; word &= word - 1) found(x + __builtin_ctzll(word));
  }
};

// More than one change in 16 pixels up to row y. As much as 64 rows of them are let pass, for smooth masks may change
// everywhere in a row or two; and narrow ones would be bits mostly of no pixel.
bool is_noise(int64_t changes, int64_t y, int64_t width) { return width >= 64 && changes > (y + 64) * width / 16; }

// Where the mask changes from one pixel to the next, in column-major order. Rows are compared with the row above, so
// changes come out row by row; a counting sort puts them in order of column, where they are few.
template <class Rows>
void encode_rows(const Rows& source, RunEnds& mask, RleScratch& scratch) {
  const int64_t h = mask.height, w = mask.width;
  std::vector<uint32_t>&columns = scratch.columns, &rows = scratch.rows, &starts = scratch.starts;
  columns.clear();
  rows.resize(h);  // the number of changes up to the end of the row
  const auto push = [&](int64_t x) { columns.push_back(uint32_t(x)); };
  if (source.begins_with_foreground()) push(0);
  source.each_change_of_first_row(push);
  rows[0] = uint32_t(columns.size());
  for (int64_t y = 1; y < h; ++y) {
    source.each_change(y, push);
    if (is_noise(int64_t(columns.size()), y, w)) return encode_noise(source, mask, columns);
    rows[y] = uint32_t(columns.size());
  }
  starts.assign(w + 1, 0);
  for (const uint32_t x : columns) ++starts[x + 1];
  for (int64_t x = 0; x < w; ++x) starts[x + 1] += starts[x];
  mask.ends.resize(columns.size() + 1);
  for (int64_t y = 0, i = 0; y < h; ++y)
    for (; i < rows[y]; ++i) mask.ends[starts[columns[i]]++] = uint32_t(int64_t(columns[i]) * h + y);
  mask.ends.back() = uint32_t(h * w);
}

void encode_columns(const uint8_t* data, RunEnds& mask) {
  const int64_t n = mask.height * mask.width;
  mask.ends.clear();
  if (data[0]) mask.ends.push_back(0);
  each_difference(data + 1, data, n - 1, [&](int64_t i) { mask.ends.push_back(uint32_t(i + 1)); });
  mask.ends.push_back(uint32_t(n));
}

std::vector<uint32_t> merge_two(const std::vector<uint32_t>& a, const std::vector<uint32_t>& b, bool intersect) {
  const uint32_t total = a.back();
  std::vector<uint32_t> merged;
  merged.reserve(a.size() + b.size());
  size_t i = 0, j = 0;
  bool inside = false;
  for (;;) {
    const uint32_t end = std::min(a[i], b[j]);
    i += a[i] == end && i + 1 < a.size();
    j += b[j] == end && j + 1 < b.size();
    const bool now = intersect ? i & j & 1 : (i | j) & 1;
    if (now != inside || end == total) merged.push_back(end);
    if (end == total) return merged;
    inside = now;
  }
}

}  // namespace

void check_mask_size(int64_t height, int64_t width) {
  const std::string got = ", got [" + std::to_string(height) + ", " + std::to_string(width) + "]";
  if (height < 0 || width < 0) fail_mask("expected a size [height, width] >= 0", got);
  if (height > kMaxMaskPixels || width > kMaxMaskPixels || (width > 0 && height > kMaxMaskPixels / width))
    fail_mask("expected a size of at most ", std::to_string(kMaxMaskPixels), " pixels", got);
}

RunEnds rle_encode(const MaskView& view, RleScratch& scratch) {
  check_mask_size(view.height, view.width);
  RunEnds mask{view.height, view.width, {}};
  if (view.height == 0 || view.width == 0) {
    mask.ends = {0};
  } else if (view.column_stride == 1) {
    encode_rows(ByteRows{view.data, view.height, view.width, view.row_stride}, mask, scratch);
  } else if (view.row_stride == 1 && view.column_stride == view.height) {
    encode_columns(view.data, mask);
  } else {
    scratch.copy.resize(view.height * view.width);
    uint8_t* to = scratch.copy.data();
    for (int64_t y = 0; y < view.height; ++y)
      for (int64_t x = 0; x < view.width; ++x) *to++ = view.data[y * view.row_stride + x * view.column_stride];
    encode_rows(ByteRows{scratch.copy.data(), view.height, view.width, view.width}, mask, scratch);
  }
  return mask;
}

RunEnds rle_encode_bits(const uint8_t* bits, int64_t height, int64_t width, RleScratch& scratch) {
  check_mask_size(height, width);
  RunEnds mask{height, width, {}};
  if (height == 0 || width == 0) mask.ends = {0};
  else encode_rows(BitRows{bits, height, width, row_bytes(width)}, mask, scratch);
  return mask;
}

// The encoder backwards: a row is the row above with the pixels changed where a run ends.
void rle_decode(const RunEnds& mask, uint8_t* out, RleScratch& scratch) {
  const int64_t h = mask.height, w = mask.width, n = int64_t(mask.ends.size()) - 1;
  const uint32_t* ends = mask.ends.data();
  if (n == 0 || h == 0 || w == 0) return;
  const auto column_of_next = [&](int64_t end) { return (end + h - 1) / h; };
  int64_t ones = 0;
  for (int64_t i = 0; i < n; i += 2) {  // the first row
    const int64_t begin = column_of_next(ends[i]), end = column_of_next(ends[i + 1]);
    memset(out + begin, 1, end - begin);
    ones += end - begin;
  }
  std::vector<uint32_t>&columns = scratch.columns, &rows = scratch.rows, &starts = scratch.starts;
  columns.resize(n);
  rows.resize(n);
  starts.assign(h + 1, 0);
  for (int64_t i = 0, column = 0; i < n; ++i) {
    while (ends[i] >= column + h) column += h;
    rows[i] = uint32_t(ends[i] - column);
    ++starts[rows[i]];
  }
  for (int64_t y = 0, sum = 0; y <= h; ++y) sum += std::exchange(starts[y], uint32_t(sum));
  for (int64_t i = 0, x = 0; i < n; ++i) {
    while (ends[i] >= (x + 1) * h) ++x;
    columns[starts[rows[i]]++] = uint32_t(x);
  }
  // Now starts[y] is where the changes of row y end.
  const int64_t left = ends[0] / h, right = column_of_next(ends[n % 2 ? n : n - 1]);
  for (int64_t y = 1, i = starts[0]; y < h; ++y) {
    if (ones == 0 && i == starts[y]) continue;
    uint8_t* row = out + y * w;
    memcpy(row + left, row - w + left, right - left);
    for (; i < starts[y]; ++i) {
      row[columns[i]] ^= 1;
      ones += row[columns[i]] ? 1 : -1;
    }
  }
}

int64_t rle_area(const RunEnds& mask) {
  int64_t area = 0;
  for (size_t i = 1; i < mask.ends.size(); i += 2) area += mask.ends[i] - mask.ends[i - 1];
  return area;
}

PixelBox rle_box(const RunEnds& mask) {
  const int64_t h = mask.height;
  int64_t left = mask.width, right = -1, top = h, bottom = -1;
  for (size_t i = 1; i < mask.ends.size(); i += 2) {
    if (mask.ends[i] == mask.ends[i - 1]) continue;
    const int64_t first = mask.ends[i - 1], last = int64_t(mask.ends[i]) - 1;
    const int64_t x = first / h, x_last = last / h;
    left = std::min(left, x);
    right = std::max(right, x_last);
    top = x == x_last ? std::min(top, first - x * h) : 0;
    bottom = x == x_last ? std::max(bottom, last - x * h) : h - 1;
  }
  if (right < 0) return {0, 0, 0, 0};
  return {left, top, right - left + 1, bottom - top + 1};
}

int64_t rle_intersection(const RunEnds& a, const RunEnds& b) {
  const std::vector<uint32_t>&p = a.ends, &q = b.ends;
  size_t i = 1, j = 1;
  int64_t pixels = 0;
  while (i < p.size() && j < q.size()) {
    const int64_t begin = std::max(p[i - 1], q[j - 1]), end = std::min(p[i], q[j]);
    pixels += std::max(end - begin, int64_t(0));
    const bool first = p[i] < q[j];
    i += first ? 2 : 0;
    j += first ? 0 : 2;
  }
  return pixels;
}

RunEnds rle_merge(const std::vector<RunEnds>& masks, bool intersect) {
  RunEnds merged = masks.front();
  for (size_t i = 1; i < masks.size(); ++i) merged.ends = merge_two(merged.ends, masks[i].ends, intersect);
  return merged;
}

}  // namespace fastvision
