#include "../kernels/sigmoid_focal_loss.h"

#include "binding.h"
#include "losses.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

// The arguments in the order in which they lie in memory.
struct Problem {
  SigmoidFocalShape shape;
  Tensor inputs;
  std::optional<Tensor> targets, labels, weight;
  MemoryFormat format;

  template <class T>
  SigmoidFocalInputs<T> pointers() const {
    return {data<T>(inputs), data<T>(targets), data<int64_t>(labels), data<Accum<T>>(weight), nullptr,
            nullptr,         nullptr};
  }
};

Problem checked(const Check& check, const Tensor& inputs, const Tensor& targets, const std::optional<Tensor>& weight,
                double alpha, double gamma, std::optional<int64_t> ignore_index, int64_t reduction) {
  check.all_floats("inputs", inputs);
  const bool labels = targets.scalar_type() == ScalarType::Long;
  if (!labels) check.same_dtype("targets", targets, "inputs", inputs);
  check.same_device("targets", targets, "inputs", inputs);
  Sizes sizes = inputs.sizes().vec();
  const int64_t classes = sizes.empty() ? 1 : sizes.back();
  if (labels) {
    if (!sizes.empty()) sizes.pop_back();
    check.that(inputs.dim() >= 1 && targets.sizes().vec() == sizes, "targets: expected shape ", shape_of(sizes),
               ", one label per row of inputs, got ", shape_of(targets));
  } else {
    check.that(targets.sizes().vec() == sizes, "targets: expected shape ", shape_of(sizes), " as inputs, got ",
               shape_of(targets));
  }
  check_class_weight(check, weight, "inputs", inputs, classes);
  check_alpha(check, alpha);
  check_gamma(check, gamma);
  check_reduction(check, reduction);
  if (labels && classes > 0) check_labels(check, "targets", targets, classes, ignore_index);
  // Values are on their own but for the last dimension, so any order will do in which that does not count.
  const bool channels_last = inputs.dim() == 4 && !labels && !weight && is_channels_last(inputs);
  const MemoryFormat format = format_of(channels_last);
  const SigmoidFocalShape s{inputs.numel(),
                            classes,
                            alpha < 0 ? 1 : alpha,
                            alpha < 0 ? 1 : 1 - alpha,
                            gamma,
                            ignore_index.has_value(),
                            double(ignore_index.value_or(0)),
                            ignore_index.value_or(0),
                            Reduction(reduction)};
  const Tensor t = dense(targets, format);
  return {s,
          dense(inputs, format),
          labels ? std::nullopt : std::optional(t),
          labels ? std::optional(t) : std::nullopt,
          dense(weight),
          format};
}

std::tuple<Tensor, Tensor, Tensor> sigmoid_focal_loss(const Tensor& inputs, const Tensor& targets,
                                                      const std::optional<Tensor>& weight, double alpha, double gamma,
                                                      std::optional<int64_t> ignore_index, int64_t reduction,
                                                      bool with_gradient) {
  const Check check{"sigmoid_focal_loss"};
  const Problem p = checked(check, inputs, targets, weight, alpha, gamma, ignore_index, reduction);
  const bool reduces = p.shape.reduction != Reduction::none;
  check.that(!with_gradient || (reduces && !ignore_index),
             "with_gradient: expected False without a reduction or with ignore_index, got True");
  const Backend backend(inputs);
  const ScalarType accumulated = accumulated_type(inputs);
  const Tensor loss = reduces ? check.empty(inputs, {}, accumulated)
                              : check.empty(inputs, p.inputs.sizes().vec(), inputs.scalar_type(), p.format);
  const Tensor counted = check.empty(inputs, reduces ? Sizes{} : Sizes{0}, accumulated);
  const Tensor gradient = with_gradient ? check.empty(inputs, p.inputs.sizes().vec(), inputs.scalar_type(), p.format)
                                        : check.empty(inputs, {0});
  const PartialSums partials(check, inputs, reduces ? focal_chunks(p.shape.total) : 0);
  dispatch_all_floats(inputs, [&](auto t) {
    using T = decltype(t);
    using A = Accum<T>;
    SigmoidFocalOutputs<T> out{};
    if (reduces) out.loss = mutable_data<A>(loss), out.counted = mutable_data<A>(counted), out.partials = partials.at();
    else out.losses = mutable_data<T>(loss);
    if (with_gradient) out.gradient = mutable_data<T>(gradient);
    backend.run([&](const auto& exec) {
      fastvision::sigmoid_focal_loss<T>(p.shape, with_gradient ? LossPass::both : LossPass::loss, p.pointers<T>(), out,
                                        exec);
    });
  });
  return {loss, counted, gradient};
}

Tensor sigmoid_focal_loss_backward(const Tensor& grad, const Tensor& counted, const Tensor& inputs,
                                   const Tensor& targets, const std::optional<Tensor>& weight, double alpha,
                                   double gamma, std::optional<int64_t> ignore_index, int64_t reduction) {
  const Check check{"sigmoid_focal_loss_backward"};
  const Problem p = checked(check, inputs, targets, weight, alpha, gamma, ignore_index, reduction);
  check_loss_grad(check, grad, counted, "inputs", inputs, p.shape.reduction, inputs.sizes().vec());
  const Backend backend(inputs);
  const Tensor gradient = check.empty(inputs, p.inputs.sizes().vec(), inputs.scalar_type(), p.format);
  const Tensor g = dense(grad, p.shape.reduction == Reduction::none ? p.format : MemoryFormat::Contiguous);
  dispatch_all_floats(inputs, [&](auto t) {
    using T = decltype(t);
    using A = Accum<T>;
    SigmoidFocalInputs<T> in = p.pointers<T>();
    if (p.shape.reduction == Reduction::none) in.grad = data<T>(g);
    else in.grad_of_reduced = data<A>(g), in.counted = data<A>(counted);
    SigmoidFocalOutputs<T> out{};
    out.gradient = mutable_data<T>(gradient);
    backend.run(
        [&](const auto& exec) { fastvision::sigmoid_focal_loss<T>(p.shape, LossPass::gradient, in, out, exec); });
  });
  return gradient;
}

}  // namespace

FV_OPS(m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&sigmoid_focal_loss));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&sigmoid_focal_loss_backward));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
