// Soft non-maximum suppression (Bodla et al., ICCV 2017): the best box of a group is kept with the score it has by then
// and lowers the scores of the others by how much it overlaps them, until no score is above the threshold. Memory is
// linear in the number of boxes.
#pragma once

#include <type_traits>

#include "exponential.h"
#include "nms.h"

namespace fastvision {

// What a kept box does to a score: overlap is their IoU.
enum class SoftNmsMethod : int {
  gaussian,  // times exp(-overlap^2 / sigma)
  linear,    // times 1 - overlap, where that is above the IoU threshold
  naive,     // nothing left, where it is above
};

struct SoftNmsShape {
  int64_t batch, boxes;  // boxes: (batch, boxes, 4), scores: (batch, boxes)
  int64_t max_output;    // keep, kept_scores: (batch, max_output)
  SoftNmsMethod method;
  double iou_threshold, sigma, score_threshold;  // the thresholds are strict
};

template <class T>
struct SoftNmsArguments {
  const T* boxes;
  const T* scores;
  const bool* valid;      // (batch, boxes) or null
  const int64_t* groups;  // (batch, boxes) or null: boxes of different groups do not meet
  int64_t* keep;          // padded with -1
  T* kept_scores;         // padded with 0
  int64_t* count;         // (batch)
};

// The CUDA twin works on positions, which put groups together, and writes the score that each box was kept with, or
// -infinity. The binding sorts those; then soft_nms_collect fills keep, kept_scores and count.
template <class T>
struct SoftNmsOrder {
  const int64_t* by_position;  // (batch, boxes): the box at each position; null without groups
  const int64_t* groups;       // (batch, boxes): the group at each position; null without groups
  T* boxes;                    // (batch, boxes, 4) scratch, by position; null without groups
  T* current;                  // (batch, boxes) scratch, by position
  T* final_scores;             // (batch, boxes), by box
};

// The numbers of a method in the type of the boxes.
template <class T>
struct Decay {
  T iou_threshold, rate, score_threshold;

  explicit Decay(const SoftNmsShape& s)
      : iou_threshold(threshold_in(s.iou_threshold, T())), score_threshold(threshold_in(s.score_threshold, T())) {
    // A sigma that vanishes or overflows in T would make 0 * infinity of an overlap of 0.
    const T least = sizeof(T) == 4 ? T(1.17549435e-38) : T(2.2250738585072014e-308);
    rate = T(-1) / min_of(max_of(T(s.sigma), least), NormalRange<T>::kMax);
  }
};

// The score that is left. A weight of 0 leaves nothing, whatever the threshold is; a negative score stays as it is, so
// that no score ever rises. A is T, or a vector of it.
template <SoftNmsMethod kMethod, class T, class A>
FV_HD A decayed(A score, A overlap, const Decay<T>& decay) {
  const A none(T(-INFINITY));
  A left;
  if constexpr (kMethod == SoftNmsMethod::naive) {
    left = select(overlap > A(decay.iou_threshold), none, score);
  } else {
    A weight;
    if constexpr (kMethod == SoftNmsMethod::gaussian) weight = exp_nonpositive<T>(overlap * overlap * A(decay.rate));
    else weight = select(overlap > A(decay.iou_threshold), A(T(1)) - overlap, A(T(1)));
    left = select(weight > A(T(0)), min_of(score * weight, score), none);
  }
  return select(left > A(decay.score_threshold), left, none);
}

// Calls f with the method as a constant.
template <class F>
void with_method(SoftNmsMethod method, F&& f) {
  switch (method) {
    case SoftNmsMethod::gaussian: return f(std::integral_constant<SoftNmsMethod, SoftNmsMethod::gaussian>());
    case SoftNmsMethod::linear: return f(std::integral_constant<SoftNmsMethod, SoftNmsMethod::linear>());
    case SoftNmsMethod::naive: return f(std::integral_constant<SoftNmsMethod, SoftNmsMethod::naive>());
  }
}

template <class T, class Isa>
void soft_nms(const SoftNmsShape&, const SoftNmsArguments<T>&, const Cpu<Isa>&);
template <class T>
void soft_nms(const SoftNmsShape&, const SoftNmsArguments<T>&, const SoftNmsOrder<T>&, const CudaExec&);
// sorted, by_score: the final scores in descending order and the boxes they belong to, (batch, boxes).
template <class T>
void soft_nms_collect(const SoftNmsShape&, const T* sorted, const int64_t* by_score, const SoftNmsArguments<T>&,
                      const CudaExec&);

}  // namespace fastvision
