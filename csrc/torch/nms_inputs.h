// Checks of what the forms of NMS take: boxes (..., N, columns), scores, and optional groups and validity.
#pragma once

#include "binding.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {

// The number of separate problems.
inline int64_t checked_nms_batch(const Check& check, const Tensor& boxes, const Tensor& scores,
                                 const std::optional<Tensor>& groups, const std::optional<Tensor>& valid,
                                 int64_t columns = 4) {
  check.floats("boxes", boxes);
  check.same_dtype("scores", scores, "boxes", boxes);
  check.shape(boxes.dim() >= 2 && boxes.size(-1) == columns, "boxes", boxes,
              columns == 4 ? "(..., N, 4)" : "(..., N, 5)");
  const Sizes rows(boxes.sizes().begin(), boxes.sizes().end() - 1);
  const auto of_boxes = [&](const char* name, const Tensor& t) {
    check.same_device(name, t, "boxes", boxes);
    check.that(t.sizes().vec() == rows, name, ": expected one per box, got shape ", shape_of(t), " for boxes ",
               shape_of(boxes));
  };
  of_boxes("scores", scores);
  if (groups) {
    check.dtype(groups->scalar_type() == ScalarType::Long, "idxs", *groups, "int64");
    of_boxes("idxs", *groups);
  }
  if (valid) {
    check.dtype(valid->scalar_type() == ScalarType::Bool, "valid", *valid, "bool");
    of_boxes("valid", *valid);
  }
  int64_t batch = 1;
  for (int64_t d = 0; d < boxes.dim() - 2; ++d) batch *= boxes.size(d);
  return batch;
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
