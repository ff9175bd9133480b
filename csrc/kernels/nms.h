// Greedy non-maximum suppression: by descending score (ties: lower index first) a box is kept unless a kept box of its
// group overlaps it by more than the threshold. Memory is linear in the number of boxes. Boxes are upright (Box) or
// rotated (RotatedBox); only their overlap differs.
#pragma once

#include "rotated_box.h"

namespace fastvision {

struct NmsShape {
  int64_t batch, boxes;                   // boxes and scores: (batch, boxes)
  int64_t max_output;                     // keep: (batch, max_output), padded with -1
  double iou_threshold, score_threshold;  // both strict; a score threshold of -infinity passes -infinity too
};

template <class B>
struct ScalarOf;
template <class T>
struct ScalarOf<Box<T>> {
  using type = T;
};
template <class T>
struct ScalarOf<RotatedBox<T>> {
  using type = T;
};
template <class B>
using Scalar = typename ScalarOf<B>::type;

template <class B>
struct NmsArguments {
  const B* boxes;
  const Scalar<B>* scores;
  const bool* valid;      // (batch, boxes) or null
  const int64_t* groups;  // (batch, boxes) or null: boxes of different groups do not suppress each other
  int64_t* keep;          // (batch, max_output)
  int64_t* count;         // (batch)
};

// The CUDA twin does not sort. A rank is a place in the order of descending score; a position is a place in the order
// that puts groups together, by ascending rank within a group.
template <class B>
struct NmsOrder {
  const int64_t* by_rank;      // (batch, boxes): the box at each rank
  const int64_t* by_position;  // (batch, boxes): the rank at each position; null without groups
  const int64_t* groups;       // (batch, boxes): the group at each position; null without groups
  B* kept_boxes;               // (batch, boxes) scratch
  int64_t* kept_counts;        // (batch, 2) scratch
  bool* alive;                 // (batch, boxes) scratch, by rank
};

// Whether box i of a row takes part at all: a NaN score or a coordinate that is not finite keeps it out.
template <class B>
FV_HD bool takes_part(const B& box, Scalar<B> score, double score_threshold) {
  return (double(score) > score_threshold || (score_threshold == -INFINITY && score == score)) && is_finite(box);
}

template <class T>
FV_HD bool suppresses(const Box<T>& kept, T kept_area, const Box<T>& box, T box_area, T threshold) {
  return iou(kept, kept_area, box, box_area) > threshold;
}
template <class T>
FV_HD bool suppresses(const RotatedBox<T>& kept, T, const RotatedBox<T>& box, T, T threshold) {
  return iou(kept, box) > threshold;
}

template <class B, class Isa>
void nms(const NmsShape&, const NmsArguments<B>&, const Cpu<Isa>&);
template <class B>
void nms(const NmsShape&, const NmsArguments<B>&, const NmsOrder<B>&, const CudaExec&);

// Instantiates a twin for every kind of box.
#define FV_NMS_BOXES(F) F(Box<float>) F(Box<double>) F(RotatedBox<float>) F(RotatedBox<double>)

}  // namespace fastvision
