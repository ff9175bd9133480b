#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "rle.h"

namespace fastvision {
namespace {

// Pixels where the inside of a polygon begins or ends in column-major order. Corners and the samples along an edge are
// on a grid of fifths of a pixel; an edge counts for a column where it crosses from grid column 5c + 2 to 5c + 3, at
// the higher of the two samples. Only those two samples of each column are computed here.
class PolygonEdges {
 public:
  PolygonEdges(int64_t height, int64_t width) : height_(height), width_(width) {}

  void add(int xs, int ys, int xe, int ye) {
    const int dx = std::abs(xe - xs), dy = std::abs(ye - ys);
    if (dx == 0) return;
    const bool by_x = dx >= dy;
    if (by_x ? xs > xe : ys > ye) {
      std::swap(xs, xe);
      std::swap(ys, ye);
    }
    const int64_t low = std::min(xs, xe), high = std::max(xs, xe);
    const int64_t first = low <= 2 ? 0 : (low + 2) / 5, last = std::min(width_ - 1, high < 3 ? -1 : (high - 3) / 5);
    if (last < first) return;
    if (int64_t(toggles_.size()) + last - first >= kMaxCrossings)
      fail_mask("expected a polygon that crosses fewer than ", std::to_string(kMaxCrossings), " columns");
    const double slope = by_x ? double(ye - ys) / dx : double(xe - xs) / dy;
    for (int64_t column = first; column <= last; ++column) {
      const int left = int(5 * column + 2);
      if (by_x) {
        const auto y = [&](int t) { return int(ys + slope * t + .5); };
        push(column, std::min(y(left - xs), y(left + 1 - xs)));
      } else {
        push(column, ys + first_beyond(xs, slope, left, dy) - 1);
      }
    }
  }

  std::vector<uint32_t> ends() {
    const uint32_t total = uint32_t(height_ * width_);
    sort_toggles();
    std::vector<uint32_t> ends;
    for (const uint32_t at : toggles_) {  // two at one place cancel
      if (at == total) break;
      if (!ends.empty() && ends.back() == at) ends.pop_back();
      else ends.push_back(at);
    }
    ends.push_back(total);
    return ends;
  }

 private:
  static constexpr int64_t kMaxCrossings = int64_t(1) << 25;

  // The first step t at which x = xs + slope * t, rounded, has crossed from `left` to left + 1 or back.
  static int first_beyond(int xs, double slope, int left, int steps) {
    const auto crossed = [&](int t) {
      const int x = int(xs + slope * t + .5);
      return slope > 0 ? x > left : x <= left;
    };
    int t = std::clamp(int((left + .5 - xs) / slope) - 1, 1, steps);  // at most two steps early, whatever the rounding
    while (t < steps && !crossed(t)) ++t;
    return t;
  }
  void push(int64_t column, int fifths) {
    const double y = std::clamp((fifths + .5) / 5 - .5, 0., double(height_));
    toggles_.push_back(uint32_t(column * height_ + int64_t(std::ceil(y))));
  }

  // Sorts by column, of which each has few toggles, then within columns.
  void sort_toggles() {
    if (toggles_.empty() || height_ == 0) return;
    const uint32_t height = uint32_t(height_);
    const auto [low, high] = std::minmax_element(toggles_.begin(), toggles_.end());
    const uint32_t first = *low / height;
    std::vector<uint32_t> starts(size_t(*high / height - first) + 2), sorted(toggles_.size());
    for (const uint32_t at : toggles_) ++starts[at / height - first + 1];
    std::partial_sum(starts.begin(), starts.end(), starts.begin());
    for (const uint32_t at : toggles_) sorted[starts[at / height - first]++] = at;
    for (size_t column = 0, begin = 0; column + 1 < starts.size(); begin = starts[column++])
      std::sort(sorted.begin() + int64_t(begin), sorted.begin() + int64_t(starts[column]));
    toggles_.swap(sorted);
  }

  int64_t height_, width_;
  std::vector<uint32_t> toggles_;
};

}  // namespace

RunEnds rle_from_polygon(const double* xy, int64_t points, int64_t height, int64_t width) {
  check_mask_size(height, width);
  if (points < 3) fail_mask("expected at least 3 points, got ", std::to_string(points));
  for (int64_t i = 0; i < 2 * points; ++i)
    if (!(std::abs(xy[i]) <= kMaxPolygonCoordinate))
      fail_mask("expected finite coordinates in [-1e6, 1e6], got ", std::to_string(xy[i]), " at position ",
                std::to_string(i));
  const auto fifths = [&](int64_t i) { return int(5 * xy[i] + .5); };
  PolygonEdges edges(height, width);
  for (int64_t i = 0; i < points; ++i) {
    const int64_t next = i + 1 < points ? i + 1 : 0;
    edges.add(fifths(2 * i), fifths(2 * i + 1), fifths(2 * next), fifths(2 * next + 1));
  }
  return {height, width, edges.ends()};
}

}  // namespace fastvision
