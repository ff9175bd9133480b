// A row of the input usually fills rows of the output that are its own: they are cleared and filled while they are in
// the cache. Where an index points elsewhere the plane is done again as a whole. Values are stored in the order of the
// input, so the highest position wins.
#include "max_unpool2d.h"

#include <atomic>
#include <vector>

#include "two_by_two.h"

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

TwoByTwo windows_of(const MaxUnpoolShape& s) {
  return {.rows = s.height, .count = s.width, .height = s.out_h, .width = s.out_w, .channels = s.channels};
}

template <class T, class Index>
bool fill_rows(const MaxUnpoolShape& s, const Placer<Index>& placer, const T* input, const Index* index, int64_t y0,
               int64_t y1, T* out) {
  const TwoByTwo windows = windows_of(s);
  if (y1 == y0 + 1 && windows.fit(s.g) && fill_row_of_windows(windows, input, index, y0, out)) return true;
  const Places own = places_of_rows(s, y0, y1);
  memset(out + own.begin * s.channels, 0, size_t((own.end - own.begin) * s.channels) * sizeof(T));
  return each_element(s, placer, index, y0, y1, own, [&](int64_t i, int64_t o) { out[o] = input[i]; });
}

// owners: scratch, where the last element of each place leaves its number.
template <class T, class Index>
bool gather_rows(const MaxUnpoolShape& s, const Placer<Index>& placer, const T* grad, const Index* index, int64_t y0,
                 int64_t y1, std::vector<int64_t>& owners, T* grad_input) {
  const TwoByTwo windows = windows_of(s);
  if (y1 == y0 + 1 && windows.fit(s.g) &&
      gather_two_by_two(windows, grad + 2 * y0 * s.out_w * s.channels, index + y0 * s.in_row(), y0,
                        grad_input + y0 * s.in_row()))
    return true;
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
