// A row of the input usually fills rows of the output that are its own: they are cleared and filled while they are in
// the cache. Where an index points elsewhere the plane is done again as a whole. Values are stored in the order of the
// input, so the highest position wins.
#include "max_unpool2d.h"

#include <atomic>
#include <vector>

#include "simd.h"

namespace fastvision {
namespace {

struct Places {
  int64_t begin, end;
};

// The places that the rows [y0, y1) of the input may fill, so that all rows together make the output.
Places places_of_rows(const MaxUnpoolShape& s, int64_t y0, int64_t y1) {
  const auto first_row = [&](int64_t y) {
    if (y == 0) return int64_t(0);
    if (y == s.height) return s.out_h;
    return max_of(int64_t(0), min_of(s.out_h, y * s.g.stride_y - s.g.padding_y));
  };
  return {first_row(y0) * s.out_w, first_row(y1) * s.out_w};
}

// place_of() for all elements, with what divides worked out once.
template <class Index>
struct Placer;
template <>
struct Placer<int64_t> {
  explicit Placer(const MaxUnpoolShape&) {}
  FV_HD int64_t operator()(const MaxUnpoolShape&, int64_t, int64_t, int64_t position) const { return position; }
};
template <>
struct Placer<uint8_t> {
  int64_t offset[256];
  bool inside;  // all windows lie in the output
  explicit Placer(const MaxUnpoolShape& s)
      : inside(s.g.padding_y == 0 && s.g.padding_x == 0 && (s.height - 1) * s.g.stride_y + s.g.kernel_y <= s.out_h &&
               (s.width - 1) * s.g.stride_x + s.g.kernel_x <= s.out_w) {
    for (int64_t tap = 0; tap < 256; ++tap)
      offset[tap] =
          tap < s.g.kernel_y * s.g.kernel_x ? tap / s.g.kernel_x * s.out_w + tap % s.g.kernel_x : INT64_MIN / 2;
  }
  FV_HD int64_t operator()(const MaxUnpoolShape& s, int64_t y, int64_t x, uint8_t tap) const {
    if (inside) return y * s.g.stride_y * s.out_w + x * s.g.stride_x + offset[tap];
    return place_of(s, y, x, tap);
  }
};

// Calls f(input element, output element) in order; false as soon as a place is not in `own`.
template <class Index, class F>
FV_HD bool each_element(const MaxUnpoolShape& s, const Placer<Index>& placer, const Index* index, int64_t y0,
                        int64_t y1, Places own, F&& f) {
  const uint64_t size = uint64_t(own.end - own.begin);
  for (int64_t y = y0; y < y1; ++y) {
    const int64_t row = y * s.in_row();
    if (s.channels == 1) {
      for (int64_t x = 0; x < s.width; ++x) {
        const int64_t place = placer(s, y, x, index[row + x]);
        if (uint64_t(place - own.begin) >= size) return false;
        f(row + x, place);
      }
      continue;
    }
    for (int64_t x = 0; x < s.width; ++x)
      for (int64_t c = 0; c < s.channels; ++c) {
        const int64_t i = row + x * s.channels + c, place = placer(s, y, x, index[i]);
        if (uint64_t(place - own.begin) >= size) return false;
        f(i, place * s.channels + c);
      }
  }
  return true;
}

// Windows of 2 x 2 side by side, planes in rows: SegNet's case, in vectors.
bool is_two_by_two(const MaxUnpoolShape& s) {
  const PoolGeometry& g = s.g;
  return s.channels == 1 && g.kernel_y == 2 && g.kernel_x == 2 && g.stride_y == 2 && g.stride_x == 2 &&
         g.padding_y == 0 && g.padding_x == 0 && 2 * s.height <= s.out_h && 2 * s.width <= s.out_w;
}

// The taps of neighbouring windows; false if an index is not in its own window.
template <class A>
FV_HD bool load_taps(const MaxUnpoolShape&, const uint8_t* index, int64_t, IndexVec<A>& taps) {
  for (int k = 0; k < Vec<A>::kLanes; ++k) taps[k] = index[k];
  return !any(MaskOf<A, FV_ISA>{taps > all_lanes<A>(3)});
}
template <class A>
FV_HD bool load_taps(const MaxUnpoolShape& s, const int64_t* index, int64_t window, IndexVec<A>& taps) {
  using Wide = IndexVec<double>;
  constexpr int kWide = Vec<double>::kLanes;
  typedef int32_t Narrow __attribute__((vector_size(kVectorBytes / 2)));
  const Wide step = lane_numbers<double>() * 2;
  Wide inside = all_lanes<double>(-1);
  for (int k = 0; k < Vec<A>::kLanes; k += kWide) {
    Wide d;
    memcpy(&d, index + k, sizeof d);
    d = d - step - all_lanes<double>(window + 2 * k);
    const Wide right = d == 1, below = d == s.out_w, both = d == s.out_w + 1;
    inside &= (d == 0) | right | below | both;
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

// Calls vectors(x, taps) for whole vectors of row y, and single(x, tap) for the rest.
template <class A, class Index, class F, class G>
FV_HD bool walk_windows(const MaxUnpoolShape& s, const Index* index, int64_t y, F&& vectors, G&& single) {
  const Index* row = index + y * s.width;
  int64_t x = 0;
  for (; x + Vec<A>::kLanes <= s.width; x += Vec<A>::kLanes) {
    IndexVec<A> taps;
    if (!load_taps<A>(s, row + x, 2 * y * s.out_w + 2 * x, taps)) return false;
    vectors(x, taps);
  }
  for (; x < s.width; ++x) {
    const int64_t d = place_of(s, y, x, row[x]) - (2 * y * s.out_w + 2 * x);
    const int64_t tap = d == 0 ? 0 : d == 1 ? 1 : d == s.out_w ? 2 : d == s.out_w + 1 ? 3 : -1;
    if (tap < 0) return false;
    single(x, tap);
  }
  return true;
}

template <class T, class Index>
bool fill_two_by_two(const MaxUnpoolShape& s, const T* input, const Index* index, int64_t y, T* out) {
  using A = Accum<T>;
  constexpr int kLanes = Vec<A>::kLanes;
  int32_t order[2 * kLanes];  // of two vectors interleaved
  for (int k = 0; k < 2 * kLanes; ++k) order[k] = k % 2 * kLanes + k / 2;
  T* const rows[2] = {out + 2 * y * s.out_w, out + (2 * y + 1) * s.out_w};
  const T* from = input + y * s.width;
  const auto vectors = [&](int64_t x, const IndexVec<A>& taps) {
    const Vec<A> v = load_vector(from + x), zero(A(0));
    for (int ky = 0; ky < 2; ++ky) {
      const Vec<A> left = select(MaskOf<A, FV_ISA>{taps == all_lanes<A>(2 * ky)}, v, zero);
      const Vec<A> right = select(MaskOf<A, FV_ISA>{taps == all_lanes<A>(2 * ky + 1)}, v, zero);
      store_vector(rows[ky] + 2 * x, lookup<A>(left, right, order));
      store_vector(rows[ky] + 2 * x + kLanes, lookup<A>(left, right, order + kLanes));
    }
  };
  const auto single = [&](int64_t x, int64_t tap) {
    for (int64_t k = 0; k < 4; ++k) rows[k / 2][2 * x + k % 2] = k == tap ? from[x] : T{};
  };
  if (!walk_windows<A>(s, index, y, vectors, single)) return false;
  for (T* row : rows) memset(row + 2 * s.width, 0, size_t(s.out_w - 2 * s.width) * sizeof(T));
  const Places own = places_of_rows(s, y, y + 1);
  const int64_t done = (2 * y + 2) * s.out_w;
  memset(out + done, 0, size_t(own.end - done) * sizeof(T));
  return true;
}

template <class T, class Index>
bool gather_two_by_two(const MaxUnpoolShape& s, const T* grad, const Index* index, int64_t y, T* grad_input) {
  using A = Accum<T>;
  constexpr int kLanes = Vec<A>::kLanes;
  int32_t even[kLanes], odd[kLanes];
  for (int k = 0; k < kLanes; ++k) even[k] = 2 * k, odd[k] = 2 * k + 1;
  const T* const rows[2] = {grad + 2 * y * s.out_w, grad + (2 * y + 1) * s.out_w};
  T* to = grad_input + y * s.width;
  const auto vectors = [&](int64_t x, const IndexVec<A>& taps) {
    Vec<A> v(A(0));
    for (int ky = 0; ky < 2; ++ky) {
      const Vec<A> low = load_vector(rows[ky] + 2 * x), high = load_vector(rows[ky] + 2 * x + kLanes);
      v = select(MaskOf<A, FV_ISA>{taps == all_lanes<A>(2 * ky)}, lookup<A>(low, high, even), v);
      v = select(MaskOf<A, FV_ISA>{taps == all_lanes<A>(2 * ky + 1)}, lookup<A>(low, high, odd), v);
    }
    store_vector(to + x, v);
  };
  return walk_windows<A>(s, index, y, vectors, [&](int64_t x, int64_t tap) { to[x] = rows[tap / 2][2 * x + tap % 2]; });
}

template <class T, class Index>
bool fill_rows(const MaxUnpoolShape& s, const Placer<Index>& placer, const T* input, const Index* index, int64_t y0,
               int64_t y1, T* out) {
  if (y1 == y0 + 1 && is_two_by_two(s) && fill_two_by_two(s, input, index, y0, out)) return true;
  const Places own = places_of_rows(s, y0, y1);
  memset(out + own.begin * s.channels, 0, size_t((own.end - own.begin) * s.channels) * sizeof(T));
  return each_element(s, placer, index, y0, y1, own, [&](int64_t i, int64_t o) { out[o] = input[i]; });
}

// owners: scratch, where the last element of each place leaves its number.
template <class T, class Index>
bool gather_rows(const MaxUnpoolShape& s, const Placer<Index>& placer, const T* grad, const Index* index, int64_t y0,
                 int64_t y1, std::vector<int64_t>& owners, T* grad_input) {
  if (y1 == y0 + 1 && is_two_by_two(s) && gather_two_by_two(s, grad, index, y0, grad_input)) return true;
  const Places own = places_of_rows(s, y0, y1);
  const bool apart = s.g.stride_y >= s.g.kernel_y && s.g.stride_x >= s.g.kernel_x;
  if (apart && sizeof(Index) == 1)
    return each_element(s, placer, index, y0, y1, own, [&](int64_t i, int64_t o) { grad_input[i] = grad[o]; });
  const int64_t first = own.begin * s.channels, size = own.end * s.channels - first;
  if (int64_t(owners.size()) < size) owners.resize(size_t(size));
  if (!each_element(s, placer, index, y0, y1, own, [&](int64_t i, int64_t o) { owners[size_t(o - first)] = i; }))
    return false;
  return each_element(s, placer, index, y0, y1, own,
                      [&](int64_t i, int64_t o) { grad_input[i] = owners[size_t(o - first)] == i ? grad[o] : T{}; });
}

// Calls rows(plane, y0, y1) for every row, and for whole planes where that returns false.
template <class Exec, class MakeScratch, class F>
bool by_rows(const MaxUnpoolShape& s, const Exec& exec, MakeScratch&& make_scratch, F&& rows) {
  std::atomic<bool> good = true;
  exec(s.planes, 1 + 8192 / (s.out_plane() + 1), [&](int64_t begin, int64_t end) {
    auto scratch = make_scratch();
    for (int64_t plane = begin; plane < end; ++plane) {
      bool row_by_row = s.height > 0;
      for (int64_t y = 0; y < s.height && row_by_row; ++y) row_by_row = rows(plane, y, y + 1, scratch);
      if (!row_by_row && !rows(plane, 0, s.height, scratch)) good = false;
    }
  });
  return good;
}

}  // namespace

template <class T, class Index, class Isa>
bool max_unpool2d(const MaxUnpoolShape& s, const T* input, const Index* index, int64_t*, T* out, const Cpu<Isa>& exec) {
  const Placer<Index> placer(s);
  return by_rows(
      s, exec, [] { return 0; },
      [&](int64_t plane, int64_t y0, int64_t y1, int) {
        return fill_rows(s, placer, input + plane * s.in_plane(), index + plane * s.in_plane(), y0, y1,
                         out + plane * s.out_plane());
      });
}

template <class T, class Index, class Isa>
bool max_unpool2d_backward(const MaxUnpoolShape& s, const T* grad, const Index* index, int64_t*, T* grad_input,
                           const Cpu<Isa>& exec) {
  const Placer<Index> placer(s);
  return by_rows(
      s, exec, [] { return std::vector<int64_t>(); },
      [&](int64_t plane, int64_t y0, int64_t y1, std::vector<int64_t>& owners) {
        return gather_rows(s, placer, grad + plane * s.out_plane(), index + plane * s.in_plane(), y0, y1, owners,
                           grad_input + plane * s.in_plane());
      });
}

#define INSTANTIATE_INDEX(T, Index)                                                                        \
  template bool max_unpool2d(const MaxUnpoolShape&, const T*, const Index*, int64_t*, T*, const CpuExec&); \
  template bool max_unpool2d_backward(const MaxUnpoolShape&, const T*, const Index*, int64_t*, T*, const CpuExec&);
#define INSTANTIATE(T) INSTANTIATE_INDEX(T, uint8_t) INSTANTIATE_INDEX(T, int64_t)
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE
#undef INSTANTIATE_INDEX

}  // namespace fastvision
