// Losses of boxes side by side: 1 - the generalized, distance or complete IoU (box_iou.h), where eps is added to every
// area and squared length that is divided by, as torchvision does. Value and both gradients in one pass.
#pragma once

#include "box_iou.h"
#include "elementary.h"
#include "reduction.h"

namespace fastvision {

struct BoxIouLossShape {
  int64_t pairs;
  IouKind kind;
  double eps;
  Reduction reduction;
};

// Pairs in a chunk, which is what one partial sum is for.
constexpr int64_t kBoxLossChunk = 256;
FV_HD int64_t box_loss_chunks(int64_t pairs) { return ceil_div(pairs, kBoxLossChunk); }

template <class T>
struct BoxIouLossInputs {
  const T *boxes1, *boxes2;
  const T* grad;  // gradient pass: per pair (no reduction) or of the reduced loss
};
template <class T>
struct BoxIouLossOutputs {
  T* losses;  // no reduction: per pair; otherwise null
  T* loss;
  T *gradient1, *gradient2;  // null where not wanted; pass `both`: of the reduced loss
  LossSum* partials;         // scratch: box_loss_chunks(pairs) of them
};

// The angle that the complete form compares; see diagonal_angle.
template <IouKind kKind, class A>
FV_HD A loss_angle(const Box<A>& b) {
  if constexpr (kKind == IouKind::complete) return angle_of(width(b), height(b));
  else return A(0);
}

// What the gradient of each pair is multiplied by, if that is the same for all: minus one for 1 - IoU.
template <class T>
FV_HD T common_scale(const BoxIouLossShape& s, LossPass pass, const BoxIouLossInputs<T>& in) {
  if (s.reduction == Reduction::none) return T(-1);
  return -gradient_scale(s.reduction, pass == LossPass::gradient ? *in.grad : T(1), T(s.pairs));
}

// Calls f with the kind as a constant.
template <class F>
void with_loss_kind(IouKind kind, F&& f) {
  if (kind == IouKind::generalized) return f(std::integral_constant<IouKind, IouKind::generalized>());
  if (kind == IouKind::distance) return f(std::integral_constant<IouKind, IouKind::distance>());
  return f(std::integral_constant<IouKind, IouKind::complete>());
}

// Twins.
template <class T, class Isa>
void box_iou_loss(const BoxIouLossShape&, LossPass, const BoxIouLossInputs<T>&, const BoxIouLossOutputs<T>&,
                  const Cpu<Isa>&);
template <class T>
void box_iou_loss(const BoxIouLossShape&, LossPass, const BoxIouLossInputs<T>&, const BoxIouLossOutputs<T>&,
                  const CudaExec&);

}  // namespace fastvision
