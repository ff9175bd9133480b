// A thread per score; bound by the bytes of a score read and the eight of its key written.
#include "cuda.cuh"
#include "top_scores.h"

namespace fastvision {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads)
    keys_kernel(TopScoresShape s, const T* __restrict__ scores, ScoreKey<T>* __restrict__ keys) {
  FV_FOR(i, s.rows * s.scores)
    keys[i] = key_of_score(ranked_score(to_accum(scores[i]), s.threshold), s.scores - 1 - i % s.scores);
}

}  // namespace

template <class T>
void score_keys(const TopScoresShape& s, const T* scores, ScoreKey<T>* keys, const CudaExec& exec) {
  const int64_t items = s.rows * s.scores;
  if (items > 0) launch(exec, keys_kernel<T>, grid_for(items), kThreads, 0, s, scores, keys);
}

#define INSTANTIATE(T) template void score_keys(const TopScoresShape&, const T*, ScoreKey<T>*, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
