// Pooling windows of 2 x 2 side by side: SegNet's case, in vectors of neighbouring windows or of the channels of one.
// Shared by max_pool2d and max_unpool2d.
#pragma once

#include "max_pool2d.h"
#include "simd_integers.h"

namespace fastvision {

// rows x count windows in height x width pixels, of all channels.
struct TwoByTwo {
  int64_t rows, count, height, width, channels;

  FV_HD bool fit(const PoolGeometry& g) const {
    return g.kernel_y == 2 && g.kernel_x == 2 && g.stride_y == 2 && g.stride_x == 2 && g.padding_y == 0 &&
           g.padding_x == 0 && g.dilation_y == 1 && g.dilation_x == 1 && 2 * rows <= height && 2 * count <= width;
  }
};

// The taps of windows of which the first is at position `window`, `next` to the following one; false if an index is not
// in its own window.
template <class A>
FV_HD bool load_taps(const TwoByTwo&, const uint8_t* index, int64_t, int64_t, IndexVec<A>& taps) {
  taps = load_bytes<A>(index);
  return !any(MaskOf<A, FV_ISA>{taps > all_lanes<A>(3)});
}
template <class A>
FV_HD bool load_taps(const TwoByTwo& s, const int64_t* index, int64_t window, int64_t next, IndexVec<A>& taps) {
  using Wide = IndexVec<double>;
  constexpr int kWide = kLanes<double>;
  const Wide step = lane_numbers<double>() * next;
  Wide inside = all_lanes<double>(-1);
  for (int k = 0; k < kLanes<A>; k += kWide) {
    Wide position;
    memcpy(&position, index + k, sizeof position);
    const Wide first = step + all_lanes<double>(window + next * k), second = first + s.width;
    const Wide right = position == first + 1, below = position == second, both = position == second + 1;
    inside &= (position == first) | right | below | both;
    set_wide_lanes<A>(taps, k, -right - 2 * below - 3 * both);  // comparisons give 0 or -1
  }
  return !any(MaskOf<double, FV_ISA>{~inside});
}
FV_HD int64_t load_tap(const TwoByTwo&, uint8_t tap, int64_t) { return tap < 4 ? tap : -1; }
FV_HD int64_t load_tap(const TwoByTwo& s, int64_t position, int64_t window) {
  for (int64_t tap = 0; tap < 4; ++tap)
    if (position == window + tap / 2 * s.width + tap % 2) return tap;
  return -1;
}

// Calls vectors(x, c, taps) for whole vectors of a row of windows or of channels, and single(x, c, tap) for the rest.
// y: row of the windows.
template <class A, class Index, class F, class G>
FV_HD bool walk_windows(const TwoByTwo& s, const Index* row, int64_t y, F&& vectors, G&& single) {
  const auto position = [&](int64_t x) { return 2 * (y * s.width + x); };
  const auto one = [&](int64_t x, int64_t c) {
    const int64_t tap = load_tap(s, row[x * s.channels + c], position(x));
    if (tap >= 0) single(x, c, tap);
    return tap >= 0;
  };
  IndexVec<A> taps;
  if (s.channels == 1) {
    int64_t x = 0;
    for (; x + kLanes<A> <= s.count; x += kLanes<A>) {
      if (!load_taps<A>(s, row + x, position(x), 2, taps)) return false;
      vectors(x, 0, taps);
    }
    for (; x < s.count; ++x)
      if (!one(x, 0)) return false;
    return true;
  }
  for (int64_t x = 0; x < s.count; ++x) {
    int64_t c = 0;
    for (; c + kLanes<A> <= s.channels; c += kLanes<A>) {
      if (!load_taps<A>(s, row + x * s.channels + c, position(x), 0, taps)) return false;
      vectors(x, c, taps);
    }
    for (; c < s.channels; ++c)
      if (!one(x, c)) return false;
  }
  return true;
}

// Writes pixels 0 .. 2 * count of two rows: the value of each window at its tap and zeros beside it.
template <class T, class Index>
FV_HD bool fill_two_by_two(const TwoByTwo& s, const T* values, const Index* index, int64_t y, T* to) {
  using A = Accum<T>;
  int32_t order[2 * kLanes<A>];  // of two vectors interleaved
  for (int k = 0; k < 2 * kLanes<A>; ++k) order[k] = k % 2 * kLanes<A> + k / 2;
  const auto pixel = [&](int64_t x, int64_t c, int64_t tap) {
    return to + (tap / 2 * s.width + 2 * x + tap % 2) * s.channels + c;
  };
  const auto vectors = [&](int64_t x, int64_t c, const IndexVec<A>& taps) {
    const Vec<A> v = load_vector(values + x * s.channels + c), zero(A(0));
    const auto at = [&](int64_t tap) { return select(MaskOf<A, FV_ISA>{taps == all_lanes<A>(tap)}, v, zero); };
    if (s.channels > 1) {
      for (int64_t tap = 0; tap < 4; ++tap) store_vector(pixel(x, c, tap), at(tap));
      return;
    }
    for (int64_t tap = 0; tap < 4; tap += 2) {
      const Table<A, 2> sides({at(tap), at(tap + 1)});
      store_vector(pixel(x, c, tap), sides.at(order));
      store_vector(pixel(x, c, tap) + kLanes<A>, sides.at(order + kLanes<A>));
    }
  };
  const auto single = [&](int64_t x, int64_t c, int64_t tap) {
    for (int64_t k = 0; k < 4; ++k) *pixel(x, c, k) = k == tap ? values[x * s.channels + c] : T{};
  };
  return walk_windows<A>(s, index, y, vectors, single);
}

// The same for row y of the windows in all pixels of a plane: zeros also to the right of the windows, and below the
// last.
template <class T, class Index>
FV_HD bool fill_row_of_windows(const TwoByTwo& s, const T* values, const Index* index, int64_t y, T* plane) {
  const int64_t pooled = s.count * s.channels, row = s.width * s.channels;
  T* const to = plane + 2 * y * row;
  if (!fill_two_by_two(s, values + y * pooled, index + y * pooled, y, to)) return false;
  for (T* rest : {to + 2 * pooled, to + row + 2 * pooled}) memset(rest, 0, size_t(row - 2 * pooled) * sizeof(T));
  if (y == s.rows - 1) memset(to + 2 * row, 0, size_t((s.height - 2 * s.rows) * row) * sizeof(T));
  return true;
}

// The opposite: the value at the tap of each window.
template <class T, class Index>
FV_HD bool gather_two_by_two(const TwoByTwo& s, const T* from, const Index* index, int64_t y, T* to) {
  using A = Accum<T>;
  int32_t even[kLanes<A>], odd[kLanes<A>];
  for (int k = 0; k < kLanes<A>; ++k) even[k] = 2 * k, odd[k] = 2 * k + 1;
  const auto pixel = [&](int64_t x, int64_t c, int64_t tap) {
    return from + (tap / 2 * s.width + 2 * x + tap % 2) * s.channels + c;
  };
  const auto vectors = [&](int64_t x, int64_t c, const IndexVec<A>& taps) {
    Vec<A> v(A(0));
    const auto take = [&](int64_t tap, Vec<A> here) {
      v = select(MaskOf<A, FV_ISA>{taps == all_lanes<A>(tap)}, here, v);
    };
    if (s.channels > 1) {
      for (int64_t tap = 0; tap < 4; ++tap) take(tap, load_vector(pixel(x, c, tap)));
    } else {
      for (int64_t tap = 0; tap < 4; tap += 2) {
        const T* const row = pixel(x, c, tap);
        __builtin_prefetch(row + 2 * s.width);  // the next windows below: prefetchers do not follow several rows
        __builtin_prefetch(row + 2 * s.width + kLanes<A>);
        const Table<A, 2> pixels({load_vector(row), load_vector(row + kLanes<A>)});
        take(tap, pixels.at(even));
        take(tap + 1, pixels.at(odd));
      }
    }
    store_vector(to + x * s.channels + c, v);
  };
  return walk_windows<A>(s, index, y, vectors,
                         [&](int64_t x, int64_t c, int64_t tap) { to[x * s.channels + c] = *pixel(x, c, tap); });
}

}  // namespace fastvision
