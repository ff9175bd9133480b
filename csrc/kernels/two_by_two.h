// Pooling windows of 2 x 2 side by side, planes in rows: SegNet's case, in vectors. Shared by max_pool2d and
// max_unpool2d.
#pragma once

#include "max_pool2d.h"
#include "simd.h"

namespace fastvision {

// The windows of a row of pooled pixels: `count` of them, over two rows of `width` pixels each.
struct TwoByTwo {
  int64_t count, width;

  // pooled_h and pooled_w: windows, height and width: pixels that they lie in.
  static bool fits(const PoolGeometry& g, int64_t channels, int64_t pooled_h, int64_t pooled_w, int64_t height,
                   int64_t width) {
    return channels == 1 && g.kernel_y == 2 && g.kernel_x == 2 && g.stride_y == 2 && g.stride_x == 2 &&
           g.padding_y == 0 && g.padding_x == 0 && g.dilation_y == 1 && g.dilation_x == 1 && 2 * pooled_h <= height &&
           2 * pooled_w <= width;
  }
};

// The taps of neighbouring windows, the first of them at position `window`; false if an index is not in its own window.
template <class A>
FV_HD bool load_taps(const TwoByTwo&, const uint8_t* index, int64_t, IndexVec<A>& taps) {
  for (int k = 0; k < Vec<A>::kLanes; ++k) taps[k] = index[k];
  return !any(MaskOf<A, FV_ISA>{taps > all_lanes<A>(3)});
}
template <class A>
FV_HD bool load_taps(const TwoByTwo& s, const int64_t* index, int64_t window, IndexVec<A>& taps) {
  using Wide = IndexVec<double>;
  constexpr int kWide = Vec<double>::kLanes;
  typedef int32_t Narrow __attribute__((vector_size(kVectorBytes / 2)));
  const Wide step = lane_numbers<double>() * 2;
  Wide inside = all_lanes<double>(-1);
  for (int k = 0; k < Vec<A>::kLanes; k += kWide) {
    Wide position;
    memcpy(&position, index + k, sizeof position);
    const Wide first = step + all_lanes<double>(window + 2 * k), second = first + s.width;
    const Wide right = position == first + 1, below = position == second, both = position == second + 1;
    inside &= (position == first) | right | below | both;
    const Wide tap = -right - 2 * below - 3 * both;  // comparisons give 0 or -1
    if constexpr (sizeof(A) == 8) {
      taps = tap;
    } else {
      const Narrow narrow = __builtin_convertvector(tap, Narrow);
      memcpy(reinterpret_cast<char*>(&taps) + k * sizeof(int32_t), &narrow, sizeof narrow);
    }
  }
  return !any(MaskOf<double, FV_ISA>{~inside});
}
FV_HD int64_t load_tap(const TwoByTwo&, uint8_t tap, int64_t) { return tap < 4 ? tap : -1; }
FV_HD int64_t load_tap(const TwoByTwo& s, int64_t position, int64_t window) {
  for (int64_t tap = 0; tap < 4; ++tap)
    if (position == window + tap / 2 * s.width + tap % 2) return tap;
  return -1;
}

// Calls vectors(x, taps) for whole vectors of a row of windows, and single(x, tap) for the rest. y: row of the windows.
template <class A, class Index, class F, class G>
FV_HD bool walk_windows(const TwoByTwo& s, const Index* row, int64_t y, F&& vectors, G&& single) {
  int64_t x = 0;
  for (; x + Vec<A>::kLanes <= s.count; x += Vec<A>::kLanes) {
    IndexVec<A> taps;
    if (!load_taps<A>(s, row + x, 2 * (y * s.width + x), taps)) return false;
    vectors(x, taps);
  }
  for (; x < s.count; ++x) {
    const int64_t tap = load_tap(s, row[x], 2 * (y * s.width + x));
    if (tap < 0) return false;
    single(x, tap);
  }
  return true;
}

// Writes pixels 0 .. 2 * count of two rows: the value of each window at its tap and zeros beside it.
template <class T, class Index>
FV_HD bool fill_two_by_two(const TwoByTwo& s, const T* values, const Index* index, int64_t y, T* to) {
  using A = Accum<T>;
  constexpr int kLanes = Vec<A>::kLanes;
  int32_t order[2 * kLanes];  // of two vectors interleaved
  for (int k = 0; k < 2 * kLanes; ++k) order[k] = k % 2 * kLanes + k / 2;
  const auto vectors = [&](int64_t x, const IndexVec<A>& taps) {
    const Vec<A> v = load_vector(values + x), zero(A(0));
    for (int ky = 0; ky < 2; ++ky) {
      const Vec<A> left = select(MaskOf<A, FV_ISA>{taps == all_lanes<A>(2 * ky)}, v, zero);
      const Vec<A> right = select(MaskOf<A, FV_ISA>{taps == all_lanes<A>(2 * ky + 1)}, v, zero);
      store_vector(to + ky * s.width + 2 * x, lookup<A>(left, right, order));
      store_vector(to + ky * s.width + 2 * x + kLanes, lookup<A>(left, right, order + kLanes));
    }
  };
  const auto single = [&](int64_t x, int64_t tap) {
    for (int64_t k = 0; k < 4; ++k) to[k / 2 * s.width + 2 * x + k % 2] = k == tap ? values[x] : T{};
  };
  return walk_windows<A>(s, index, y, vectors, single);
}

// The opposite: the value at the tap of each window.
template <class T, class Index>
FV_HD bool gather_two_by_two(const TwoByTwo& s, const T* from, const Index* index, int64_t y, T* to) {
  using A = Accum<T>;
  constexpr int kLanes = Vec<A>::kLanes;
  int32_t even[kLanes], odd[kLanes];
  for (int k = 0; k < kLanes; ++k) even[k] = 2 * k, odd[k] = 2 * k + 1;
  const auto vectors = [&](int64_t x, const IndexVec<A>& taps) {
    Vec<A> v(A(0));
    for (int ky = 0; ky < 2; ++ky) {
      const T* row = from + ky * s.width + 2 * x;
      const Vec<A> low = load_vector(row), high = load_vector(row + kLanes);
      v = select(MaskOf<A, FV_ISA>{taps == all_lanes<A>(2 * ky)}, lookup<A>(low, high, even), v);
      v = select(MaskOf<A, FV_ISA>{taps == all_lanes<A>(2 * ky + 1)}, lookup<A>(low, high, odd), v);
    }
    store_vector(to + x, v);
  };
  return walk_windows<A>(s, index, y, vectors,
                         [&](int64_t x, int64_t tap) { to[x] = from[tap / 2 * s.width + 2 * x + tap % 2]; });
}

}  // namespace fastvision
