#include "../kernels/dice_loss.h"

#include "binding.h"
#include "losses.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

struct Problem {
  DiceShape shape;
  Tensor logits;
  std::optional<Tensor> targets, labels;
  MemoryFormat format;

  template <class T>
  DiceInputs<T> pointers() const {
    return {data<T>(logits), data<T>(targets), data<int64_t>(labels)};
  }
};

Problem checked(const Check& check, const Tensor& logits, const Tensor& targets, bool softmax, double smooth,
                std::optional<int64_t> ignore_index, int64_t reduction) {
  check.all_floats("logits", logits);
  const bool labels = targets.scalar_type() == ScalarType::Long;
  if (!labels) check.same_dtype("targets", targets, "logits", logits);
  check.same_device("targets", targets, "logits", logits);
  check.shape(logits.dim() >= 2, "logits", logits, "(N, C, ...)");
  Sizes sizes = logits.sizes().vec();
  const int64_t samples = sizes[0], classes = sizes[1];
  int64_t pixels = 1;
  for (size_t d = 2; d < sizes.size(); ++d) pixels *= sizes[d];
  if (labels) sizes.erase(sizes.begin() + 1);
  check.that(targets.sizes().vec() == sizes, "targets: expected shape ", shape_of(sizes),
             labels ? ", one label per pixel, got " : " as logits, got ", shape_of(targets));
  check.that(classes < int64_t(1) << 31, "logits: expected fewer than 2**31 classes, got ", classes);
  check.that(smooth >= 0 && std::isfinite(smooth), "smooth: expected a finite number >= 0, got ", smooth);
  check_reduction(check, reduction);
  if (labels) check_labels(check, "targets", targets, classes - 1, ignore_index);
  const bool channels_last = logits.dim() == 4 && is_channels_last(logits);
  const MemoryFormat format = format_of(channels_last);
  const Tensor t = labels ? dense(targets) : dense(targets, format);
  return {{samples, classes, pixels, channels_last, softmax, smooth, ignore_index.has_value(),
           double(ignore_index.value_or(0)), ignore_index.value_or(0), Reduction(reduction)},
          dense(logits, format),
          labels ? std::nullopt : std::optional(t),
          labels ? std::optional(t) : std::nullopt,
          format};
}

Sizes state_sizes(const DiceShape& s) { return {2, s.softmax ? s.samples * s.pixels : 0}; }

Sizes loss_sizes(const DiceShape& s) { return s.reduction == Reduction::none ? Sizes{s.samples, s.classes} : Sizes{}; }

std::tuple<Tensor, Tensor, Tensor> dice_loss(const Tensor& logits, const Tensor& targets, bool softmax, double smooth,
                                             std::optional<int64_t> ignore_index, int64_t reduction) {
  const Check check{"dice_loss"};
  const Problem p = checked(check, logits, targets, softmax, smooth, ignore_index, reduction);
  const bool reduced = p.shape.reduction != Reduction::none;
  const Backend backend(logits);
  const ScalarType accumulated = accumulated_type(logits);
  const Tensor loss = check.empty(logits, loss_sizes(p.shape), accumulated);
  const Tensor fractions = check.empty(logits, {2, p.shape.samples, p.shape.classes}, accumulated);
  const Tensor states = check.empty(logits, state_sizes(p.shape), accumulated);
  const Tensor partials =
      check.empty(logits, {p.shape.planes() * dice_chunks(p.shape.pixels), int64_t(sizeof(DiceSums) / sizeof(double))},
                  ScalarType::Double);
  const PartialSums sums(check, logits, reduced && FV_IS != FV_IS_cpu ? dice_sums(p.shape.planes()) : 0);
  dispatch_all_floats(logits, [&](auto t) {
    using T = decltype(t);
    using A = Accum<T>;
    A* const to = mutable_data<A>(loss);
    const DiceOutputs<T> out{reduced ? nullptr : to,  reduced ? to : nullptr,           mutable_data<A>(fractions),
                             mutable_data<A>(states), mutable_data<DiceSums>(partials), sums.at()};
    backend.run([&](const auto& exec) { fastvision::dice_loss<T>(p.shape, p.pointers<T>(), out, exec); });
  });
  return {loss, fractions, states};
}

Tensor dice_loss_backward(const Tensor& grad, const Tensor& fractions, const Tensor& states, const Tensor& logits,
                          const Tensor& targets, bool softmax, double smooth, std::optional<int64_t> ignore_index,
                          int64_t reduction) {
  const Check check{"dice_loss_backward"};
  const Problem p = checked(check, logits, targets, softmax, smooth, ignore_index, reduction);
  for (const auto& [name, t, sizes] : {std::tuple("grad", grad, loss_sizes(p.shape)),
                                       std::tuple("sums", fractions, Sizes{2, p.shape.samples, p.shape.classes}),
                                       std::tuple("states", states, state_sizes(p.shape))}) {
    check.dtype(t.scalar_type() == accumulated_type(logits), name, t, "of the losses");
    check.same_device(name, t, "logits", logits);
    check.that(t.sizes().vec() == sizes, name, ": expected shape ", shape_of(sizes), ", got ", shape_of(t));
  }
  const Backend backend(logits);
  const Tensor gradient = check.empty(logits, logits.sizes().vec(), logits.scalar_type(), p.format);
  const Tensor g = dense(grad), f = dense(fractions), s = dense(states);
  dispatch_all_floats(logits, [&](auto t) {
    using T = decltype(t);
    using A = Accum<T>;
    const A share = p.shape.reduction == Reduction::mean ? A(1) / A(p.shape.planes()) : A(1);
    const DiceGrad<T> of{data<A>(g), data<A>(f), data<A>(s), share};
    backend.run([&](const auto& exec) {
      fastvision::dice_loss_backward<T>(p.shape, p.pointers<T>(), of, mutable_data<T>(gradient), exec);
    });
  });
  return gradient;
}

}  // namespace

FV_OPS(m) {
  m.impl("dice_loss", TORCH_BOX(&dice_loss));
  m.impl("dice_loss_backward", TORCH_BOX(&dice_loss_backward));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
