// Focal loss on sigmoids (Lin et al., ICCV 2017), value and gradient from one exponential, one logarithm and one
// division; for scalars and for vectors (simd.h).
#pragma once

#include "reduction.h"
#include "softmax.h"

namespace fastvision {

struct SigmoidFocalShape {
  int64_t total, classes;            // values; the last dimension, which labels and weights run along
  double positive, negative, gamma;  // alpha and 1 - alpha, or 1 and 1
  bool ignores;
  double ignored;         // of dense targets
  int64_t ignored_label;  // of labels; a label equal to classes is the background
  Reduction reduction;
};

template <class A>
struct LossTerm {
  A loss, gradient;
};

// With e = exp(-|x|), `near` the share of the target on the other side of 0 than x and `far` the rest, the share of
// probability that is not on the target is (e far + near) / (1 + e), and binary cross entropy |x| near + log(1 + e).
// Both come without cancellation, and the ratio of e to the former is bounded, so that nothing overflows for any
// gamma >= 0. The three divisions, by 1 + e, 2 + e (for the logarithm) and e far + near, are one.
template <bool kSquare, class A>
FV_HD LossTerm<A> sigmoid_focal_term(A x, A target, const SigmoidFocalShape& s) {
  using S = typename Lanes<A>::Scalar;
  const A zero(S(0)), one(S(1)), size = abs_of(x), e = exp_negative(-size), rest = one - target;
  const auto right = x > zero;
  const A near = select(right, rest, target), far = select(right, target, rest);
  const A mixed = max_of(times_plus(e, far, near), zero), divisor = max_of(mixed, A(Rounder<S>::kSmallest));
  const A two_divisors = (one + e) * divisor, third = one + (one + e), inverse_of_all = one / (two_divisors * third);
  const A inverse_of_two = third * inverse_of_all, inverse_of_first = divisor * inverse_of_two;
  const A missed = mixed * inverse_of_first, small = e * inverse_of_first;
  // A product of an infinite logit and 0 counts as 0.
  const A linear = select(near == zero, zero, size * near), log = log_of_quotient(e * (two_divisors * inverse_of_all));
  const A power = kSquare ? missed * missed : power_of_unit(missed, S(s.gamma));
  const A weight = times_plus(A(S(s.positive)), target, A(S(s.negative)) * rest) * power;
  const A slope = A(S(s.gamma)) * (near - far) * (e * inverse_of_two);
  const A gradient = weight * times_plus(slope, min_of(linear, A(Rounder<S>::kLargest)) + log, near - small);
  return {weight * (linear + log), select(right, gradient, -gradient)};
}

// Values in a chunk, which is what one partial sum is for.
constexpr int64_t kFocalChunk = 1024;
FV_HD int64_t focal_chunks(int64_t total) { return ceil_div(total, kFocalChunk); }

template <class T>
struct SigmoidFocalInputs {
  const T* inputs;
  const T* targets;                 // dense targets, or null
  const int64_t* labels;            // or labels, one per row of `classes` values; the CPU twin trusts them
  const Accum<T>* weight;           // one per class, or null
  const T* grad;                    // gradient pass: of every value (no reduction), or null
  const Accum<T>* grad_of_reduced;  // or of the reduced loss, with what was counted
  const Accum<T>* counted;
};
template <class T>
struct SigmoidFocalOutputs {
  T* losses;  // no reduction: every value; otherwise null
  Accum<T>* loss;
  Accum<T>* counted;
  T* gradient;        // gradient and both; both: of the reduced loss
  LossSum* partials;  // scratch: focal_chunks(total) of them
};

// Twins. pass `both`: only reduced, and `mean` only of all values (nothing ignored).
template <class T, class Isa>
void sigmoid_focal_loss(const SigmoidFocalShape&, LossPass, const SigmoidFocalInputs<T>&, const SigmoidFocalOutputs<T>&,
                        const Cpu<Isa>&);
template <class T>
void sigmoid_focal_loss(const SigmoidFocalShape&, LossPass, const SigmoidFocalInputs<T>&, const SigmoidFocalOutputs<T>&,
                        const CudaExec&);

}  // namespace fastvision
