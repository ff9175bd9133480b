// Intersection over union of rotated boxes, for all pairs of two sets or for boxes side by side.
#pragma once

#include "rotated_box.h"

namespace fastvision {

struct RotatedIouShape {
  int64_t batch, rows, cols;  // boxes1: (batch, rows), boxes2: (batch, cols)
  bool aligned;               // pair row i with column i: out is (batch, rows), rows == cols; else (batch, rows, cols)

  FV_HD int64_t out_size() const { return aligned ? batch * rows : batch * rows * cols; }
};

// In the caller's unit of angles.
template <class T>
FV_HD void store_gradient(T* to, const RotatedGradient<T>& d, AngleUnit unit) {
  to[0] = d.x, to[1] = d.y, to[2] = d.w, to[3] = d.h;
  to[4] = d.angle * T(unit.clockwise ? unit.to_radians() : -unit.to_radians());
}

// Twins. prepare_rotated_boxes: from (n, 5) numbers. out: out_size() values. grad1 and grad2: (batch, rows, 5) and
// (batch, cols, 5), written whole; every sum has a fixed order.
template <class T, class Isa>
void prepare_rotated_boxes(int64_t n, const T* boxes, AngleUnit, RotatedBox<T>* out, const Cpu<Isa>&);
template <class T>
void prepare_rotated_boxes(int64_t n, const T* boxes, AngleUnit, RotatedBox<T>* out, const CudaExec&);
template <class T, class Isa>
void box_iou_rotated(const RotatedIouShape&, const RotatedBox<T>* boxes1, const RotatedBox<T>* boxes2, T* out,
                     const Cpu<Isa>&);
template <class T>
void box_iou_rotated(const RotatedIouShape&, const RotatedBox<T>* boxes1, const RotatedBox<T>* boxes2, T* out,
                     const CudaExec&);
template <class T, class Isa>
void box_iou_rotated_backward(const RotatedIouShape&, AngleUnit, const T* grad, const RotatedBox<T>* boxes1,
                              const RotatedBox<T>* boxes2, T* grad1, T* grad2, const Cpu<Isa>&);
template <class T>
void box_iou_rotated_backward(const RotatedIouShape&, AngleUnit, const T* grad, const RotatedBox<T>* boxes1,
                              const RotatedBox<T>* boxes2, T* grad1, T* grad2, const CudaExec&);

}  // namespace fastvision
