// Random choice of samples, positives up to a share. Each label has a random key of its own, a function of the seed and
// of its place alone, and those with the largest keys are chosen.
#pragma once

#include "common.h"

namespace fastvision {

struct SampleShape {
  int64_t rows, labels;
  int64_t most_positive, samples;  // per row, both at most `labels`
};

// Output i of SplitMix64 (Steele et al., Fast splittable pseudorandom number generators, OOPSLA 2014), without its
// lowest bit.
FV_HD int64_t random_key(int64_t seed, int64_t i) {
  uint64_t z = uint64_t(seed) + (uint64_t(i) + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return int64_t((z ^ z >> 31) >> 1);
}

// The CPU selects. CUDA makes keys (2, rows, labels) of positives and of negatives, -1 for others, and clears the
// masks; torch sorts the best of each row, (rows, most_positive) and (rows, samples); and the choice is marked.
template <class L, class Isa>
void sample_labels(const SampleShape&, const L* labels, const int64_t* seed, bool* positive, bool* negative,
                   const Cpu<Isa>&);
template <class L>
void sample_keys(const SampleShape&, const L* labels, const int64_t* seed, int64_t* keys, bool* positive,
                 bool* negative, const CudaExec&);

struct BestKeys {
  const int64_t *keys, *index;
};
void mark_samples(const SampleShape&, BestKeys positives, BestKeys negatives, bool* positive, bool* negative,
                  const CudaExec&);

}  // namespace fastvision
