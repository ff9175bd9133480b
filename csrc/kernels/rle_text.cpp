// Run lengths as numbers and as text.
#include <cstdint>
#include <utility>

#include "rle.h"

namespace fastvision {
namespace {

// Run lengths one by one, checked and added up.
class Builder {
 public:
  Builder(int64_t height, int64_t width, size_t expected) : total_(height * width) {
    mask_.height = height;
    mask_.width = width;
    mask_.ends.reserve(expected);
  }
  void push(int64_t count) {
    if (count < 0) fail_mask("expected counts >= 0, got ", std::to_string(count), " at position ", position());
    if (count > total_ - end_)
      fail_mask("expected counts that add up to height * width = ", std::to_string(total_), ", got more at position ",
                position());
    end_ += count;
    mask_.ends.push_back(uint32_t(end_));
  }
  RunEnds finish() {
    if (end_ != total_)
      fail_mask("expected counts that add up to height * width = ", std::to_string(total_), ", got ",
                std::to_string(end_));
    if (mask_.ends.empty()) mask_.ends.push_back(0);
    return std::move(mask_);
  }
  std::string position() const { return std::to_string(mask_.ends.size()); }

 private:
  RunEnds mask_;
  int64_t total_, end_ = 0;
};

// Counts [first, first + 16) where each takes one character. first >= 3: all of them are differences.
bool write_short_counts(const uint32_t* ends, char* to) {
  uint32_t differences[16], any = 0;
  for (int k = 0; k < 16; ++k) {
    differences[k] = ends[k] - ends[k - 1] - (ends[k - 2] - ends[k - 3]);
    any |= differences[k] + 16;
  }
  if (any >= 32) return false;
  for (int k = 0; k < 16; ++k) to[k] = char((differences[k] & 31) + 48);
  return true;
}

}  // namespace

RunEnds rle_from_counts(const std::vector<int64_t>& counts, int64_t height, int64_t width) {
  check_mask_size(height, width);
  Builder mask(height, width, counts.size());
  for (const int64_t count : counts) mask.push(count);
  return mask.finish();
}

// Five bits to a character, from '0' on; the sixth says that more follow. From the fourth on, counts are differences to
// the count before the last.
RunEnds rle_from_string(std::string_view text, int64_t height, int64_t width) {
  check_mask_size(height, width);
  Builder mask(height, width, text.size() / 2 + 1);
  int64_t before[2] = {0, 0};
  int64_t n = 0;
  for (size_t p = 0; p < text.size(); ++n) {
    uint64_t bits = 0;
    for (int shift = 0;; shift += 5) {
      if (p == text.size()) fail_mask("expected counts that end after a whole number, got a string that is cut off");
      const int c = int(uint8_t(text[p++])) - 48;
      if (c < 0 || c > 63) fail_mask("expected characters '0' to 'o' in counts, got code ", std::to_string(c + 48));
      if (shift > 30) fail_mask("expected counts of at most 7 characters, got more at position ", mask.position());
      bits |= uint64_t(c & 31) << shift;
      if (c & 32) continue;
      if (c & 16) bits |= ~uint64_t(0) << (shift + 5);
      break;
    }
    const int64_t count = int64_t(bits) + (n > 2 ? before[n & 1] : 0);
    mask.push(count);
    before[n & 1] = count;
  }
  return mask.finish();
}

std::string rle_to_string(const RunEnds& mask) {
  constexpr size_t kChunk = 4096;
  const uint32_t* const ends = mask.ends.data();
  const size_t size = mask.ends.size();
  const bool differences_fit = size > 0 && ends[size - 1] <= uint32_t(INT32_MAX);
  size_t try_again = 3;  // where counts are long, one by one for a while
  std::string text;
  char characters[kChunk + 16];
  size_t length = 0;
  const auto count_at = [ends](size_t n) { return int64_t(ends[n]) - (n > 0 ? ends[n - 1] : 0); };
  for (size_t n = 0; n < size;) {
    if (differences_fit && n >= try_again && n + 16 <= size && write_short_counts(ends + n, characters + length)) {
      n += 16;
      length += 16;
    } else {
      int64_t rest = count_at(n) - (n > 2 ? count_at(n - 2) : 0);
      for (bool more = true; more;) {
        const int c = int(rest & 31);
        rest >>= 5;
        more = c & 16 ? rest != -1 : rest != 0;
        characters[length++] = char((more ? c | 32 : c) + 48);
      }
      if (n >= try_again) try_again = n + 16;
      ++n;
    }
    if (length < kChunk && n < size) continue;
    text.append(characters, length);
    length = 0;
  }
  return text;
}

}  // namespace fastvision
