#include "../kernels/box_iou_rotated.h"

#include "binding.h"
#include "rotated_boxes.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

RotatedIouShape checked_shape(const Check& check, const Tensor& boxes1, const Tensor& boxes2, bool aligned) {
  check.floats("boxes1", boxes1);
  check.same_dtype("boxes2", boxes2, "boxes1", boxes1);
  check.same_device("boxes2", boxes2, "boxes1", boxes1);
  check.shape(boxes1.dim() >= 2 && boxes1.size(-1) == 5, "boxes1", boxes1, "(..., N, 5)");
  check.shape(boxes2.dim() == boxes1.dim() && boxes2.size(-1) == 5, "boxes2", boxes2,
              "(..., M, 5) with the leading dimensions of boxes1");
  int64_t batch = 1;
  for (int64_t d = 0; d < boxes1.dim() - 2; ++d) {
    check.shape(boxes1.size(d) == boxes2.size(d), "boxes2", boxes2,
                "(..., M, 5) with the leading dimensions of boxes1");
    batch *= boxes1.size(d);
  }
  const int64_t rows = boxes1.size(-2), cols = boxes2.size(-2);
  if (aligned) check.shape(rows == cols, "boxes2", boxes2, "the shape of boxes1, because aligned=True");
  return {batch, rows, cols, aligned};
}

Sizes out_sizes(const Tensor& boxes1, const RotatedIouShape& s) {
  Sizes sizes(boxes1.sizes().begin(), boxes1.sizes().end() - 1);
  if (!s.aligned) sizes.push_back(s.cols);
  return sizes;
}

Tensor box_iou_rotated(const Tensor& boxes1, const Tensor& boxes2, bool aligned, bool degrees, bool clockwise) {
  const Check check{"box_iou_rotated"};
  const RotatedIouShape s = checked_shape(check, boxes1, boxes2, aligned);
  const Backend backend(boxes1);
  const AngleUnit unit{degrees, clockwise};
  const Tensor a = dense(boxes1), b = dense(boxes2), out = check.empty(boxes1, out_sizes(boxes1, s));
  dispatch_floats(a, [&](auto t) {
    using T = decltype(t);
    const Tensor scratch1 = rotated_scratch<T>(check, a), scratch2 = rotated_scratch<T>(check, b);
    backend.run([&](const auto& exec) {
      const auto* first = prepare<T>(a, unit, scratch1, exec);
      const auto* second = prepare<T>(b, unit, scratch2, exec);
      fastvision::box_iou_rotated<T>(s, first, second, mutable_data<T>(out), exec);
    });
  });
  return out;
}

std::tuple<Tensor, Tensor> box_iou_rotated_backward(const Tensor& grad, const Tensor& boxes1, const Tensor& boxes2,
                                                    bool aligned, bool degrees, bool clockwise) {
  const Check check{"box_iou_rotated_backward"};
  const RotatedIouShape s = checked_shape(check, boxes1, boxes2, aligned);
  check.same_dtype("grad", grad, "boxes1", boxes1);
  check.same_device("grad", grad, "boxes1", boxes1);
  check.shape(grad.sizes().vec() == out_sizes(boxes1, s), "grad", grad, "the shape of the output");
  const Backend backend(boxes1);
  const AngleUnit unit{degrees, clockwise};
  const Tensor g = dense(grad), a = dense(boxes1), b = dense(boxes2);
  const Tensor grad1 = check.empty(boxes1, a.sizes().vec()), grad2 = check.empty(boxes1, b.sizes().vec());
  dispatch_floats(a, [&](auto t) {
    using T = decltype(t);
    const Tensor scratch1 = rotated_scratch<T>(check, a), scratch2 = rotated_scratch<T>(check, b);
    backend.run([&](const auto& exec) {
      const auto* first = prepare<T>(a, unit, scratch1, exec);
      const auto* second = prepare<T>(b, unit, scratch2, exec);
      fastvision::box_iou_rotated_backward<T>(s, unit, data<T>(g), first, second, mutable_data<T>(grad1),
                                              mutable_data<T>(grad2), exec);
    });
  });
  return {grad1, grad2};
}

}  // namespace

FV_OPS(m) {
  m.impl("box_iou_rotated", TORCH_BOX(&box_iou_rotated));
  m.impl("box_iou_rotated_backward", TORCH_BOX(&box_iou_rotated_backward));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
