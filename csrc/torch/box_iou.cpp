#include "../kernels/box_iou.h"

#include "binding.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

BoxIouShape checked_shape(const Check& check, const Tensor& boxes1, const Tensor& boxes2, int64_t kind, bool aligned,
                          double eps) {
  check.floats("boxes1", boxes1);
  check.same_dtype("boxes2", boxes2, "boxes1", boxes1);
  check.same_device("boxes2", boxes2, "boxes1", boxes1);
  check.shape(boxes1.dim() >= 2 && boxes1.size(-1) == 4, "boxes1", boxes1, "(..., N, 4)");
  check.shape(boxes2.dim() == boxes1.dim() && boxes2.size(-1) == 4, "boxes2", boxes2,
              "(..., M, 4) with the leading dimensions of boxes1");
  int64_t batch = 1;
  for (int64_t d = 0; d < boxes1.dim() - 2; ++d) {
    check.shape(boxes1.size(d) == boxes2.size(d), "boxes2", boxes2,
                "(..., M, 4) with the leading dimensions of boxes1");
    batch *= boxes1.size(d);
  }
  check.that(kind >= 0 && kind <= 3, "kind: expected an integer in [0, 3], got ", kind);
  check.that(eps >= 0 && std::isfinite(eps), "eps: expected a finite number >= 0, got ", eps);
  const int64_t rows = boxes1.size(-2), cols = boxes2.size(-2);
  if (aligned) check.shape(rows == cols, "boxes2", boxes2, "the shape of boxes1, because aligned=True");
  return {batch, rows, cols, aligned, IouKind(kind), eps};
}

Sizes out_sizes(const Tensor& boxes1, const BoxIouShape& s) {
  Sizes sizes;
  for (int64_t d = 0; d < boxes1.dim() - 1; ++d) sizes.push_back(boxes1.size(d));
  if (!s.aligned) sizes.push_back(s.cols);
  return sizes;
}

Tensor box_iou(const Tensor& boxes1, const Tensor& boxes2, int64_t kind, bool aligned, double eps) {
  const Check check{"box_iou"};
  const BoxIouShape s = checked_shape(check, boxes1, boxes2, kind, aligned, eps);
  const Backend backend(boxes1);
  const Tensor a = dense(boxes1), b = dense(boxes2), out = check.empty(boxes1, out_sizes(boxes1, s));
  dispatch_floats(a, [&](auto t) {
    using T = decltype(t);
    backend.run(
        [&](const auto& exec) { fastvision::box_iou<T>(s, data<T>(a), data<T>(b), mutable_data<T>(out), exec); });
  });
  return out;
}

std::tuple<Tensor, Tensor> box_iou_backward(const Tensor& grad, const Tensor& boxes1, const Tensor& boxes2,
                                            int64_t kind, bool aligned, double eps) {
  const Check check{"box_iou_backward"};
  const BoxIouShape s = checked_shape(check, boxes1, boxes2, kind, aligned, eps);
  check.same_dtype("grad", grad, "boxes1", boxes1);
  check.same_device("grad", grad, "boxes1", boxes1);
  const Sizes expected = out_sizes(boxes1, s);
  check.shape(grad.sizes().vec() == expected, "grad", grad, "the shape of the output");
  const Backend backend(boxes1);
  const Tensor g = dense(grad), a = dense(boxes1), b = dense(boxes2);
  const Tensor grad1 = check.empty(boxes1, a.sizes().vec()), grad2 = check.empty(boxes1, b.sizes().vec());
  dispatch_floats(a, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::box_iou_backward<T>(s, data<T>(g), data<T>(a), data<T>(b), mutable_data<T>(grad1),
                                      mutable_data<T>(grad2), exec);
    });
  });
  return {grad1, grad2};
}

}  // namespace

FV_OPS(m) {
  m.impl("box_iou", TORCH_BOX(&box_iou));
  m.impl("box_iou_backward", TORCH_BOX(&box_iou_backward));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
