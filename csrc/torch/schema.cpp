// Every op that torch sees: the table of contents of the C++ side. Compiled once per library, with FV_LIBRARY.
// Arguments are checked in the bindings; docstrings, gradients and fake kernels are in python/fastvision/ops.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(FV_LIBRARY, m) {
  // kind: 0 plain, 1 generalized, 2 distance, 3 complete
  m.def("box_iou(Tensor boxes1, Tensor boxes2, int kind, bool aligned, float eps) -> Tensor");
  m.def("box_iou_backward(Tensor grad, Tensor boxes1, Tensor boxes2, int kind, bool aligned, float eps)"
        " -> (Tensor, Tensor)");

  // groups: int64, boxes of different groups do not suppress each other. score_threshold: -inf for none.
  m.def("nms(Tensor boxes, Tensor scores, Tensor? groups, float iou_threshold, float score_threshold,"
        " SymInt? max_output) -> Tensor");
  m.def("nms_padded(Tensor boxes, Tensor scores, Tensor? groups, Tensor? valid, float iou_threshold,"
        " float score_threshold, SymInt max_output) -> (Tensor keep, Tensor count)");

  m.def("device_errors(Tensor like) -> Tensor");
}
