// Rows are walked as vectors of pixels, or of pixels and channels. The gradient of a pixel needs the slopes of the
// pixel itself, of the one above and of the one to the left: they are computed once per row and kept for the next.
#include "total_variation.h"

#include <vector>

#include "simd.h"

namespace fastvision {
namespace {

// Calls f(i, count, differences) for elements [i, end) of the row that starts at p.
template <class T, class F>
FV_HD void walk_row(const TotalVariationShape& s, const T* p, bool last_row, int64_t i, int64_t end, F&& f) {
  using A = Accum<T>;
  const int64_t row = s.row(), with_right = row - s.channels;
  for (; !last_row && i + kLanes<A> <= min_of(end, with_right); i += kLanes<A>) {
    const Vec<A> here = load_vector(p + i);
    f(i, kLanes<A>, Differences<Vec<A>>{load_vector(p + row + i) - here, load_vector(p + i + s.channels) - here});
  }
  for (; i < end; i += kLanes<A>) {
    const int64_t count = min_of(kLanes<A>, end - i), right = max_of(int64_t(0), min_of(count, with_right - i));
    const Vec<A> here = load_vector(p + i, count);
    Differences<Vec<A>> d{Vec<A>(A(0)), Vec<A>(A(0))};
    if (!last_row) d.y = load_vector(p + row + i, count) - here;
    if (right > 0) {
      const MaskOf<A, FV_ISA> has_right{lanes_below<A>(right)};
      d.x = select(has_right, load_vector(p + i + s.channels, right) - here, d.x);
    }
    f(i, count, d);
  }
}

template <Penalty kind, class T>
void sum_piece(const TotalVariationShape& s, const T* plane, int64_t piece, double* sums) {
  using A = Accum<T>;
  const int64_t y0 = piece * s.kRows, y1 = min_of(y0 + s.kRows, s.height);
  if (s.channels == 1) {
    double total = 0;
    for (int64_t y = y0; y < y1; ++y) {
      Vec<A> sum(A(0));
      walk_row(s, plane + y * s.row(), y + 1 == s.height, 0, s.row(),
               [&](int64_t, int64_t, const Differences<Vec<A>>& d) { sum = sum + penalty_of<kind>(d, s.beta); });
      total += double(sum_of(sum));
    }
    sums[0] = total;
    return;
  }
  constexpr int64_t kChunk = 2048;  // elements of a row whose sums over the rows stay in the cache
  A chunk_sums[kChunk];
  for (int64_t c = 0; c < s.channels; ++c) sums[c] = 0;
  for (int64_t first = 0; first < s.row(); first += kChunk) {
    const int64_t end = min_of(first + kChunk, s.row());
    memset(chunk_sums, 0, sizeof chunk_sums);
    for (int64_t y = y0; y < y1; ++y)
      walk_row(s, plane + y * s.row(), y + 1 == s.height, first, end,
               [&](int64_t i, int64_t, const Differences<Vec<A>>& d) {
                 A* to = chunk_sums + i - first;  // lanes past the end are never read
                 store_vector(to, load_vector(to) + penalty_of<kind>(d, s.beta));
               });
    for (int64_t i = first; i < end;) {
      const int64_t c = i % s.channels, run = min_of(s.channels - c, end - i);
      for (int64_t k = 0; k < run; ++k) sums[c + k] += double(chunk_sums[i - first + k]);
      i += run;
    }
  }
}

// Rows [y0, y1) of the gradient of one plane.
template <Penalty kind, class T>
void rows_backward(const TotalVariationShape& s, int64_t y0, int64_t y1, const Accum<T>* grad, const T* plane,
                   T* grad_plane, std::vector<Accum<T>>& scratch) {
  using A = Accum<T>;
  const int64_t row = s.row();
  scratch.assign(size_t(4 * row + s.channels), A(0));
  A* factors = scratch.data();
  A* above = factors + row;
  A* below = above + row;
  A* right = below + row + s.channels;  // behind as many zeros as there are channels: slopes left of the first pixel
  for (int64_t i = 0, c = 0; i < row; ++i) {
    factors[i] = grad[c];
    if (++c == s.channels) c = 0;
  }
  const auto slopes_of = [&](int64_t y) {
    walk_row(s, plane + y * row, y + 1 == s.height, 0, row, [&](int64_t i, int64_t n, const Differences<Vec<A>>& d) {
      const auto slope = slope_of<kind>(d, s.beta);
      if (n == kLanes<A>) {
        store_vector(below + i, slope.y);
        store_vector(right + i, slope.x);
      } else {
        store_vector(below + i, slope.y, n);
        store_vector(right + i, slope.x, n);
      }
    });
  };
  if (y0 > 0) {
    slopes_of(y0 - 1);
    std::swap(above, below);
  }
  for (int64_t y = y0; y < y1; ++y) {
    slopes_of(y);
    for (int64_t i = 0; i < row; i += kLanes<A>) {
      const int64_t n = min_of(kLanes<A>, row - i);
      const auto at = [&](const A* p) { return n == kLanes<A> ? load_vector(p + i) : load_vector(p + i, n); };
      const Vec<A> value = at(factors) * ((at(above) - at(below)) + (at(right - s.channels) - at(right)));
      T* to = grad_plane + y * row + i;
      if (n == kLanes<A>) store_vector(to, value);
      else store_vector(to, value, n);
    }
    std::swap(above, below);
  }
}

}  // namespace

template <class T, class Isa>
void total_variation(const TotalVariationShape& s, Penalty penalty, const T* x, double* scratch, Accum<T>* sums,
                     const Cpu<Isa>& exec) {
  const int64_t plane = s.height * s.row(), pieces = s.pieces();
  with_penalty(penalty, [&](auto kind) {
    exec(s.planes * pieces, 1 + 65536 / (s.kRows * s.row() + 1), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k)
        sum_piece<kind()>(s, x + k / pieces * plane, k % pieces, scratch + k * s.channels);
    });
  });
  for (int64_t p = 0; p < s.planes; ++p)
    for (int64_t c = 0; c < s.channels; ++c) {
      double total = 0;
      for (int64_t k = 0; k < pieces; ++k) total += scratch[(p * pieces + k) * s.channels + c];
      sums[p * s.channels + c] = Accum<T>(total);
    }
}

template <class T, class Isa>
void total_variation_backward(const TotalVariationShape& s, Penalty penalty, const Accum<T>* grad, const T* x,
                              T* grad_x, const Cpu<Isa>& exec) {
  constexpr int64_t kRows = 64;
  const int64_t plane = s.height * s.row(), blocks = ceil_div(s.height, kRows);
  with_penalty(penalty, [&](auto kind) {
    exec(s.planes * blocks, 1 + 16384 / (kRows * s.row() + 1), [&](int64_t begin, int64_t end) {
      std::vector<Accum<T>> scratch;
      for (int64_t k = begin; k < end; ++k) {
        const int64_t p = k / blocks, y0 = k % blocks * kRows;
        rows_backward<kind()>(s, y0, min_of(y0 + kRows, s.height), grad + p * s.channels, x + p * plane,
                              grad_x + p * plane, scratch);
      }
    });
  });
}

#define INSTANTIATE(T)                                                                                              \
  template void total_variation(const TotalVariationShape&, Penalty, const T*, double*, Accum<T>*, const CpuExec&); \
  template void total_variation_backward(const TotalVariationShape&, Penalty, const Accum<T>*, const T*, T*,        \
                                         const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
