#include "../kernels/box_area.h"

#include "binding.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

Tensor box_area(const Tensor& boxes, int64_t format) {
  const Check check{"box_area"};
  check.floats("boxes", boxes);
  check.shape(boxes.dim() >= 1 && boxes.size(-1) == 4, "boxes", boxes, "(..., 4)");
  check.that(format >= 0 && format <= 2, "format: expected 0 to 2 (corners, corner and sides, centre and sides), got ",
             format);
  std::vector<int64_t> size = boxes.sizes().vec();
  size.pop_back();
  const Tensor out = check.empty(boxes, size);
  const Backend backend(boxes);
  const Tensor b = dense(boxes);
  dispatch_floats(b, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::box_area<T>(out.numel(), BoxFormat(format), data<T>(b), mutable_data<T>(out), exec);
    });
  });
  return out;
}

}  // namespace

FV_OPS(m) { m.impl("box_area", TORCH_BOX(&box_area)); }

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
