// What the bindings of ops on rotated boxes share.
#pragma once

#include "../kernels/box_iou_rotated.h"
#include "binding.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {

// Memory for the prepared boxes of `boxes` (..., 5), as bytes.
template <class T>
Tensor rotated_scratch(const Check& check, const Tensor& boxes) {
  return check.empty(boxes, {boxes.numel() / 5 * int64_t(sizeof(RotatedBox<T>))}, ScalarType::Byte);
}

template <class T, class Exec>
const RotatedBox<T>* prepare(const Tensor& boxes, AngleUnit unit, const Tensor& scratch, const Exec& exec) {
  auto* const out = reinterpret_cast<RotatedBox<T>*>(scratch.mutable_data_ptr());
  prepare_rotated_boxes<T>(boxes.numel() / 5, data<T>(boxes), unit, out, exec);
  return out;
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
