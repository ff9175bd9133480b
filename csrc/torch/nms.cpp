#include "../kernels/nms.h"

#include "nms_inputs.h"
#include "rotated_boxes.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

struct Kept {
  Tensor keep, count;
};

NmsShape checked_shape(const Check& check, const Tensor& boxes, const Tensor& scores,
                       const std::optional<Tensor>& groups, const std::optional<Tensor>& valid, double iou_threshold,
                       double score_threshold, int64_t max_output, int64_t columns = 4) {
  const int64_t batch = checked_nms_batch(check, boxes, scores, groups, valid, columns);
  check.in_range("iou_threshold", iou_threshold, 0, 1);
  if (score_threshold != -INFINITY) check.finite("score_threshold", score_threshold);
  check.at_least("max_output", max_output, 0);
  check.that(boxes.size(-2) < int64_t(1) << 32, "boxes: expected fewer than 2**32, got ", boxes.size(-2));
  return {batch, boxes.size(-2), max_output, iou_threshold, score_threshold};
}

// Boxes (..., 4) are upright; boxes (..., 5) are rotated and come with the unit of their angles. The count of a single
// problem may go to the host instead, where that is where the kernel writes; an allocation costs as much as a small
// NMS.
template <class B>
Kept run(const Check& check, const NmsShape& s, const Tensor& boxes_in, const Tensor& scores_in,
         const std::optional<Tensor>& groups_in, const std::optional<Tensor>& valid_in, AngleUnit unit,
         int64_t* host_count = nullptr) {
  using T = Scalar<B>;
  const Backend backend(boxes_in);
  const Tensor boxes = dense(boxes_in), scores = dense(scores_in);
  const std::optional<Tensor> groups = dense(groups_in), valid = dense(valid_in);
  Sizes rows(boxes.sizes().begin(), boxes.sizes().end() - 2);
  const Tensor count = host_count ? Tensor() : check.empty(boxes, rows, ScalarType::Long);
  rows.push_back(s.max_output);
  const Tensor keep = check.empty(boxes, rows, ScalarType::Long);
  NmsArguments<B> a{nullptr,
                    data<T>(scores),
                    data<bool>(valid),
                    data<int64_t>(groups),
                    mutable_data<int64_t>(keep),
                    host_count ? host_count : mutable_data<int64_t>(count)};
  Tensor prepared = boxes;
  if constexpr (std::is_same_v<B, RotatedBox<T>>) {
    prepared = rotated_scratch<T>(check, boxes);
    backend.run([&](const auto& exec) { prepare<T>(boxes, unit, prepared, exec); });
  }
  a.boxes = static_cast<const B*>(prepared.const_data_ptr());
#if FV_IS == FV_IS_cpu
  backend.run([&](const auto& exec) { nms<B>(s, a, exec); });
#else
  const Tensor by_rank = sort(scores, true)[1];
  std::optional<std::array<Tensor, 2>> grouped;
  if (groups) grouped = sort(gather_last(*groups, by_rank), false);
  const Tensor kept_boxes = check.empty(boxes, {s.batch * s.boxes * int64_t(sizeof(B))}, ScalarType::Byte);
  const Tensor alive = check.empty(boxes, {s.batch, s.boxes}, ScalarType::Bool);
  const Tensor kept_counts = check.empty(boxes, {s.batch, 2}, ScalarType::Long);
  const NmsOrder<B> order{data<int64_t>(by_rank),
                          grouped ? data<int64_t>((*grouped)[1]) : nullptr,
                          grouped ? data<int64_t>((*grouped)[0]) : nullptr,
                          static_cast<B*>(kept_boxes.mutable_data_ptr()),
                          mutable_data<int64_t>(kept_counts),
                          mutable_data<bool>(alive)};
  backend.run([&](const auto& exec) { nms<B>(s, a, order, exec); });
#endif
  return {keep, count};
}
Kept run(const Check& check, const NmsShape& s, const Tensor& boxes, const Tensor& scores,
         const std::optional<Tensor>& groups, const std::optional<Tensor>& valid, int64_t* host_count = nullptr) {
  if (boxes.scalar_type() == ScalarType::Double)
    return run<Box<double>>(check, s, boxes, scores, groups, valid, {}, host_count);
  return run<Box<float>>(check, s, boxes, scores, groups, valid, {}, host_count);
}

// The kept boxes of one problem, in a tensor of as many places.
Tensor kept_only(const Kept& kept, std::optional<int64_t> host_count = std::nullopt) {
  Tensor keep = kept.keep;
  const int64_t count = host_count ? *host_count : data<int64_t>(on_cpu(kept.count))[0];
  return count == keep.size(0) ? keep : torch::stable::narrow(keep, 0, 0, count);
}

Tensor nms(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups, double iou_threshold,
           double score_threshold, std::optional<int64_t> max_output) {
  const Check check{"nms"};
  check.shape(boxes.dim() == 2, "boxes", boxes, "(N, 4)");
  NmsShape s =
      checked_shape(check, boxes, scores, groups, std::nullopt, iou_threshold, score_threshold, max_output.value_or(0));
  s.max_output = max_output ? min_of(*max_output, s.boxes) : s.boxes;
  if (FV_IS != FV_IS_cpu) return kept_only(run(check, s, boxes, scores, groups, std::nullopt));
  int64_t count = 0;
  const Kept kept = run(check, s, boxes, scores, groups, std::nullopt, &count);
  return kept_only(kept, count);
}

Tensor nms_rotated(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups, double iou_threshold,
                   bool degrees, bool clockwise, std::optional<int64_t> max_output) {
  const Check check{"nms_rotated"};
  check.shape(boxes.dim() == 2, "boxes", boxes, "(N, 5)");
  NmsShape s =
      checked_shape(check, boxes, scores, groups, std::nullopt, iou_threshold, -INFINITY, max_output.value_or(0), 5);
  s.max_output = max_output ? min_of(*max_output, s.boxes) : s.boxes;
  const AngleUnit unit{degrees, clockwise};
  if (boxes.scalar_type() == ScalarType::Double)
    return kept_only(run<RotatedBox<double>>(check, s, boxes, scores, groups, std::nullopt, unit));
  return kept_only(run<RotatedBox<float>>(check, s, boxes, scores, groups, std::nullopt, unit));
}

std::tuple<Tensor, Tensor> nms_padded(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups,
                                      const std::optional<Tensor>& valid, double iou_threshold, double score_threshold,
                                      int64_t max_output) {
  const Check check{"nms_padded"};
  const NmsShape s = checked_shape(check, boxes, scores, groups, valid, iou_threshold, score_threshold, max_output);
  const Kept kept = run(check, s, boxes, scores, groups, valid);
  return {kept.keep, kept.count};
}

}  // namespace

FV_OPS(m) {
  m.impl("nms", TORCH_BOX(&nms));
  m.impl("nms_padded", TORCH_BOX(&nms_padded));
  m.impl("nms_rotated", TORCH_BOX(&nms_rotated));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
