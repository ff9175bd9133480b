// Total variation: differences of neighbouring pixels, penalised and summed per plane (Rudin et al., Physica D 1992;
// with an exponent: Mahendran and Vedaldi, CVPR 2015).
#pragma once

#include <type_traits>

#include "common.h"

namespace fastvision {

enum class Penalty : int64_t {
  absolute,  // |dy| + |dx|
  square,    // dy^2 + dx^2
  length,    // (dy^2 + dx^2)^(1/2)
  power,     // (dy^2 + dx^2)^(beta/2)
};

struct TotalVariationShape {
  int64_t planes, height, width, channels;  // x: (planes, height, width, channels); channels is 1 unless channels_last
  double beta;

  // Sums are made over pieces of this many rows and then over the pieces, both in a fixed order.
  static constexpr int64_t kRows = 8;
  FV_HD int64_t row() const { return width * channels; }
  FV_HD int64_t pieces() const { return ceil_div(height, kRows); }
  FV_HD int64_t partial_sums() const { return planes * pieces() * channels; }
};

template <class V>
struct Differences {
  V y, x;
};

template <Penalty kind, class V>
FV_HD V penalty_of(Differences<V> d, double beta) {
  if constexpr (kind == Penalty::absolute) return abs_of(d.y) + abs_of(d.x);
  const V square = d.y * d.y + d.x * d.x;
  if constexpr (kind == Penalty::length) return sqrt_of(square);
  if constexpr (kind == Penalty::power) return power_of(square, beta / 2);
  return square;
}

// Its derivative by both differences; 0 where it has a kink.
template <Penalty kind, class V>
FV_HD Differences<V> slope_of(Differences<V> d, double beta) {
  const V zero(0), one(1);
  if constexpr (kind == Penalty::absolute) {
    const auto sign = [&](V v) { return select(v > zero, one, select(v < zero, -one, v)); };
    return {sign(d.y), sign(d.x)};
  } else if constexpr (kind == Penalty::square) {
    return {d.y + d.y, d.x + d.x};
  } else {
    const V square = d.y * d.y + d.x * d.x;
    V factor = one;
    if constexpr (kind == Penalty::length) factor = one / sqrt_of(square);
    else factor = V(beta) * power_of(square, beta / 2 - 1);
    const auto flat = square == zero;
    return {select(flat, zero, factor * d.y), select(flat, zero, factor * d.x)};
  }
}

// Calls f with the penalty as a constant.
template <class F>
void with_penalty(Penalty kind, F&& f) {
  switch (kind) {
    case Penalty::absolute: return f(std::integral_constant<Penalty, Penalty::absolute>{});
    case Penalty::square: return f(std::integral_constant<Penalty, Penalty::square>{});
    case Penalty::length: return f(std::integral_constant<Penalty, Penalty::length>{});
    default: return f(std::integral_constant<Penalty, Penalty::power>{});
  }
}

// Twins. sums: (planes, channels); scratch: partial_sums() numbers. The backward multiplies the slopes by grad (planes,
// channels) and writes all of grad_x.
template <class T, class Isa>
void total_variation(const TotalVariationShape&, Penalty, const T* x, double* scratch, Accum<T>* sums, const Cpu<Isa>&);
template <class T, class Isa>
void total_variation_backward(const TotalVariationShape&, Penalty, const Accum<T>* grad, const T* x, T* grad_x,
                              const Cpu<Isa>&);
template <class T>
void total_variation(const TotalVariationShape&, Penalty, const T* x, double* scratch, Accum<T>* sums, const CudaExec&);
template <class T>
void total_variation_backward(const TotalVariationShape&, Penalty, const Accum<T>* grad, const T* x, T* grad_x,
                              const CudaExec&);

}  // namespace fastvision
