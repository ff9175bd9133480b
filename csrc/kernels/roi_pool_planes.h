// CPU, RoI pooling of a few channels in NCHW, as of images, whose planes are read where they lie: vectors of columns go
// through the rows of bins, then vectors of bins through their columns.
#pragma once

#include <algorithm>
#include <vector>

#include "roi_pool_maps.h"
#include "simd_integers.h"

namespace fastvision {
namespace {

// The largest of some pixels, the first of equal ones, and its place, for every lane.
template <class A>
struct Maxima {
  Vec<A> best;
  IndexVec<A> at;

  void include(const Maxima& other) {
    const auto nan = !(best == best), other_nan = !(other.best == other.best);
    const MaskOf<A, FV_ISA> before{other.at < at};
    const auto equal = both(either(other.best == best, both(other_nan, nan)), before);
    const auto wins = either(equal, either(other.best > best, both(other_nan, !nan)));
    best = select(wins, other.best, best);
    at = wins.raw ? other.at : at;
  }
};

// The columns that a row of bins reads: of all bins, and of each relative to these. A bin without columns has any one.
template <class A>
struct BinColumns {
  int64_t begin = INT64_MAX, end = 0, most = 0;  // most: of one bin
  std::vector<int32_t> first, last;              // up to whole vectors of bins

  BinColumns(const Range<A>* columns, int64_t bins)
      : first(size_t(ceil_div(bins, kLanes<A>) * kLanes<A>)), last(first.size()) {
    const auto is_empty = [columns](int64_t p) { return columns[p].end <= columns[p].begin; };
    for (int64_t p = 0; p < bins; ++p)
      if (!is_empty(p)) begin = min_of(begin, columns[p].begin), end = max_of(end, columns[p].end);
    for (int64_t p = 0; p < bins; ++p) {
      if (is_empty(p)) continue;
      first[size_t(p)] = int32_t(columns[p].begin - begin), last[size_t(p)] = int32_t(columns[p].end - 1 - begin);
      most = max_of(most, columns[p].end - columns[p].begin);
    }
  }
};

// The maxima of columns, as gather reads them.
template <class A>
struct ColumnMaxima {
  std::vector<A> best, at;  // `at` are the bits of integers

  template <class T>
  void set(const T* plane, int64_t width, Range<A> rows, const BinColumns<A>& columns) {
    best.resize(size_t(columns.end - columns.begin + kLanes<A>)), at.resize(best.size());
    for (int64_t x = columns.begin; x < columns.end; x += kLanes<A>) {
      const int64_t count = min_of(kLanes<A>, columns.end - x);
      const auto load = [&](int64_t y) FV_INLINE {
        return Maxima<A>{load_vector(plane + y * width + x, count), all_lanes<A>(y * width + x) + lane_numbers<A>()};
      };
      Maxima<A> maxima = load(rows.begin);
      for (int64_t y = rows.begin + 1; y < rows.end; ++y) maxima.include(load(y));
      maxima.best.store(best.data() + (x - columns.begin));
      Vec<A>(bit_cast<typename Vec<A>::Raw>(maxima.at)).store(at.data() + (x - columns.begin));
    }
  }
  Maxima<A> of(const int32_t* columns) const {
    return {gather(best.data(), columns), bit_cast<IndexVec<A>>(gather(at.data(), columns).raw)};
  }
};

// A row of bins of a plane.
template <class T>
void pool_row(const BinColumns<Accum<T>>& columns, const ColumnMaxima<Accum<T>>& of_columns, int64_t bins, T* out,
              int32_t* argmax) {
  using A = Accum<T>;
  for (int64_t p = 0; p < bins; p += kLanes<A>) {
    const int64_t count = min_of(kLanes<A>, bins - p);
    int32_t at[kLanes<A>];
    memcpy(at, &columns.first[size_t(p)], sizeof at);
    Maxima<A> maxima = of_columns.of(at);
    for (int64_t k = 1; k < columns.most; ++k) {
      for (int64_t i = 0; i < kLanes<A>; ++i) at[i] = min_of(at[i] + 1, columns.last[size_t(p + i)]);
      maxima.include(of_columns.of(at));
    }
    store_vector(out + p, maxima.best, count);
    store_indices<A>(at, maxima.at);
    if (argmax) memcpy(argmax + p, at, size_t(count) * sizeof(int32_t));
  }
}

// All channels of one region.
template <class T>
void pool_planes(const RoiPoolShape& s, const Regions<Accum<T>>& regions, int64_t r, const T* image,
                 ColumnMaxima<Accum<T>>& of_columns, T* out, int32_t* argmax) {
  const auto *rows = regions.rows(r), *edges = regions.columns(r);
  const BinColumns<Accum<T>> columns(edges, s.out_w);
  for (int64_t row = 0; row < s.channels * s.out_h; ++row) {
    const Range<Accum<T>> pixels = rows[row % s.out_h];
    const bool empty = columns.most == 0 || pixels.end <= pixels.begin;
    T* const to = out + row * s.out_w;
    int32_t* const at = argmax ? argmax + row * s.out_w : nullptr;
    if (!empty) {
      of_columns.set(image + row / s.out_h * s.pixels(), s.width, pixels, columns);
      pool_row(columns, of_columns, s.out_w, to, at);
    }
    for (int64_t p = 0; p < s.out_w; ++p) {
      if (!empty && edges[p].end > edges[p].begin) continue;
      to[p] = T{};
      if (at) at[p] = -1;
    }
  }
}

}  // namespace
}  // namespace fastvision
