// The last step of a loss: partial sums, one per chunk of the input, are added in the order of the chunks. Chunks
// depend on the shape alone, so a result has the same bits for any number of threads.
#pragma once

#include "common.h"

namespace fastvision {

enum class Reduction : int { none, mean, sum };

// One pass over the inputs computes the loss, its gradient, or both.
enum class LossPass : int { loss, gradient, both };

// A chunk's sum of losses and of what `mean` divides by (counted values, or their weights).
struct LossSum {
  double loss, counted;
};
// As many partial sums as this suffice to fill any device; the last step of a CUDA twin reads them with one block.
constexpr int64_t kMaxPartials = 2048;
FV_HD LossSum operator+(LossSum a, LossSum b) { return {a.loss + b.loss, a.counted + b.counted}; }

// The mean of nothing is 0.
FV_HD double reduced(Reduction reduction, LossSum s) {
  if (reduction == Reduction::sum) return s.loss;
  return s.counted > 0 ? s.loss / s.counted : 0;
}
// What the gradient of one value is multiplied by, from the gradient of the reduced loss.
template <class A>
FV_HD A gradient_scale(Reduction reduction, A grad, A counted) {
  if (reduction == Reduction::sum) return grad;
  return counted > A(0) ? grad / counted : A(0);
}

// counted: null where that is known beforehand.
template <class A>
inline void finish_loss(Reduction reduction, const LossSum* partials, int64_t n, A* loss, A* counted = nullptr) {
  LossSum total{};
  for (int64_t i = 0; i < n; ++i) total = total + partials[i];
  *loss = A(reduced(reduction, total));
  if (counted) *counted = A(total.counted);
}

}  // namespace fastvision
