// Masks as tensors: bool (..., N, H, W), or uint8 (..., N, H, bytes) with eight pixels to a byte.
#pragma once

#include "../kernels/mask_iou.h"
#include "binding.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {

inline MaskShape checked_masks(const Check& check, const char* argument, const Tensor& masks) {
  const bool dense = masks.scalar_type() == ScalarType::Bool;
  check.dtype(dense || masks.scalar_type() == ScalarType::Byte, argument, masks, "bool, or uint8 for packed bits");
  check.shape(masks.dim() >= 3, argument, masks, "(..., N, H, W)");
  int64_t batch = 1;
  for (int64_t d = 0; d < masks.dim() - 3; ++d) batch *= masks.size(d);
  const MaskShape s{batch, masks.size(-3), masks.size(-2), masks.size(-1), dense};
  int64_t bits = 0;
  const bool small = !__builtin_mul_overflow(s.height, s.row_bytes() * 8, &bits) && bits < int64_t(1) << 32;
  check.that(small, argument, ": expected fewer than 2**32 pixels per mask, got shape ", shape_of(masks));
  return s;
}

struct PackedMasks {
  Tensor words, areas;

  PackedMasks(const Check& check, const Backend& backend, const MaskShape& s, const Tensor& masks, const int64_t* order)
      : words(check.empty(masks, {s.batch, s.masks, s.words()}, ScalarType::Long)),
        areas(check.empty(masks, {s.batch, s.masks}, ScalarType::Int)) {
    const Tensor bytes = dense(masks);
    backend.run([&](const auto& exec) {
      pack_masks(s, data<uint8_t>(bytes), order, mutable_data<uint64_t>(words), mutable_data<uint32_t>(areas), exec);
    });
  }
};

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
