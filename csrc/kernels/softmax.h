// Softmax and sigmoid from one exponential per logit, for scalars and for vectors (simd.h).
#pragma once

#include <type_traits>

#include "elementary.h"

namespace fastvision {

// Sum of exponentials as they come: of exp(x - largest), rescaled whenever a larger x comes.
template <class A>
struct OnlineSum {
  using S = typename Lanes<A>::Scalar;
  A largest = A(-Rounder<S>::kLargest), sum = A(S(0));

  FV_HD void add(A x) {
    const A apart = x - largest, e = exp_negative(-abs_of(apart));
    const auto larger = x > largest;
    sum = select(larger, times_plus(sum, e, A(S(1))), sum + e);
    largest = select(larger, x, largest);
  }
  FV_HD void add(const OnlineSum& other) {
    const A most = max_of(largest, other.largest);
    sum = sum * exp_negative(largest - most) + other.sum * exp_negative(other.largest - most);
    largest = most;
  }
};

// 1 / (1 + exp(-x)) and its derivative.
template <class A>
struct Sigmoid {
  A value, slope;
};
template <class A>
FV_HD Sigmoid<A> sigmoid(A x) {
  using S = typename Lanes<A>::Scalar;
  const A one(S(1)), e = exp_negative(-abs_of(x)), r = one / (one + e), rest = e * r;
  return {select(x > A(S(0)), r, rest), rest * r};
}

// Calls f with whether gamma is 2, which needs no power.
template <class F>
void with_square(double gamma, F&& f) {
  if (gamma == 2) return f(std::true_type());
  f(std::false_type());
}

}  // namespace fastvision
