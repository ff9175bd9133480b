// A thread per label makes its keys and clears its masks: 8 bytes read, 18 written. Then a thread per candidate, of
// which there are as many as samples; keys are sorted, so that how many positives there are is found by bisection.
#include "cuda.cuh"
#include "sample_labels.h"

namespace fastvision {
namespace {

template <class L>
__global__ void __launch_bounds__(kThreads)
    keys_kernel(SampleShape s, const L* __restrict__ labels, const int64_t* __restrict__ seed,
                int64_t* __restrict__ keys, bool* __restrict__ positive, bool* __restrict__ negative) {
  const int64_t items = s.rows * s.labels;
  FV_FOR(i, items) {
    const L label = labels[i];
    const int64_t key = random_key(*seed, i);
    keys[i] = label >= L(1) ? key : -1;
    keys[items + i] = label == L(0) ? key : -1;
    positive[i] = negative[i] = false;
  }
}

__global__ void __launch_bounds__(kThreads) mark_kernel(SampleShape s, BestKeys positives, BestKeys negatives,
                                                        bool* __restrict__ positive, bool* __restrict__ negative) {
  FV_FOR(i, s.rows * s.samples) {
    const int64_t row = i / s.samples, place = i % s.samples;
    const int64_t* best = positives.keys + row * s.most_positive;
    int64_t chosen = 0, end = s.most_positive;
    while (chosen < end) {
      const int64_t middle = (chosen + end) / 2;
      if (best[middle] >= 0) chosen = middle + 1;
      else end = middle;
    }
    if (place < chosen) positive[row * s.labels + positives.index[row * s.most_positive + place]] = true;
    if (place < s.samples - chosen && negatives.keys[i] >= 0) negative[row * s.labels + negatives.index[i]] = true;
  }
}

}  // namespace

template <class L>
void sample_keys(const SampleShape& s, const L* labels, const int64_t* seed, int64_t* keys, bool* positive,
                 bool* negative, const CudaExec& exec) {
  const int64_t items = s.rows * s.labels;
  if (items > 0) launch(exec, keys_kernel<L>, grid_for(items), kThreads, 0, s, labels, seed, keys, positive, negative);
}

void mark_samples(const SampleShape& s, BestKeys positives, BestKeys negatives, bool* positive, bool* negative,
                  const CudaExec& exec) {
  const int64_t items = s.rows * s.samples;
  if (items > 0) launch(exec, mark_kernel, grid_for(items), kThreads, 0, s, positives, negatives, positive, negative);
}

#define INSTANTIATE(L) \
  template void sample_keys(const SampleShape&, const L*, const int64_t*, int64_t*, bool*, bool*, const CudaExec&);
INSTANTIATE(int64_t)
INSTANTIATE(float)
#undef INSTANTIATE

}  // namespace fastvision
