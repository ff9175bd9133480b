// Bilinear sampling along one axis, as RoIAlign does it: a sample up to one pixel outside counts as the border pixel,
// farther out it counts nothing.
#pragma once

#include <math.h>

#include "common.h"

namespace fastvision {

// The one or two pixels that a sample reads, and how much of each. Outside: both weights are 0.
template <class A>
struct Tap {
  int64_t low, high;
  A low_weight, high_weight;
};

template <class A>
FV_HD Tap<A> bilinear_tap(A position, int64_t size) {
  // Written so that a NaN, for which every comparison is false, is outside.
  if (!(position >= A(-1) && position <= A(size))) return {0, 0, A(0), A(0)};
  const A inside = max_of(position, A(0));
  const int64_t low = static_cast<int64_t>(inside);
  if (low >= size - 1) return {size - 1, size - 1, A(1), A(0)};
  const A high_weight = inside - A(low);
  return {low, low + 1, A(1) - high_weight, high_weight};
}

// The samples of a region along one axis: `bins` bins of width `bin` from `start`, each with `samples` samples.
template <class A>
struct SampleAxis {
  A start, bin;
  int64_t bins, samples, size;  // size: pixels of the map along this axis

  FV_HD A position(int64_t p, int64_t i) const { return start + A(p) * bin + (A(i) + A(0.5)) * bin / A(samples); }

  // A range of samples of bin p that holds all of those at positions in [low, high], so that a region far larger than
  // the map costs no more than the map. Callers test each sample of it.
  struct Range {
    int64_t begin, end;
  };
  FV_HD Range samples_between(int64_t p, A low, A high) const {
    const A step = bin / A(samples), first = start + A(p) * bin;
    // Rounding moves a position by a few units in the last place of the largest number involved. Where that is more
    // than the map, positions mean nothing any more and only the cost matters.
    const A moved = A(8) * rounding(A()) * (A(fabs(first)) + A(fabs(start)) + bin) / step;
    const A slack = A(2) + (moved < A(64 + size) ? moved : A(64 + size));
    const A from = (low - first) / step - slack, to = (high - first) / step + slack;
    return {from > A(0) ? (from < A(samples) ? static_cast<int64_t>(from) : samples) : 0,
            to < A(samples) ? (to > A(0) ? static_cast<int64_t>(to) : 0) : samples};
  }
  FV_HD Range samples_inside(int64_t p) const { return samples_between(p, A(-1), A(size)); }
  // Whether samples of bin p may read pixels [first, first + count).
  FV_HD bool reaches(int64_t p, int64_t first, int64_t count) const {
    const auto range = samples_between(p, A(first - 1), A(first + count));
    return range.begin < range.end;
  }

  // How much of pixel `at` the samples of bin p read.
  FV_HD A weight_of(int64_t p, int64_t at) const {
    if (p >= bins || at >= size) return A(0);
    const auto range = samples_between(p, at == 0 ? A(-1) : A(at - 1), at == size - 1 ? A(size) : A(at + 1));
    A weight(0);
    for (int64_t i = range.begin; i < range.end; ++i) {
      const Tap<A> tap = bilinear_tap(position(p, i), size);
      weight += (tap.low == at ? tap.low_weight : A(0)) + (tap.high == at ? tap.high_weight : A(0));
    }
    return weight;
  }

 private:
  static FV_HD float rounding(float) { return 6e-8f; }
  static FV_HD double rounding(double) { return 1.2e-16; }
};

// The bins of a region along one axis. Step i of bin p reads one or two pixels; an average is over the product of the
// lengths of two axes.
template <class A>
struct SampledBins {
  SampleAxis<A> axis;

  FV_HD auto steps(int64_t p) const { return axis.samples_inside(p); }
  FV_HD Tap<A> tap(int64_t p, int64_t i) const { return bilinear_tap(axis.position(p, i), axis.size); }
  FV_HD A length(int64_t) const { return A(axis.samples); }
  FV_HD A weight_of(int64_t p, int64_t at) const { return axis.weight_of(p, at); }
  // Whether bin p may read pixels [first, first + count).
  FV_HD bool reaches(int64_t p, int64_t first, int64_t count) const { return axis.reaches(p, first, count); }
};

}  // namespace fastvision
