#include "../kernels/mask_iou.h"

#include "mask_bits.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

Tensor mask_iou(const Tensor& masks1, const Tensor& masks2, const std::optional<Tensor>& crowd_in) {
  const Check check{"mask_iou"};
  const MaskShape a = checked_masks(check, "masks1", masks1), b = checked_masks(check, "masks2", masks2);
  check.same_device("masks2", masks2, "masks1", masks1);
  bool fits = masks1.dim() == masks2.dim() && a.height == b.height && a.row_bytes() == b.row_bytes() &&
              (a.dense != b.dense || a.width == b.width);
  for (int64_t d = 0; fits && d < masks1.dim() - 3; ++d) fits = masks1.size(d) == masks2.size(d);
  check.that(fits, "masks2: expected the size and leading dimensions of masks1 ", shape_of(masks1), ", got shape ",
             shape_of(masks2));
  Sizes sizes(masks2.sizes().begin(), masks2.sizes().end() - 2);
  if (crowd_in) {
    check.dtype(crowd_in->scalar_type() == ScalarType::Bool, "crowd", *crowd_in, "bool");
    check.that(crowd_in->sizes().vec() == sizes, "crowd: expected one per mask of masks2, got shape ",
               shape_of(*crowd_in), " for masks ", shape_of(masks2));
    check.same_device("crowd", *crowd_in, "masks1", masks1);
  }
  sizes.insert(sizes.end() - 1, a.masks);
  const Backend backend(masks1);
  const Tensor out = check.empty(masks1, sizes, ScalarType::Float);
  const std::optional<Tensor> crowd = dense(crowd_in);
  const PackedMasks first(check, backend, a, masks1, nullptr), second(check, backend, b, masks2, nullptr);
  const MaskPairs pairs{a.batch, a.masks, b.masks, a.words(), a.masks, b.masks, b.masks, b.masks};
  backend.run([&](const auto& exec) {
    // The counts stand where the result will be.
    count_intersections(pairs, data<uint64_t>(first.words), data<uint64_t>(second.words), mutable_data<uint32_t>(out),
                        exec);
    mask_overlaps(pairs, data<uint32_t>(first.areas), data<uint32_t>(second.areas), data<bool>(crowd),
                  mutable_data<float>(out), exec);
  });
  return out;
}

}  // namespace

FV_OPS(m) { m.impl("mask_iou", TORCH_BOX(&mask_iou)); }

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
