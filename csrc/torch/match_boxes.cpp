#include "../kernels/match_boxes.h"

#include "binding.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

std::tuple<Tensor, Tensor> match_boxes(const Tensor& truth, const Tensor& boxes, const std::optional<Tensor>& valid,
                                       double high, double low, bool allow_low_quality) {
  const Check check{"match_boxes"};
  check.floats("gt", truth);
  check.same_dtype("boxes", boxes, "gt", truth);
  check.same_device("boxes", boxes, "gt", truth);
  check.shape((truth.dim() == 2 || truth.dim() == 3) && truth.size(-1) == 4, "gt", truth, "(M, 4) or (B, M, 4)");
  check.shape(boxes.dim() == truth.dim() && boxes.size(-1) == 4 && (boxes.dim() == 2 || boxes.size(0) == truth.size(0)),
              "boxes", boxes, "(N, 4), or (B, N, 4) with the batch of gt");
  if (valid) {
    check.dtype(valid->scalar_type() == ScalarType::Bool, "valid", *valid, "bool");
    check.same_device("valid", *valid, "gt", truth);
    Sizes rows = truth.sizes().vec();
    rows.pop_back();
    check.shape(valid->sizes().vec() == rows, "valid", *valid, "one per ground truth");
  }
  check.in_range("low", low, 0, 1);
  check.in_range("high", high, low, 1);
  const MatchShape s{
      truth.dim() == 3 ? truth.size(0) : 1, truth.size(-2), boxes.size(-2), high, low, allow_low_quality};
  const Backend backend(truth);
  Sizes rows = boxes.sizes().vec();
  rows.pop_back();
  const Tensor match = check.empty(boxes, rows, ScalarType::Long), overlap = check.empty(boxes, rows);
  const Tensor best_of_truth = check.empty(truth, {s.batch, s.truths});
  const Tensor g = dense(truth), b = dense(boxes);
  const std::optional<Tensor> v = dense(valid);
  dispatch_floats(truth, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::match_boxes<T>(s, data<T>(g), data<T>(b), data<bool>(v), mutable_data<int64_t>(match),
                                 mutable_data<T>(overlap), mutable_data<T>(best_of_truth), exec);
    });
  });
  return {match, overlap};
}

}  // namespace

FV_OPS(m) { m.impl("match_boxes", TORCH_BOX(&match_boxes)); }

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
