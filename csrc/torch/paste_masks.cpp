#include "../kernels/paste_masks.h"

#include "binding.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

Tensor paste_masks(const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width, double threshold,
                   int64_t padding, bool packed) {
  const Check check{"paste_masks_in_image"};
  check.all_floats("masks", masks);
  const ScalarType wanted = accumulated_type(masks);
  check.dtype(boxes.scalar_type() == wanted, "boxes", boxes, dtype_name(wanted));
  check.same_device("boxes", boxes, "masks", masks);
  check.shape(masks.dim() == 3, "masks", masks, "(N, h, w)");
  check.shape(boxes.dim() == 2 && boxes.size(1) == 4 && boxes.size(0) == masks.size(0), "boxes", boxes,
              "(N, 4), one per mask");
  check.that(masks.size(0) == 0 || (masks.size(1) > 0 && masks.size(2) > 0),
             "masks: expected at least one sample per mask, got shape ", shape_of(masks));
  check.that(height >= 0 && width >= 0 && height < 1 << 30 && width < 1 << 30,
             "image_shape: expected (height, width) in [0, 2**30), got (", height, ", ", width, ")");
  check.finite("threshold", threshold);
  check.that(padding >= 0 && padding <= 1024, "padding: expected an integer in [0, 1024], got ", padding);
  const PasteShape s{masks.size(0), masks.size(1), masks.size(2), padding, height, width, threshold, packed};
  const Backend backend(masks);
  const Tensor out = check.empty(masks, {s.masks, height, s.row_bytes()}, packed ? ScalarType::Byte : ScalarType::Bool);
  const Tensor m = dense(masks), b = dense(boxes);
  dispatch_all_floats(masks, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::paste_masks<T>(s, data<T>(m), data<Accum<T>>(b), mutable_data<uint8_t>(out), exec);
    });
  });
  return out;
}

}  // namespace

FV_OPS(m) { m.impl("paste_masks", TORCH_BOX(&paste_masks)); }

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
