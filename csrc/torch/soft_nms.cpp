#include "../kernels/soft_nms.h"

#include "nms_inputs.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

struct Kept {
  Tensor keep, scores, count;
};

SoftNmsShape checked_shape(const Check& check, const Tensor& boxes, const Tensor& scores,
                           const std::optional<Tensor>& groups, const std::optional<Tensor>& valid, int64_t method,
                           double iou_threshold, double sigma, double score_threshold, int64_t max_output) {
  const int64_t batch = checked_nms_batch(check, boxes, scores, groups, valid);
  check.that(method >= 0 && method <= 2, "method: expected an integer in [0, 2], got ", method);
  check.in_range("iou_threshold", iou_threshold, 0, 1);
  check.finite_positive("sigma", sigma);
  check.finite("score_threshold", score_threshold);
  check.at_least("max_output", max_output, 0);
  check.that(boxes.size(-2) < int64_t(1) << 31, "boxes: expected fewer than 2**31, got ", boxes.size(-2));
  return {batch, boxes.size(-2), max_output, SoftNmsMethod(method), iou_threshold, sigma, score_threshold};
}

Kept run(const Check& check, const SoftNmsShape& s, const Tensor& boxes_in, const Tensor& scores_in,
         const std::optional<Tensor>& groups_in, const std::optional<Tensor>& valid_in) {
  const Backend backend(boxes_in);
  const Tensor boxes = dense(boxes_in), scores = dense(scores_in);
  const std::optional<Tensor> groups = dense(groups_in), valid = dense(valid_in);
  Sizes rows(boxes.sizes().begin(), boxes.sizes().end() - 2);
  const Tensor count = check.empty(boxes, rows, ScalarType::Long);
  rows.push_back(s.max_output);
  const Tensor keep = check.empty(boxes, rows, ScalarType::Long), kept_scores = check.empty(boxes, rows);
  dispatch_floats(boxes, [&](auto t) {
    using T = decltype(t);
    const SoftNmsArguments<T> a{data<T>(boxes),
                                data<T>(scores),
                                data<bool>(valid),
                                data<int64_t>(groups),
                                mutable_data<int64_t>(keep),
                                mutable_data<T>(kept_scores),
                                mutable_data<int64_t>(count)};
#if FV_IS == FV_IS_cpu
    backend.run([&](const auto& exec) { soft_nms<T>(s, a, exec); });
#else
    std::optional<std::array<Tensor, 2>> grouped;
    std::optional<Tensor> grouped_boxes;
    if (groups) {
      grouped = sort(*groups, false);
      grouped_boxes = check.empty(boxes, {s.batch, s.boxes, 4});
    }
    const Tensor current = check.empty(boxes, {s.batch, s.boxes}), final_scores = check.empty(boxes, {s.batch, s.boxes});
    const SoftNmsOrder<T> order{grouped ? data<int64_t>((*grouped)[1]) : nullptr,
                                grouped ? data<int64_t>((*grouped)[0]) : nullptr,
                                grouped ? mutable_data<T>(*grouped_boxes) : nullptr,
                                mutable_data<T>(current),
                                mutable_data<T>(final_scores)};
    backend.run([&](const auto& exec) { soft_nms<T>(s, a, order, exec); });
    const auto [sorted, by_score] = sort(final_scores, true);
    backend.run([&](const auto& exec) {
      soft_nms_collect<T>(s, data<T>(sorted), data<int64_t>(by_score), a, exec);
    });
#endif
  });
  return {keep, kept_scores, count};
}

std::tuple<Tensor, Tensor> soft_nms(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups,
                                    int64_t method, double iou_threshold, double sigma, double score_threshold,
                                    std::optional<int64_t> max_output) {
  const Check check{"soft_nms"};
  check.shape(boxes.dim() == 2, "boxes", boxes, "(N, 4)");
  SoftNmsShape s = checked_shape(check, boxes, scores, groups, std::nullopt, method, iou_threshold, sigma,
                                 score_threshold, max_output.value_or(0));
  s.max_output = max_output ? min_of(*max_output, s.boxes) : s.boxes;
  Kept kept = run(check, s, boxes, scores, groups, std::nullopt);
  const int64_t count = data<int64_t>(on_cpu(kept.count))[0];
  return {torch::stable::narrow(kept.keep, 0, 0, count), torch::stable::narrow(kept.scores, 0, 0, count)};
}

std::tuple<Tensor, Tensor, Tensor> soft_nms_padded(const Tensor& boxes, const Tensor& scores,
                                                   const std::optional<Tensor>& groups,
                                                   const std::optional<Tensor>& valid, int64_t method,
                                                   double iou_threshold, double sigma, double score_threshold,
                                                   int64_t max_output) {
  const Check check{"soft_nms_padded"};
  const SoftNmsShape s =
      checked_shape(check, boxes, scores, groups, valid, method, iou_threshold, sigma, score_threshold, max_output);
  const Kept kept = run(check, s, boxes, scores, groups, valid);
  return {kept.keep, kept.scores, kept.count};
}

}  // namespace

FV_OPS(m) {
  m.impl("soft_nms", TORCH_BOX(&soft_nms));
  m.impl("soft_nms_padded", TORCH_BOX(&soft_nms_padded));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
