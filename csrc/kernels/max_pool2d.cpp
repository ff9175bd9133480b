// channels_last: vectors of channels. NCHW: vectors of neighbouring windows where all of their taps lie inside the row,
// windows one by one at the border. Backward, 2 x 2 windows side by side: each window fills its pixels. channels_last:
// vectors of channels of a pixel ask the windows over it whether they took it, unless those are many. Otherwise windows
// add to pixels: a thread owns a plane, or 64 channels of an image, and clears each row of pixels when the first window
// reaches it, so that it is still in the cache.
#include "max_pool2d.h"

#include <atomic>
#include <type_traits>
#include <vector>

#include "max_pool2d_gradient.h"
#include "simd_integers.h"
#include "two_by_two.h"
#include "unrolled.h"

namespace fastvision {
namespace {

// What is kept of the tap of a maximum while it is found: its number, or its distance from tap 0 in the plane.
FV_HD int64_t mark_of(const MaxPoolShape& s, int64_t ky, int64_t kx, const uint8_t*) { return ky * s.g.kernel_x + kx; }
FV_HD int64_t mark_of(const MaxPoolShape& s, int64_t ky, int64_t kx, const int64_t*) {
  return ky * s.g.dilation_y * s.width + kx * s.g.dilation_x;
}
template <class A>
bool has_short_marks(const MaxPoolShape& s) {  // that a lane holds
  const int64_t down = (s.g.kernel_y - 1) * s.g.dilation_y, across = (s.g.kernel_x - 1) * s.g.dilation_x;
  return sizeof(A) == sizeof(int64_t) || down * s.width + across <= INT32_MAX;
}

// Stores the marks of `count` lanes as indices. position: of tap 0 of the first in the plane; step: between lanes.
template <class A>
FV_HD void store_marks(const IndexVec<A>& marks, int64_t, int64_t, int64_t count, uint8_t* to) {
  store_bytes<A>(to, marks, count);  // -1 is kNoTap
}
template <class A>
FV_HD void store_marks(const IndexVec<A>& marks, int64_t position, int64_t step, int64_t count, int64_t* to) {
  using Wide = IndexVec<double>;
  constexpr int64_t kWide = kLanes<double>;
  int64_t positions[kLanes<A>];
  for (int k = 0; k < kLanes<A>; k += kWide) {
    const Wide mark = wide_lanes<A>(marks, k);
    const Wide at = mark + lane_numbers<double>() * step + all_lanes<double>(position + k * step);
    const Wide stored = mark < 0 ? all_lanes<double>(-1) : at;
    memcpy(positions + k, &stored, sizeof stored);
  }
  memcpy(to, positions, size_t(count) * sizeof *to);
}

template <class A>
using WholeVector = std::integral_constant<int64_t, kLanes<A>>;

// The maxima of windows or channels side by side: kVectors vectors of which the last has `count` lanes. position: of
// tap 0 of the first one, which may be outside of the plane; step and window: how many numbers and pixels lie between
// the lanes.
template <int kVectors, class T, class Index, class Count>
FV_HD void pool_lanes(const MaxPoolShape& s, const T* channel, int64_t position, Taps rows, Taps columns, int64_t step,
                      int64_t window, Count count, T* out, Index* index) {
  using A = Accum<T>;
  Vec<A> best[kVectors];
  IndexVec<A> marks[kVectors];
  for (int i = 0; i < kVectors; ++i) {
    best[i] = Vec<A>(A(-__builtin_huge_val()));
    marks[i] = all_lanes<A>(-1);
  }
  bool first = true;
  for (int64_t ky = rows.begin; ky < rows.end; ++ky) {
    const int64_t row = position + ky * s.g.dilation_y * s.width;
    for (int64_t k = 0; k < min_of(window, int64_t(4)); ++k)  // NCHW: the rows below; no prefetcher follows several
      __builtin_prefetch(channel + row + s.g.stride_y * s.width + k * kLanes<A>);
    for (int64_t kx = columns.begin; kx < columns.end; ++kx, first = false) {
      const T* const pixels = channel + (row + kx * s.g.dilation_x) * s.channels;
      const int64_t mark = mark_of(s, ky, kx, index);
      unrolled<kVectors>([&](auto i) FV_INLINE {
        const T* const from = pixels + i * kLanes<A> * step;
        Vec<A> v;
        if constexpr (i == kVectors - 1) v = load_strided(from, step, count);
        else v = load_strided(from, step, WholeVector<A>());
        const auto wins = either(v > best[i], !(v == v));
        best[i] = first ? v : select(wins, v, best[i]);
        marks[i] = first ? all_lanes<A>(mark) : select(wins, mark, marks[i]);
      });
    }
  }
  unrolled<kVectors>([&](auto i) FV_INLINE {
    constexpr int64_t kFirst = i * kLanes<A>;
    const auto store = [&](auto lanes) FV_INLINE {
      store_vector(out + kFirst, best[i], lanes);
      store_marks<A>(marks[i], position + kFirst * window, window, lanes, index + kFirst);
    };
    if constexpr (i == kVectors - 1) store(count);
    else store(WholeVector<A>());
  });
}

// Calls f(first lane, how many vectors, lanes of the last one).
template <class A, class F>
FV_HD void for_each_vectors(int64_t n, F&& f) {
  constexpr int kVectors = 4;
  int64_t i = 0;
  for (; i + kVectors * kLanes<A> <= n; i += kVectors * kLanes<A>)
    f(i, std::integral_constant<int, kVectors>(), WholeVector<A>());
  for (; i + kLanes<A> <= n; i += kLanes<A>) f(i, std::integral_constant<int, 1>(), WholeVector<A>());
  if (i < n) f(i, std::integral_constant<int, 1>(), n - i);
}

template <class T, class Index>
void pool_row(const MaxPoolShape& s, const T* plane, int64_t oy, T* out, Index* index) {
  const int64_t y = oy * s.g.stride_y - s.g.padding_y;
  const Taps rows = taps_inside(y, s.g.kernel_y, s.g.dilation_y, s.height);
  const bool in_vectors = sizeof(Index) == 1 || has_short_marks<Accum<T>>(s);
  int64_t ox = 0;
  while (ox < s.out_w) {
    const int64_t x = ox * s.g.stride_x - s.g.padding_x, position = y * s.width + x;
    if (s.channels > 1 && in_vectors) {
      const Taps columns = taps_inside(x, s.g.kernel_x, s.g.dilation_x, s.width);
      for_each_vectors<Accum<T>>(s.channels, [&](int64_t c, auto vectors, auto count) {
        const int64_t i = ox * s.channels + c;
        pool_lanes<vectors()>(s, plane + c, position, rows, columns, 1, 0, count, out + i, index + i);
      });
      ++ox;
      continue;
    }
    // Windows from here on that lie inside the row. Lanes far apart are read one by one, which few do not repay.
    const int64_t last = s.width - 1 - (s.g.kernel_x - 1) * s.g.dilation_x;
    const int64_t inside = x < 0 || x > last ? 0 : min_of((last - x) / s.g.stride_x + 1, s.out_w - ox);
    if (s.channels == 1 && in_vectors && inside >= (s.g.stride_x <= 2 ? 1 : 4)) {
      for_each_vector<Accum<T>>(inside, [&](int64_t i, int, auto count) {
        pool_lanes<1>(s, plane, position + i * s.g.stride_x, rows, Taps{0, s.g.kernel_x}, s.g.stride_x, s.g.stride_x,
                      count, out + ox + i, index + ox + i);
      });
      ox += inside;
      continue;
    }
    for (int64_t c = 0; c < s.channels; ++c) {
      const int64_t i = ox * s.channels + c;
      const auto best = maximum_at(s, plane + c, oy, ox);
      out[i] = from_accum<T>(best.value);
      store_tap(s, oy, ox, best.tap, index + i);
    }
    ++ox;
  }
}

}  // namespace

template <class T, class Index, class Isa>
void max_pool2d(const MaxPoolShape& s, const T* input, T* out, Index* index, const Cpu<Isa>& exec) {
  exec(s.planes * s.out_h, 1 + 8192 / (s.out_row() * s.g.kernel_y * s.g.kernel_x + 1), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k)
      pool_row(s, input + k / s.out_h * s.in_plane(), k % s.out_h, out + k * s.out_row(), index + k * s.out_row());
  });
}

