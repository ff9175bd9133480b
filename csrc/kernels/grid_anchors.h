// Anchors (Ren et al., Faster R-CNN, NIPS 2015): boxes of several sizes and aspect ratios at every cell of the maps of
// a pyramid.
#pragma once

#include "box.h"

namespace fastvision {

constexpr int kMaxAnchorLevels = 8, kMaxAnchorKinds = 16;

struct AnchorLevel {
  int64_t rows, columns;
  int64_t stride_y, stride_x;  // pixels between cells
  int64_t before;              // anchors of the levels before this one
  int64_t sizes, ratios;
  double side[kMaxAnchorKinds];   // of the square anchor
  double ratio[kMaxAnchorKinds];  // height / width

  FV_HD int64_t per_cell() const { return sizes * ratios; }
  FV_HD int64_t count() const { return rows * columns * per_cell(); }
};

// A plain array so that it travels to a CUDA kernel by value.
struct AnchorLevels {
  AnchorLevel level[kMaxAnchorLevels];
  int count;
  double offset;  // of the anchors' centres from the cells' corners, in strides

  FV_HD int64_t total() const { return count ? level[count - 1].before + level[count - 1].count() : 0; }
};

// The kinds of anchors of a level, around the origin, in the order ratio, size. Corners are rounded to integers, halves
// to even.
template <class A>
FV_HD Box<A> anchor_of_kind(const AnchorLevel& l, int64_t kind) {
  const A tall = sqrt(A(l.ratio[kind / l.sizes])), side = A(l.side[kind % l.sizes]);
  const A half_w = rint(A(1) / tall * side / A(2)), half_h = rint(tall * side / A(2));
  return {-half_w, -half_h, half_w, half_h};
}

template <class A>
FV_HD Box<A> shift_to_cell(const Box<A>& b, const AnchorLevel& l, int64_t row, int64_t column, double offset) {
  const A x = (A(column) + A(offset)) * A(l.stride_x), y = (A(row) + A(offset)) * A(l.stride_y);
  return {x + b.x1, y + b.y1, x + b.x2, y + b.y2};
}

// Anchor i of all levels, in the order level, row, column, kind.
template <class A>
FV_HD Box<A> anchor_at(const AnchorLevels& levels, int64_t i) {
  int k = 0;
  while (i >= levels.level[k].before + levels.level[k].count()) ++k;
  const AnchorLevel& l = levels.level[k];
  const int64_t cell = (i - l.before) / l.per_cell(), kind = (i - l.before) % l.per_cell();
  return shift_to_cell(anchor_of_kind<A>(l, kind), l, cell / l.columns, cell % l.columns, levels.offset);
}

// Twins. out: (anchors of all levels, 4).
template <class T, class Isa>
void grid_anchors(const AnchorLevels&, T* out, const Cpu<Isa>&);
template <class T>
void grid_anchors(const AnchorLevels&, T* out, const CudaExec&);

}  // namespace fastvision
