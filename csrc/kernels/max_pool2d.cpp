// channels_last: vectors of channels. NCHW: vectors of neighbouring windows where all of their taps lie inside the row,
// windows one by one at the border. Backward, channels_last: vectors of channels of a pixel ask the windows over it
// whether they took it, unless those are many. Otherwise windows add to pixels: a thread owns a plane, or 64 channels
// of an image, and clears each row of pixels when the first window reaches it, so that it is still in the cache.
#include "max_pool2d.h"

#include <type_traits>
#include <vector>

#include "simd.h"
#include "two_by_two.h"

namespace fastvision {
namespace {

// The maxima of `count` windows or channels side by side; start: where tap 0 of the first is in the plane, which may be
// outside; step: memory between the lanes.
template <class T, class F>
FV_HD void pool_lanes(const MaxPoolShape& s, const T* plane, int64_t start, Taps rows, Taps columns, int64_t step,
                      int64_t count, F&& store) {
  using A = Accum<T>;
  Vec<A> best(A(-__builtin_huge_val()));
  IndexVec<A> taps = all_lanes<A>(-1);
  bool first = true;
  for (int64_t ky = rows.begin; ky < rows.end; ++ky)
    for (int64_t kx = columns.begin; kx < columns.end; ++kx, first = false) {
      const T* at = plane + (start + (ky * s.g.dilation_y * s.width + kx * s.g.dilation_x) * s.channels);
      const Vec<A> v = load_strided(at, step, count);
      const int64_t tap = ky * s.g.kernel_x + kx;
      const auto wins = either(v > best, !(v == v));
      best = first ? v : select(wins, v, best);
      taps = first ? all_lanes<A>(tap) : select(wins, tap, taps);
    }
  store(best, taps);
}

template <class T, class Index>
void pool_row(const MaxPoolShape& s, const T* plane, int64_t oy, T* out, Index* index) {
  using A = Accum<T>;
  constexpr int64_t kLanes = Vec<A>::kLanes;
  const int64_t y = oy * s.g.stride_y - s.g.padding_y;
  const Taps rows = taps_inside(y, s.g.kernel_y, s.g.dilation_y, s.height);
  int64_t ox = 0;
  while (ox < s.out_w) {
    const int64_t x = ox * s.g.stride_x - s.g.padding_x;
    const int64_t start = (y * s.width + x) * s.channels;
    if (s.channels > 1) {
      const Taps columns = taps_inside(x, s.g.kernel_x, s.g.dilation_x, s.width);
      for (int64_t c = 0; c < s.channels; c += kLanes) {
        const int64_t count = min_of(kLanes, s.channels - c);
        pool_lanes(s, plane, start + c, rows, columns, 1, count, [&](const Vec<A>& best, const IndexVec<A>& taps) {
          const int64_t i = ox * s.channels + c;
          store_vector(out + i, best, count);
          for (int64_t k = 0; k < count; ++k) store_tap(s, oy, ox, taps[k], index + i + k);
        });
      }
      ++ox;
      continue;
    }
    // Windows from here on that lie inside the row.
    const int64_t last = s.width - 1 - (s.g.kernel_x - 1) * s.g.dilation_x;
    const int64_t inside = x < 0 || x > last ? 0 : min_of((last - x) / s.g.stride_x + 1, s.out_w - ox);
    if (inside == 0) {
      const auto best = maximum_at(s, plane, oy, ox);
      out[ox] = from_accum<T>(best.value);
      store_tap(s, oy, ox, best.tap, index + ox);
      ++ox;
      continue;
    }
    const int64_t count = min_of(kLanes, inside);
    pool_lanes(s, plane, start, rows, Taps{0, s.g.kernel_x}, s.g.stride_x, count,
               [&](const Vec<A>& best, const IndexVec<A>& taps) {
                 store_vector(out + ox, best, count);
                 for (int64_t k = 0; k < count; ++k) store_tap(s, oy, ox + k, taps[k], index + ox + k);
               });
    ox += count;
  }
}

// Which lanes hold the index `wanted`.
template <class A>
FV_HD MaskOf<A, FV_ISA> lanes_equal(const uint8_t* index, uint8_t wanted) {
  typedef uint8_t Bytes __attribute__((vector_size(Vec<A>::kLanes)));
  Bytes bytes;
  memcpy(&bytes, index, sizeof bytes);
  return {__builtin_convertvector(bytes, IndexVec<A>) == all_lanes<A>(wanted)};
}
template <class A>
FV_HD MaskOf<A, FV_ISA> lanes_equal(const int64_t* index, int64_t wanted) {
  IndexVec<A> r;
  for (int k = 0; k < Vec<A>::kLanes; ++k) r[k] = index[k] == wanted ? -1 : 0;
  return {r};
}

// A window over a pixel: where its gradient lies, and the index by which it means that pixel.
template <class Index>
struct Claim {
  int64_t offset;
  Index wanted;
};
template <class Index>
void claims_on(const MaxPoolShape& s, int64_t y, int64_t x, Taps rows, Taps columns,
               std::vector<Claim<Index>>& claims) {
  claims.clear();
  for (int64_t oy = rows.begin; oy < rows.end; ++oy)
    for (int64_t ox = columns.begin; ox < columns.end; ++ox) {
      const int64_t offset = (oy * s.out_w + ox) * s.channels;
      if constexpr (sizeof(Index) == 1) {
        const int64_t dy = y - oy * s.g.stride_y + s.g.padding_y, dx = x - ox * s.g.stride_x + s.g.padding_x;
        if (dy % s.g.dilation_y || dx % s.g.dilation_x) continue;
        claims.push_back({offset, Index(dy / s.g.dilation_y * s.g.kernel_x + dx / s.g.dilation_x)});
      } else {
        claims.push_back({offset, y * s.width + x});
      }
    }
}

// All channels of row y of an image's gradient.
template <class T, class Index>
void gather_row(const MaxPoolShape& s, const T* grad, const Index* index, int64_t y, std::vector<Claim<Index>>& claims,
                T* to) {
  using A = Accum<T>;
  constexpr int64_t kLanes = Vec<A>::kLanes;
  const PoolGeometry& g = s.g;
  const Taps rows = windows_over(y, g.kernel_y, g.stride_y, g.padding_y, g.dilation_y, s.out_h);
  for (int64_t x = 0; x < s.width; ++x, to += s.channels) {
    const Taps columns = windows_over(x, g.kernel_x, g.stride_x, g.padding_x, g.dilation_x, s.out_w);
    claims_on(s, y, x, rows, columns, claims);
    int64_t c = 0;
    for (; c + kLanes <= s.channels; c += kLanes) {
      Vec<A> sum(A(0));
      for (const auto& claim : claims)
        sum = sum + select(lanes_equal<A>(index + claim.offset + c, claim.wanted), load_vector(grad + claim.offset + c),
                           Vec<A>(A(0)));
      store_vector(to + c, sum);
    }
    for (; c < s.channels; ++c) {
      A sum(0);
      for (const auto& claim : claims)
        if (index[claim.offset + c] == claim.wanted) sum += to_accum(grad[claim.offset + c]);
      to[c] = from_accum<T>(sum);
    }
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
template <class T, class Index>
void scatter(const MaxPoolShape& s, const Positions<Index>& positions, const T* grad, const Index* index, int64_t count,
             Accum<T>* sum, int64_t step) {
  const PoolGeometry& g = s.g;
  int64_t cleared = 0;  // rows of pixels
  const auto clear_until = [&](int64_t row) {
    for (; cleared < row; ++cleared)
      for (int64_t x = 0; x < s.width; ++x) {
        Accum<T>* pixel = sum + (cleared * s.width + x) * step;
        for (int64_t c = 0; c < count; ++c) pixel[c] = 0;
      }
  };
  const int64_t room = s.width - 1 - (g.kernel_x - 1) * g.dilation_x + g.padding_x;
  const Taps inside_row{ceil_div(g.padding_x, g.stride_x), room < 0 ? 0 : room / g.stride_x + 1};
  for (int64_t oy = 0; oy < s.out_h; ++oy) {
    const int64_t y = oy * g.stride_y - g.padding_y, last_y = y + (g.kernel_y - 1) * g.dilation_y;
    clear_until(min_of(s.height, last_y + 1));
    for (int64_t ox = 0; ox < s.out_w; ++ox) {
      const bool inside = y >= 0 && last_y < s.height && ox >= inside_row.begin && ox < inside_row.end;
      const int64_t start = oy * g.stride_y * s.width + ox * g.stride_x;
      for (int64_t c = 0; c < count; ++c) {
        const int64_t o = (oy * s.out_w + ox) * s.channels + c;
        const int64_t at = inside ? positions(s, start, index[o]) : stored_position(s, oy, ox, index[o]);
        if (at >= 0) sum[at * step + c] += to_accum(grad[o]);
      }
    }
  }
  clear_until(s.height);
}

// False if an index is not in its window.
template <class T, class Index>
bool fill_plane(const MaxPoolShape& s, const T* grad, const Index* index, T* to) {
  for (int64_t y = 0; y < s.out_h; ++y, to += 2 * s.width) {
    const TwoByTwo windows{s.out_w, s.width};
    if (!fill_two_by_two(windows, grad + y * s.out_w, index + y * s.out_w, y, to)) return false;
    for (T* row : {to, to + s.width}) memset(row + 2 * s.out_w, 0, size_t(s.width - 2 * s.out_w) * sizeof(T));
  }
  memset(to, 0, size_t((s.height - 2 * s.out_h) * s.width) * sizeof(T));
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
  if (s.channels >= 8 && g.kernel_y * g.kernel_x <= 16 * g.stride_y * g.stride_x) {
    exec(s.planes * s.height, 1 + 8192 / (s.width * s.channels + 1), [&](int64_t begin, int64_t end) {
      std::vector<Claim<Index>> claims;
      for (int64_t k = begin; k < end; ++k) {
        const int64_t from = k / s.height * s.out_plane();
        gather_row(s, grad + from, index + from, k % s.height, claims, grad_input + k * s.width * s.channels);
      }
    });
    return;
  }
  const int64_t chunk = 64, chunks = ceil_div(s.channels, chunk), pixels = s.height * s.width;
  const bool two_by_two = TwoByTwo::fits(g, s.channels, s.out_h, s.out_w, s.height, s.width);
  const Positions<Index> positions(s);
  exec(s.planes * chunks, 1 + 8192 / (pixels * min_of(chunk, s.channels) + 1), [&](int64_t begin, int64_t end) {
    std::vector<A> sums;  // for 16-bit types
    for (int64_t task = begin; task < end; ++task) {
      const int64_t c0 = task % chunks * chunk, count = min_of(chunk, s.channels - c0);
      const int64_t from = task / chunks * s.out_plane() + c0;
      T* to = grad_input + task / chunks * s.in_plane() + c0;
      if (two_by_two && fill_plane(s, grad + from, index + from, to)) continue;
      if constexpr (std::is_same_v<T, A>) {
        scatter(s, positions, grad + from, index + from, count, to, s.channels);
      } else {
        sums.resize(size_t(pixels * count));
        scatter(s, positions, grad + from, index + from, count, sums.data(), count);
        for (int64_t i = 0; i < pixels; ++i)
          for (int64_t c = 0; c < count; ++c) to[i * s.channels + c] = from_accum<T>(sums[size_t(i * count + c)]);
      }
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
