#include "../kernels/softmax_focal_loss.h"

#include "binding.h"
#include "losses.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

struct Problem {
  SoftmaxFocalShape shape;
  Tensor logits, labels;
  MemoryFormat format;
};

Problem checked(const Check& check, const Tensor& logits, const Tensor& labels, double alpha, double gamma,
                int64_t ignore_index, int64_t reduction) {
  check.all_floats("logits", logits);
  check.dtype(labels.scalar_type() == ScalarType::Long, "labels", labels, "int64");
  check.same_device("labels", labels, "logits", logits);
  check.shape(logits.dim() >= 2 && logits.size(1) >= 1, "logits", logits, "(N, C, ...) with at least one class");
  Sizes sizes = logits.sizes().vec();
  const int64_t classes = sizes[1];
  sizes.erase(sizes.begin() + 1);
  check.that(labels.sizes().vec() == sizes, "labels: expected shape ", shape_of(sizes), ", one per pixel, got ",
             shape_of(labels));
  check.that(classes < int64_t(1) << 31, "logits: expected fewer than 2**31 classes, got ", classes);
  check.that(alpha >= 0 && std::isfinite(alpha), "alpha: expected a finite number >= 0, got ", alpha);
  check_gamma(check, gamma);
  check_reduction(check, reduction);
  check_labels(check, "labels", labels, classes - 1, ignore_index);
  const bool channels_last = logits.dim() == 4 && is_channels_last(logits);
  const int64_t pixels = labels.numel(), inner = channels_last || sizes[0] == 0 ? 1 : pixels / sizes[0];
  const MemoryFormat format = format_of(channels_last);
  return {{pixels, classes, inner > 0 ? inner : 1, alpha, gamma, ignore_index, Reduction(reduction)},
          dense(logits, format),
          dense(labels),
          format};
}

std::tuple<Tensor, Tensor, Tensor> softmax_focal_loss(const Tensor& logits, const Tensor& labels,
                                                      const std::optional<Tensor>& weight, double alpha, double gamma,
                                                      int64_t ignore_index, int64_t reduction, bool with_gradient) {
  const Check check{"softmax_focal_loss"};
  const Problem p = checked(check, logits, labels, alpha, gamma, ignore_index, reduction);
  check_class_weight(check, weight, "logits", logits, p.shape.classes);
  const bool reduces = p.shape.reduction != Reduction::none;
  const Backend backend(logits);
  const ScalarType accumulated = accumulated_type(logits);
  const Tensor loss = reduces ? check.empty(logits, {}, accumulated) : check.empty(logits, labels.sizes().vec());
  const Tensor counted = check.empty(logits, reduces ? Sizes{} : Sizes{0}, accumulated);
  const Tensor states = check.empty(logits, {kSoftmaxStates, with_gradient ? p.shape.pixels : 0}, accumulated);
  const PartialSums partials(check, logits, softmax_focal_partials(reduces ? p.shape.pixels : 0));
  const std::optional<Tensor> w = dense(weight);
  dispatch_all_floats(logits, [&](auto t) {
    using T = decltype(t);
    using A = Accum<T>;
    SoftmaxFocalOutputs<T> out{};
    if (reduces) {
      out.loss = mutable_data<A>(loss), out.counted = mutable_data<A>(counted);
      out.partials = partials.at();
    } else {
      out.losses = mutable_data<T>(loss);
    }
    if (with_gradient) out.states = mutable_data<A>(states);
    const SoftmaxFocalInputs<T> in{data<T>(p.logits), data<int64_t>(p.labels), data<A>(w)};
    backend.run([&](const auto& exec) { fastvision::softmax_focal_loss<T>(p.shape, in, out, exec); });
  });
  return {loss, counted, states};
}

Tensor softmax_focal_loss_backward(const Tensor& grad, const Tensor& counted, const Tensor& states,
                                   const Tensor& logits, const Tensor& labels, int64_t ignore_index,
                                   int64_t reduction) {
  const Check check{"softmax_focal_loss_backward"};
  const Problem p = checked(check, logits, labels, 1, 0, ignore_index, reduction);
  check_loss_grad(check, grad, counted, "logits", logits, p.shape.reduction, labels.sizes().vec());
  check.dtype(states.scalar_type() == accumulated_type(logits), "states", states, "that the loss is computed in");
  check.same_device("states", states, "logits", logits);
  check.shape(states.sizes().vec() == Sizes{kSoftmaxStates, p.shape.pixels}, "states", states, "(3, pixels)");
  const Backend backend(logits);
  const Tensor gradient = check.empty(logits, logits.sizes().vec(), logits.scalar_type(), p.format);
  const Tensor g = dense(grad), s = dense(states);
  dispatch_all_floats(logits, [&](auto t) {
    using T = decltype(t);
    using A = Accum<T>;
    const SoftmaxFocalInputs<T> in{data<T>(p.logits), data<int64_t>(p.labels), nullptr};
    const bool none = p.shape.reduction == Reduction::none;
    const SoftmaxFocalGrad<T> of{none ? data<T>(g) : nullptr, none ? nullptr : data<A>(g),
                                 none ? nullptr : data<A>(counted), data<A>(s)};
    backend.run([&](const auto& exec) {
      fastvision::softmax_focal_loss_backward<T>(p.shape, in, of, mutable_data<T>(gradient), exec);
    });
  });
  return gradient;
}

}  // namespace

FV_OPS(m) {
  m.impl("softmax_focal_loss", TORCH_BOX(&softmax_focal_loss));
  m.impl("softmax_focal_loss_backward", TORCH_BOX(&softmax_focal_loss_backward));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
