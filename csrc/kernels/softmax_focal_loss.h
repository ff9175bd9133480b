// Focal loss on softmaxes, from logits: -(1 - p)^gamma log(p) of the probability p of the label. A pixel here is
// whatever has one label: a row of (N, C) logits, or a place of (N, C, H, W) ones.
#pragma once

#include "elementary.h"
#include "reduction.h"
#include "softmax.h"

namespace fastvision {

// Logits of pixel i, class c at (i / inner) * classes * inner + i % inner + c * inner, or, class after class in memory,
// at i * classes + c, which is inner == 1.
struct SoftmaxFocalShape {
  int64_t pixels, classes, inner;
  double alpha, gamma;  // alpha: a plain factor
  int64_t ignored;
  Reduction reduction;

  FV_HD int64_t offset(int64_t pixel) const { return pixel / inner * classes * inner + pixel % inner; }
};

// What the gradient of a pixel needs: d(loss)/d(x_c) = slope * ([c is the label] - exp(x_c - largest) * inverse).
template <class A>
struct SoftmaxFocalTerm {
  A loss, slope, largest, inverse;
};

// From the logit of the label and the sum over all other classes. Without cancellation where p is nearly 1, and bounded
// for any gamma >= 0 because log(p) / (1 - p) is.
template <bool kSquare, class A>
FV_HD SoftmaxFocalTerm<A> softmax_focal_term(A x, const OnlineSum<A>& others, A factor, const SoftmaxFocalShape& s) {
  using S = typename Lanes<A>::Scalar;
  const A zero(S(0)), one(S(1)), largest = max_of(others.largest, x);
  const A own = exp_negative(x - largest), rest = others.sum * exp_negative(others.largest - largest);
  const A total = own + rest, inverse = one / total, missed = rest * inverse;
  const auto sure = both(x >= largest, rest <= one);
  const A entropy = (largest - x) + select(sure, log1p_unit(min_of(rest, one)), log_of(total));
  const A power = kSquare ? missed * missed : power_of_unit(missed, S(s.gamma));
  const A ratio = select(missed > zero, min_of(entropy, A(Rounder<S>::kLargest)) / missed, one);
  const A slope = factor * power * times_plus(A(S(s.gamma)) * (own * inverse), ratio, one);
  return {factor * power * entropy, -slope, largest, inverse};
}

// Per pixel, for the backward pass: slope (of the loss before any reduction), largest, inverse.
constexpr int kSoftmaxStates = 3;

template <class T>
struct SoftmaxFocalInputs {
  const T* logits;
  const int64_t* labels;   // the CPU twin trusts them
  const Accum<T>* weight;  // one per class, or null
};
template <class T>
struct SoftmaxFocalOutputs {
  T* losses;  // no reduction: per pixel; otherwise null
  Accum<T>* loss;
  Accum<T>* counted;
  Accum<T>* states;   // (kSoftmaxStates, pixels), or null
  LossSum* partials;  // scratch: softmax_focal_chunks(shape) of them
};
template <class T>
struct SoftmaxFocalGrad {
  const T* grad;                    // per pixel, or null
  const Accum<T>* grad_of_reduced;  // or of the reduced loss, with what was counted
  const Accum<T>* counted;
  const Accum<T>* states;
};

// Pixels in a chunk of the CPU twin.
constexpr int64_t kSoftmaxChunk = 256;
FV_HD int64_t softmax_focal_chunks(int64_t pixels) { return ceil_div(pixels, kSoftmaxChunk); }

// Twins.
template <class T, class Isa>
void softmax_focal_loss(const SoftmaxFocalShape&, const SoftmaxFocalInputs<T>&, const SoftmaxFocalOutputs<T>&,
                        const Cpu<Isa>&);
template <class T, class Isa>
void softmax_focal_loss_backward(const SoftmaxFocalShape&, const SoftmaxFocalInputs<T>&, const SoftmaxFocalGrad<T>&,
                                 T* gradient, const Cpu<Isa>&);
template <class T>
void softmax_focal_loss(const SoftmaxFocalShape&, const SoftmaxFocalInputs<T>&, const SoftmaxFocalOutputs<T>&,
                        const CudaExec&);
template <class T>
void softmax_focal_loss_backward(const SoftmaxFocalShape&, const SoftmaxFocalInputs<T>&, const SoftmaxFocalGrad<T>&,
                                 T* gradient, const CudaExec&);

}  // namespace fastvision
