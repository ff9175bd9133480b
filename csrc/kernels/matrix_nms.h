// Matrix NMS (Wang et al., SOLOv2, NeurIPS 2020): the score of an item is lowered by the better items that overlap it,
// each of which counts the less the more it is overlapped itself. Nothing is dropped and nothing depends on the order
// of decisions, so all pairs are independent.
#pragma once

#include "exponential.h"
#include "mask_iou.h"
#include "nms.h"

namespace fastvision {

// f(IoU): what an item that overlaps another by IoU leaves of its score, before the compensation.
enum class MatrixNmsKernel : int {
  gaussian,  // exp(-sigma * IoU^2)
  linear,    // 1 - IoU
};

struct MatrixNmsShape {
  int64_t batch, items;
  MatrixNmsKernel kernel;
  double sigma;
};

// A position is a place in the order that puts groups together, by descending score within a group.
template <class T>
struct MatrixNmsArguments {
  const T* boxes;         // (batch, items, 4), or null for masks
  const uint64_t* words;  // masks by position, packed (see mask_iou.h): (batch, items, mask_words)
  const uint32_t* areas;  // (batch, items), by position
  int64_t mask_words;
  const T* scores;        // (batch, items)
  const int64_t* order;   // (batch, items): the item at each position
  const int64_t* groups;  // (batch, items): the group at each position; null without groups
  T* out;                 // (batch, items)
};

// For the CUDA twin. It has `chunk` rows of the matrix of overlaps in memory at a time, so that memory is linear.
template <class T>
struct MatrixNmsScratch {
  int64_t chunk;
  uint32_t* intersections;  // (batch, chunk, items); null for boxes
  T* overlaps;              // (batch, chunk, items)
  T* compensation;          // (batch, items): the largest overlap of each position with one before it
};

// Whether an item takes part: a NaN score or a coordinate that is not finite keeps it out.
template <class T>
FV_HD bool takes_part(const MatrixNmsArguments<T>& a, int64_t item) {
  return a.scores[item] == a.scores[item] && (!a.boxes || is_finite(load_box(a.boxes + 4 * item)));
}

template <class T>
FV_HD T mask_overlap_as(uint32_t inter, uint32_t area_a, uint32_t area_b) {
  return T(divide_or_zero(double(inter), double(area_a) + double(area_b) - double(inter)));
}

// How much an item before another takes from it: gaussian IoU^2 - compensation^2, of which the largest counts; linear
// the factor itself, of which the smallest counts. An item that is overlapped whole takes nothing. A is T, or a vector.
template <class T, class A>
FV_HD A squared_excess(A overlap, A compensation) {
  return overlap * overlap - compensation * compensation;
}
template <class T, class A>
FV_HD A linear_factor(A overlap, A compensation) {
  return select(compensation < A(T(1)), (A(T(1)) - overlap) / (A(T(1)) - compensation), A(T(1)));
}

// The score that is left. excess: the largest squared_excess, at least 0; factor: the smallest linear_factor, at
// most 1.
template <class T>
FV_HD T matrix_nms_score(const MatrixNmsShape& s, T score, T excess, T factor) {
  const T rate = T(-s.sigma > -double(NormalRange<T>::kMax) ? -s.sigma : -double(NormalRange<T>::kMax));
  if (s.kernel == MatrixNmsKernel::gaussian) factor = exp_nonpositive<T>(excess * rate);
  return factor > T(0) ? min_of(score * factor, score) : min_of(score, T(0));
}

template <class T, class Isa>
void matrix_nms(const MatrixNmsShape&, const MatrixNmsArguments<T>&, const Cpu<Isa>&);
template <class T>
void matrix_nms(const MatrixNmsShape&, const MatrixNmsArguments<T>&, const MatrixNmsScratch<T>&, const CudaExec&);

}  // namespace fastvision
