// CPU: gradients of max pooling whose windows overlap or leave gaps. Either a pixel asks the windows over it whether
// they took it, in vectors of channels, or windows add to pixels.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "max_pool2d.h"
#include "simd_integers.h"

namespace fastvision {
namespace {

// Which of the first n lanes hold the index `wanted`.
template <class A>
FV_HD MaskOf<A, FV_ISA> lanes_equal(const uint8_t* index, uint8_t wanted, int64_t n) {
  return {(n == kLanes<A> ? load_bytes<A>(index) : load_bytes<A>(index, n)) == all_lanes<A>(wanted)};
}
template <class A>
FV_HD MaskOf<A, FV_ISA> lanes_equal(const int64_t* index, int64_t wanted, int64_t n) {
  IndexVec<A> r = {};
  for (int64_t k = 0; k < n; ++k) r[k] = index[k] == wanted ? -1 : 0;
  return {r};
}

// The windows over each place of an axis, by which tap: -1 where the place lies between two taps.
class WindowsOver {
 public:
  struct Window {
    int64_t window, tap;
  };
  WindowsOver(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation, int64_t windows) {
    begin_.push_back(0);
    for (int64_t at = 0; at < size; ++at) {
      const Taps over = windows_over(at, kernel, stride, padding, dilation, windows);
      for (int64_t w = over.begin; w < over.end; ++w) {
        const int64_t distance = at - w * stride + padding;
        windows_.push_back({w, distance % dilation == 0 ? distance / dilation : -1});
      }
      begin_.push_back(int64_t(windows_.size()));
    }
  }
  std::span<const Window> at(int64_t place) const {
    return {windows_.data() + begin_[size_t(place)], windows_.data() + begin_[size_t(place) + 1]};
  }

 private:
  std::vector<Window> windows_;
  std::vector<int64_t> begin_;  // one more than there are places
};

// A window over a pixel: where its gradient lies, and the index by which it means that pixel.
template <class Index>
struct Claim {
  int64_t offset;
  Index wanted;
};

// All channels of a pixel's gradient.
template <int kClaims, class T, class Index>
void gather_pixel(const T* grad, const Index* index, const std::vector<Claim<Index>>& claims, int64_t channels, T* to) {
  using A = Accum<T>;
  const size_t count = kClaims < 4 ? kClaims : claims.size();
  for_each_vector<A>(channels, [&](int64_t c, int, auto n) FV_INLINE {
    Vec<A> sum(A(0));
    for (size_t k = 0; k < count; ++k)
      sum = sum + select(lanes_equal<A>(index + claims[k].offset + c, claims[k].wanted, n),
                         load_vector(grad + claims[k].offset + c, n), Vec<A>(A(0)));
    store_vector(to + c, sum, n);
  });
}

// Row y of an image's gradient.
template <class T, class Index>
void gather_row(const MaxPoolShape& s, std::span<const WindowsOver::Window> rows, const WindowsOver& columns,
                const T* grad, const Index* index, int64_t y, std::vector<Claim<Index>>& claims, T* to) {
  for (int64_t x = 0; x < s.width; ++x, to += s.channels) {
    claims.clear();
    for (const auto& row : rows)
      for (const auto& column : columns.at(x)) {
        if (sizeof(Index) == 1 && min_of(row.tap, column.tap) < 0) continue;
        claims.push_back({(row.window * s.out_w + column.window) * s.channels,
                          sizeof(Index) == 1 ? Index(row.tap * s.g.kernel_x + column.tap) : Index(y * s.width + x)});
      }
    if (claims.empty()) memset(to, 0, size_t(s.channels) * sizeof(T));
    else
      with_constant(int64_t(claims.size()),
                    [&](auto count) { gather_pixel<count()>(grad, index, claims, s.channels, to); });
  }
}

// stored_position() for all windows, with what divides worked out once.
template <class Index>
struct Positions;
template <>
struct Positions<uint8_t> {
  static constexpr int64_t kNone = INT64_MIN / 2;
  int64_t offset[256];
  explicit Positions(const MaxPoolShape& s) {
    for (int64_t tap = 0; tap < 256; ++tap)
      offset[tap] = tap < s.g.kernel_y * s.g.kernel_x ? position_of_tap(s.g, s.width, 0, 0, tap) : kNone;
  }
  FV_HD int64_t operator()(const MaxPoolShape&, int64_t start, uint8_t tap) const { return start + offset[tap]; }
};
template <>
struct Positions<int64_t> {
  explicit Positions(const MaxPoolShape&) {}
  FV_HD int64_t operator()(const MaxPoolShape& s, int64_t start, int64_t position) const {
    const int64_t first = start - s.g.padding_y * s.width - s.g.padding_x;
    const uint64_t reach = uint64_t((s.g.kernel_x - 1) * s.g.dilation_x);
    bool inside = false;
    for (int64_t y = 0; y <= (s.g.kernel_y - 1) * s.g.dilation_y; ++y)
      inside |= uint64_t(position) - uint64_t(first + y * s.width) <= reach;
    return inside ? position : -1;
  }
};

// Writes the gradient of `count` channels, or of a plane, to `sum`, whose pixels are `step` apart.
template <class T, class Index, class Count>
void scatter(const MaxPoolShape& s, const Positions<Index>& positions, const T* grad, const Index* index, Count count,
             Accum<T>* sum, int64_t step) {
  const PoolGeometry& g = s.g;
  int64_t cleared = 0;  // rows of pixels
  const auto clear_until = [&](int64_t row) {
    const int64_t pixels = (row - cleared) * s.width;
    Accum<T>* const first = sum + cleared * s.width * step;
    if (step == count) std::fill_n(first, pixels * count, Accum<T>(0));
    else
      for (int64_t i = 0; i < pixels; ++i) std::fill_n(first + i * step, count, Accum<T>(0));
    cleared = row;
  };
  const int64_t room = s.width - 1 - (g.kernel_x - 1) * g.dilation_x + g.padding_x;
  const int64_t first_inside = min_of(ceil_div(g.padding_x, g.stride_x), s.out_w);
  const int64_t end_inside = max_of(min_of(room < 0 ? 0 : room / g.stride_x + 1, s.out_w), first_inside);
  for (int64_t oy = 0; oy < s.out_h; ++oy) {
    const int64_t y = oy * g.stride_y - g.padding_y, last_y = y + (g.kernel_y - 1) * g.dilation_y;
    clear_until(max_of(cleared, min_of(s.height, last_y + 1)));
    const auto add = [&](int64_t begin, int64_t end, auto&& position) {
      int64_t o = (oy * s.out_w + begin) * s.channels;
      for (int64_t ox = begin; ox < end; ++ox, o += s.channels)
        for (int64_t c = 0; c < count; ++c) {
          const int64_t at = position(ox, index[o + c]);
          if (at >= 0) sum[at * step + c] += to_accum(grad[o + c]);
        }
    };
    const auto checked = [&](int64_t ox, Index i) { return stored_position(s, oy, ox, i); };
    const bool inside = y >= 0 && last_y < s.height;
    const int64_t first = inside ? first_inside : s.out_w, start = oy * g.stride_y * s.width, stride = g.stride_x;
    add(0, first, checked);
    if (!inside) continue;
    add(first, end_inside, [&, start, stride](int64_t ox, Index i) { return positions(s, start + ox * stride, i); });
    add(end_inside, s.out_w, checked);
  }
  clear_until(s.height);
}

}  // namespace
}  // namespace fastvision
