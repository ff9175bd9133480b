#include "../kernels/box_convert.h"

#include "binding.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

Tensor box_convert(const Tensor& boxes, int64_t from, int64_t to) {
  const Check check{"box_convert"};
  check.floats("boxes", boxes);
  check.shape(boxes.dim() >= 1 && boxes.size(-1) == 4, "boxes", boxes, "(..., 4)");
  for (const int64_t format : {from, to})
    check.that(format >= 0 && format <= 2,
               "format: expected 0 to 2 (corners, corner and sides, centre and sides), got ", format);
  const Tensor out = check.empty(boxes, boxes.sizes().vec());
  const Backend backend(boxes);
  const Tensor b = dense(boxes);
  dispatch_floats(b, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::box_convert<T>(b.numel() / 4, BoxFormat(from), BoxFormat(to), data<T>(b), mutable_data<T>(out), exec);
    });
  });
  return out;
}

}  // namespace

FV_OPS(m) { m.impl("box_convert", TORCH_BOX(&box_convert)); }

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
