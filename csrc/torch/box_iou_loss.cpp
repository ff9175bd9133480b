#include "../kernels/box_iou_loss.h"

#include "binding.h"
#include "losses.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

BoxIouLossShape checked_shape(const Check& check, const Tensor& boxes1, const Tensor& boxes2, int64_t kind, double eps,
                              int64_t reduction) {
  check.floats("boxes1", boxes1);
  check.same_dtype("boxes2", boxes2, "boxes1", boxes1);
  check.same_device("boxes2", boxes2, "boxes1", boxes1);
  check.shape(boxes1.dim() >= 1 && boxes1.size(-1) == 4, "boxes1", boxes1, "(..., 4)");
  check.that(boxes1.sizes().vec() == boxes2.sizes().vec(), "boxes2: expected shape ", shape_of(boxes1),
             " as boxes1, got ", shape_of(boxes2));
  check.that(kind >= 1 && kind <= 3, "kind: expected an integer in [1, 3], got ", kind);
  check.that(eps >= 0 && std::isfinite(eps), "eps: expected a finite number >= 0, got ", eps);
  check_reduction(check, reduction);
  return {boxes1.numel() / 4, IouKind(kind), eps, Reduction(reduction)};
}

Sizes pair_sizes(const Tensor& boxes) {
  Sizes sizes = boxes.sizes().vec();
  sizes.pop_back();
  return sizes;
}

Tensor gradient_like(const Check& check, const Tensor& boxes, bool wanted) {
  return check.empty(boxes, wanted ? boxes.sizes().vec() : Sizes{0});
}

std::tuple<Tensor, Tensor, Tensor> box_iou_loss(const Tensor& boxes1, const Tensor& boxes2, int64_t kind, double eps,
                                                int64_t reduction, bool with_gradient1, bool with_gradient2) {
  const Check check{"box_iou_loss"};
  const BoxIouLossShape s = checked_shape(check, boxes1, boxes2, kind, eps, reduction);
  const bool reduces = s.reduction != Reduction::none, with_gradient = with_gradient1 || with_gradient2;
  check.that(reduces || !with_gradient, "with_gradient: expected False without a reduction, got True");
  const Backend backend(boxes1);
  const Tensor a = dense(boxes1), b = dense(boxes2);
  const Tensor loss = check.empty(boxes1, reduces ? Sizes{} : pair_sizes(boxes1));
  const Tensor gradient1 = gradient_like(check, boxes1, with_gradient1);
  const Tensor gradient2 = gradient_like(check, boxes1, with_gradient2);
  const PartialSums partials(check, boxes1, reduces ? box_loss_chunks(s.pairs) : 0);
  dispatch_floats(a, [&](auto t) {
    using T = decltype(t);
    BoxIouLossOutputs<T> out{};
    if (reduces) out.loss = mutable_data<T>(loss), out.partials = partials.at();
    else out.losses = mutable_data<T>(loss);
    if (with_gradient1) out.gradient1 = mutable_data<T>(gradient1);
    if (with_gradient2) out.gradient2 = mutable_data<T>(gradient2);
    const BoxIouLossInputs<T> in{data<T>(a), data<T>(b), nullptr};
    backend.run([&](const auto& exec) {
      fastvision::box_iou_loss<T>(s, with_gradient ? LossPass::both : LossPass::loss, in, out, exec);
    });
  });
  return {loss, gradient1, gradient2};
}

std::tuple<Tensor, Tensor> box_iou_loss_backward(const Tensor& grad, const Tensor& boxes1, const Tensor& boxes2,
                                                 int64_t kind, double eps, int64_t reduction, bool with_gradient1,
                                                 bool with_gradient2) {
  const Check check{"box_iou_loss_backward"};
  const BoxIouLossShape s = checked_shape(check, boxes1, boxes2, kind, eps, reduction);
  check.same_dtype("grad", grad, "boxes1", boxes1);
  check.same_device("grad", grad, "boxes1", boxes1);
  const Sizes expected = s.reduction == Reduction::none ? pair_sizes(boxes1) : Sizes{};
  check.shape(grad.sizes().vec() == expected, "grad", grad, "the shape of the loss");
  const Backend backend(boxes1);
  const Tensor g = dense(grad), a = dense(boxes1), b = dense(boxes2);
  const Tensor gradient1 = gradient_like(check, boxes1, with_gradient1);
  const Tensor gradient2 = gradient_like(check, boxes1, with_gradient2);
  dispatch_floats(a, [&](auto t) {
    using T = decltype(t);
    BoxIouLossOutputs<T> out{};
    if (with_gradient1) out.gradient1 = mutable_data<T>(gradient1);
    if (with_gradient2) out.gradient2 = mutable_data<T>(gradient2);
    const BoxIouLossInputs<T> in{data<T>(a), data<T>(b), data<T>(g)};
    backend.run([&](const auto& exec) { fastvision::box_iou_loss<T>(s, LossPass::gradient, in, out, exec); });
  });
  return {gradient1, gradient2};
}

}  // namespace

FV_OPS(m) {
  m.impl("box_iou_loss", TORCH_BOX(&box_iou_loss));
  m.impl("box_iou_loss_backward", TORCH_BOX(&box_iou_loss_backward));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
