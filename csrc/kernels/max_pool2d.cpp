// channels_last: vectors of channels. NCHW: vectors of neighbouring windows where all of their taps lie inside the row,
// windows one by one at the border. Backward, 2 x 2 windows side by side: each window fills its pixels. channels_last:
// vectors of channels of a pixel ask the windows over it whether they took it, unless those are many. Otherwise windows
// add to pixels: a thread owns a plane, or 64 channels of an image, and clears each row of pixels when the first window
// reaches it, so that it is still in the cache.
#include "max_pool2d.h"

#include <algorithm>
#include <atomic>
#include <span>
#include <type_traits>
#include <vector>

#include "simd.h"
#include "two_by_two.h"

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
  constexpr int kLanes = Vec<A>::kLanes, kWide = Vec<double>::kLanes;
  typedef int32_t Narrow __attribute__((vector_size(kVectorBytes / 2)));
  int64_t positions[kLanes];
  for (int k = 0; k < kLanes; k += kWide) {
    Wide mark;
    if constexpr (sizeof(A) == 8) {
      mark = marks;
    } else {
      Narrow narrow;
      memcpy(&narrow, reinterpret_cast<const char*>(&marks) + k * sizeof(int32_t), sizeof narrow);
      mark = __builtin_convertvector(narrow, Wide);
    }
    const Wide at = mark + lane_numbers<double>() * step + all_lanes<double>(position + k * step);
    const Wide stored = mark < 0 ? all_lanes<double>(-1) : at;
    memcpy(positions + k, &stored, sizeof stored);
  }
  memcpy(to, positions, size_t(count) * sizeof *to);
}

// The maxima of `count` windows or channels side by side. position: of tap 0 of the first one, which may be outside of
// the plane; step and window: how many numbers and pixels lie between the lanes.
template <class T, class Index, class Count>
FV_HD void pool_lanes(const MaxPoolShape& s, const T* channel, int64_t position, Taps rows, Taps columns, int64_t step,
                      int64_t window, Count count, T* out, Index* index) {
  using A = Accum<T>;
  Vec<A> best(A(-__builtin_huge_val()));
  IndexVec<A> marks = all_lanes<A>(-1);
  bool first = true;
  for (int64_t ky = rows.begin; ky < rows.end; ++ky)
    for (int64_t kx = columns.begin; kx < columns.end; ++kx, first = false) {
      const int64_t pixel = position + ky * s.g.dilation_y * s.width + kx * s.g.dilation_x;
      const Vec<A> v = load_strided(channel + pixel * s.channels, step, count);
      const int64_t mark = mark_of(s, ky, kx, index);
      const auto wins = either(v > best, !(v == v));
      best = first ? v : select(wins, v, best);
      marks = first ? all_lanes<A>(mark) : select(wins, mark, marks);
    }
  store_vector(out, best, count);
  store_marks<A>(marks, position, window, count, index);
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
      for_each_vector<Accum<T>>(s.channels, [&](int64_t c, int, auto count) {
        const int64_t i = ox * s.channels + c;
        pool_lanes(s, plane + c, position, rows, columns, 1, 0, count, out + i, index + i);
      });
      ++ox;
      continue;
    }
    // Windows from here on that lie inside the row.
    const int64_t last = s.width - 1 - (s.g.kernel_x - 1) * s.g.dilation_x;
    if (x >= 0 && x <= last && s.channels == 1 && in_vectors) {
      const int64_t inside = min_of((last - x) / s.g.stride_x + 1, s.out_w - ox);
      for_each_vector<Accum<T>>(inside, [&](int64_t i, int, auto count) {
        pool_lanes(s, plane, position + i * s.g.stride_x, rows, Taps{0, s.g.kernel_x}, s.g.stride_x, s.g.stride_x,
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

// Which lanes hold the index `wanted`.
template <class A>
FV_HD MaskOf<A, FV_ISA> lanes_equal(const uint8_t* index, uint8_t wanted) {
  return {load_bytes<A>(index) == all_lanes<A>(wanted)};
}
template <class A>
FV_HD MaskOf<A, FV_ISA> lanes_equal(const int64_t* index, int64_t wanted) {
  IndexVec<A> r;
  for (int k = 0; k < Vec<A>::kLanes; ++k) r[k] = index[k] == wanted ? -1 : 0;
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
  constexpr int64_t kLanes = Vec<A>::kLanes;
  const size_t count = kClaims < 4 ? kClaims : claims.size();
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) {
    Vec<A> sum(A(0));
    for (size_t k = 0; k < count; ++k)
      sum = sum + select(lanes_equal<A>(index + claims[k].offset + c, claims[k].wanted),
                         load_vector(grad + claims[k].offset + c), Vec<A>(A(0)));
    store_vector(to + c, sum);
  }
  for (; c < channels; ++c) {
    A sum(0);
    for (size_t k = 0; k < count; ++k)
      if (index[claims[k].offset + c] == claims[k].wanted) sum += to_accum(grad[claims[k].offset + c]);
    to[c] = from_accum<T>(sum);
  }
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

// Fills the pixels of row y of 2 x 2 windows side by side, of the last row all pixels that are left; false if an index
// is not in its window.
template <class T, class Index>
bool fill_row_of_windows(const MaxPoolShape& s, const T* grad, const Index* index, int64_t y, T* plane) {
  const int64_t row = s.width * s.channels, filled = 2 * s.out_row();
  T* const to = plane + 2 * y * row;
  const TwoByTwo windows{s.out_w, s.width, s.channels};
  if (!fill_two_by_two(windows, grad + y * s.out_row(), index + y * s.out_row(), y, to)) return false;
  for (T* rest : {to + filled, to + row + filled}) memset(rest, 0, size_t(row - filled) * sizeof(T));
  if (y == s.out_h - 1) memset(to + 2 * row, 0, size_t(s.height - 2 * s.out_h) * size_t(row) * sizeof(T));
  return true;
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
  if (s.out_h > 0 && TwoByTwo::fits(g, s.out_h, s.out_w, s.height, s.width)) {
    std::atomic<bool> filled = true;
    exec(s.planes * s.out_h, 1 + 8192 / (2 * s.width * s.channels), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const int64_t plane = k / s.out_h, from = plane * s.out_plane();
        if (!fill_row_of_windows(s, grad + from, index + from, k % s.out_h, grad_input + plane * s.in_plane()))
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