template <class T, class Index, class Isa>
void max_pool2d_backward(const MaxPoolShape& s, const T* grad, const Index* index, T* grad_input,
                         const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const PoolGeometry& g = s.g;
  const TwoByTwo windows{
      .rows = s.out_h, .count = s.out_w, .height = s.height, .width = s.width, .channels = s.channels};
  if (s.out_h > 0 && windows.fit(g)) {
    std::atomic<bool> filled = true;
    exec(s.planes * s.out_h, 1 + 8192 / (2 * s.width * s.channels), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const int64_t plane = k / s.out_h, from = plane * s.out_plane();
        if (!fill_row_of_windows(windows, grad + from, index + from, k % s.out_h, grad_input + plane * s.in_plane()))
          filled = false;
      }
    });
    if (filled) return;
  }
  const int64_t down = ceil_div(g.kernel_y, g.stride_y), across = ceil_div(g.kernel_x, g.stride_x);
  if (s.channels >= 8 && max_of(down, across) <= 16 && down * across <= 16) {  // windows over a pixel
    const WindowsOver rows(s.height, g.kernel_y, g.stride_y, g.padding_y, g.dilation_y, s.out_h);
    const WindowsOver columns(s.width, g.kernel_x, g.stride_x, g.padding_x, g.dilation_x, s.out_w);
    exec(s.planes * s.height, 1 + 8192 / (s.width * s.channels + 1), [&](int64_t begin, int64_t end) {
      std::vector<Claim<Index>> claims;
      for (int64_t k = begin; k < end; ++k) {
        const int64_t from = k / s.height * s.out_plane(), y = k % s.height;
        gather_row(s, rows.at(y), columns, grad + from, index + from, y, claims, grad_input + k * s.width * s.channels);
      }
    });
    return;
  }
  const int64_t chunk = 64, chunks = ceil_div(s.channels, chunk), pixels = s.height * s.width;
  const Positions<Index> positions(s);
  exec(s.planes * chunks, 1 + 8192 / (pixels * min_of(chunk, s.channels) + 1), [&](int64_t begin, int64_t end) {
    std::vector<A> sums;  // for 16-bit types
    const auto add_up = [&](int64_t task, auto count) {
      const int64_t c0 = task % chunks * chunk, from = task / chunks * s.out_plane() + c0;
      T* to = grad_input + task / chunks * s.in_plane() + c0;
      if constexpr (std::is_same_v<T, A>) {
        scatter(s, positions, grad + from, index + from, count, to, s.channels);
      } else {
        sums.resize(size_t(pixels * count));
        scatter(s, positions, grad + from, index + from, count, sums.data(), count);
        const int64_t run = count == s.channels ? pixels * count : count;  // both without a gap
        for (int64_t i = 0; i < pixels * count; i += run)
          copy_numbers(&sums[size_t(i)], run, to + i / count * s.channels);
      }
    };
    for (int64_t task = begin; task < end; ++task) {
      if (s.channels == 1) add_up(task, std::integral_constant<int64_t, 1>());
      else add_up(task, min_of(chunk, s.channels - task % chunks * chunk));
    }
  });
}

#define INSTANTIATE_INDEX(T, Index)                                                    \
  template void max_pool2d(const MaxPoolShape&, const T*, T*, Index*, const CpuExec&); \
  template void max_pool2d_backward(const MaxPoolShape&, const T*, const Index*, T*, const CpuExec&);
#define INSTANTIATE(T) INSTANTIATE_INDEX(T, uint8_t) INSTANTIATE_INDEX(T, int64_t)
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE
#undef INSTANTIATE_INDEX

}  // namespace fastvision
