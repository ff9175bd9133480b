// What the bindings of losses share.
#pragma once

#include "../kernels/reduction.h"
#include "binding.h"
#include "regions.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {

inline std::string shape_of(const Sizes& sizes) {
  std::ostringstream s;
  s << '(';
  for (size_t i = 0; i < sizes.size(); ++i) s << (i ? ", " : "") << sizes[i];
  s << (sizes.size() == 1 ? ",)" : ")");
  return s.str();
}

inline void check_alpha(const Check& check, double alpha) {
  check.that((alpha >= 0 && alpha <= 1) || alpha == -1, "alpha: expected a number in [0, 1] or -1, got ", alpha);
}
inline void check_gamma(const Check& check, double gamma) {
  check.that(gamma >= 0 && std::isfinite(gamma), "gamma: expected a finite number >= 0, got ", gamma);
}
inline void check_reduction(const Check& check, int64_t reduction) {
  check.that(reduction >= 0 && reduction <= 2, "reduction: expected none, mean or sum (0 to 2), got ", reduction);
}
inline void check_class_weight(const Check& check, const std::optional<Tensor>& weight, const char* other,
                               const Tensor& like, int64_t classes) {
  if (!weight) return;
  check.that(weight->scalar_type() == accumulated_type(like), "weight: expected dtype ",
             dtype_name(accumulated_type(like)), ", got ", dtype_name(weight->scalar_type()));
  check.same_device("weight", *weight, other, like);
  check.that(weight->dim() == 1 && weight->size(0) == classes, "weight: expected shape (", classes,
             ",), one per class, got ", shape_of(*weight));
}

// Class labels in [0, most], or the one that is ignored. Elsewhere than on the CPU the kernels look for themselves.
inline void check_labels(const Check& check, const char* argument, const Tensor& labels, int64_t most,
                         std::optional<int64_t> ignore_index) {
  if (!validates_indices()) return;
  const Tensor host = on_cpu(dense(labels));
  const int64_t* p = data<int64_t>(host);
  for (int64_t i = 0; i < host.numel(); ++i)
    if ((p[i] < 0 || p[i] > most) && !(ignore_index && p[i] == *ignore_index))
      fail(check.op, ": ", argument, ": expected a class label in 0..", most, " in row ", i, ", got ", p[i]);
}

// The gradient of a loss: as the values (no reduction), or of the reduced loss and then with what was counted.
inline void check_loss_grad(const Check& check, const Tensor& grad, const Tensor& counted, const char* other,
                            const Tensor& like, Reduction reduction, const Sizes& sizes) {
  check.same_device("grad", grad, other, like);
  check.same_device("counted", counted, other, like);
  if (reduction == Reduction::none) {
    check.same_dtype("grad", grad, other, like);
    check.shape(grad.sizes().vec() == sizes, "grad", grad, "the shape of the losses");
    return;
  }
  for (const auto& [name, t] : {std::pair("grad", grad), std::pair("counted", counted)}) {
    check.dtype(t.scalar_type() == accumulated_type(like), name, t, "of the reduced loss");
    check.shape(t.dim() == 0, name, t, "()");
  }
}

// Scratch for n partial sums; on the CPU a few need no tensor, which costs as much as a small loss.
class PartialSums {
 public:
  PartialSums(const Check& check, const Tensor& like, int64_t n) {
    if (FV_IS == FV_IS_cpu && n <= kFew) return;
    memory_ = check.empty(like, {n, int64_t(sizeof(LossSum) / sizeof(double))}, ScalarType::Double);
    at_ = mutable_data<LossSum>(memory_);
  }
  PartialSums(const PartialSums&) = delete;
  PartialSums& operator=(const PartialSums&) = delete;

  LossSum* at() const { return at_; }

 private:
  static constexpr int64_t kFew = 8;
  LossSum few_[kFew];
  LossSum* at_ = few_;
  Tensor memory_;
};

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
