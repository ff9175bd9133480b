// Assignment of ground truth to boxes by their overlap (the Matcher of R-CNN and RetinaNet), without the matrix of
// overlaps: memory is linear in the number of boxes.
#pragma once

#include "box.h"

namespace fastvision {

constexpr int64_t kBelowLow = -1, kBetween = -2;

struct MatchShape {
  int64_t batch, truths, boxes;  // truth: (batch, truths, 4), boxes: (batch, boxes, 4)
  double high, low;
  bool allow_low_quality;  // a box that a ground truth overlaps more than any other box keeps its best match
};

// What a box is assigned, given its best overlap.
template <class T>
FV_HD int64_t match_code(T best, int64_t index, const MatchShape& s) {
  return double(best) < s.low ? kBelowLow : double(best) < s.high ? kBetween : index;
}

// Twins. valid: (batch, truths) or null; match: (batch, boxes) index of the best ground truth (ties: the lower), or a
// code; overlap: (batch, boxes) of that ground truth, 0 if there is none; best_of_truth: (batch, truths) scratch.
template <class T, class Isa>
void match_boxes(const MatchShape&, const T* truth, const T* boxes, const bool* valid, int64_t* match, T* overlap,
                 T* best_of_truth, const Cpu<Isa>&);
template <class T>
void match_boxes(const MatchShape&, const T* truth, const T* boxes, const bool* valid, int64_t* match, T* overlap,
                 T* best_of_truth, const CudaExec&);

}  // namespace fastvision
