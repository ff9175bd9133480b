// The places of the largest scores of each row, in one total order: score descending, index ascending; last, by index,
// what is not above the threshold, and NaN.
#pragma once

#include <type_traits>

#include "common.h"

namespace fastvision {

struct TopScoresShape {
  int64_t rows, scores, k;  // k <= scores
  double threshold;         // -inf: none
};

// A score by which all comparisons go: -0 is 0, and what comes last is -inf.
template <class A>
FV_HD A ranked_score(A score, double threshold) {
  return double(score) > threshold ? score + A(0) : A(-__builtin_huge_val());
}

// An integer that no other score of the row has, in their order: the bits of the score, then those of the index from
// behind. float64 has no bits to spare: its keys are the scores, for a stable sort.
template <class T>
using ScoreKey = std::conditional_t<std::is_same_v<T, double>, double, int64_t>;
FV_HD int64_t key_of_score(float score, int64_t behind) {
  const int32_t bits = bit_cast<int32_t>(score);
  return int64_t(bits >= 0 ? bits : bits ^ 0x7fffffff) * (int64_t(1) << 32) + behind;
}
FV_HD double key_of_score(double score, int64_t) { return score; }

// The CPU selects; CUDA makes keys, which torch selects from. top: (rows, k).
template <class T, class Isa>
void top_scores(const TopScoresShape&, const T* scores, int64_t* top, const Cpu<Isa>&);
template <class T>
void score_keys(const TopScoresShape&, const T* scores, ScoreKey<T>* keys, const CudaExec&);

}  // namespace fastvision
