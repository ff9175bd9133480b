// One pass over the labels: the keys of a block in vectors, then those above the bar of their kind, which rises as
// better ones are found, so that few are looked at.
#include "sample_labels.h"

#include <vector>

#include "ranked.h"
#include "simd_integers.h"

namespace fastvision {
namespace {

struct Collected {
  std::vector<Ranked<int64_t>> found;
  int64_t most, bar;

  explicit Collected(int64_t most) : most(most), bar(most > 0 ? -1 : INT64_MAX) {}
  void add(int64_t key, int64_t index) {
    found.push_back({key, index});
    if (int64_t(found.size()) < 2 * most + 64) return;
    keep_best(found, most);
    bar = found.back().score;
  }
};

}  // namespace

template <class L, class Isa>
void sample_labels(const SampleShape& s, const L* labels, const int64_t* seed, bool* positive, bool* negative,
                   const Cpu<Isa>& exec) {
  constexpr int64_t kBlock = 64;
  exec(s.rows, 1 + 16384 / (s.labels + 1), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t first = row * s.labels;
      Collected positives(s.most_positive), negatives(s.samples);
      for (int64_t i = 0; i < s.labels; i += kBlock) {
        const int64_t count = min_of(kBlock, s.labels - i);
        int64_t keys[kBlock];
        uint8_t above[kBlock] = {};
        const int64_t bar = positives.bar, other_bar = negatives.bar, from = first + i, start = *seed;
        for (int64_t k = 0; k < count; ++k) {
          keys[k] = random_key(start, from + k);
          const L label = labels[from + k];
          above[k] = ((label >= L(1)) & (keys[k] > bar)) | ((label == L(0)) & (keys[k] > other_bar));
        }
        for (uint64_t left = nonzero_bits(above); left; left &= left - 1) {
          const int64_t k = __builtin_ctzll(left);
          (labels[from + k] >= L(1) ? positives : negatives).add(keys[k], from + k);
        }
      }
      keep_best(positives.found, s.most_positive);
      keep_best(negatives.found, s.samples - int64_t(positives.found.size()));
      memset(positive + first, 0, size_t(s.labels));
      memset(negative + first, 0, size_t(s.labels));
      for (const auto& one : positives.found) positive[one.index] = true;
      for (const auto& one : negatives.found) negative[one.index] = true;
    }
  });
}

#define INSTANTIATE(L) \
  template void sample_labels(const SampleShape&, const L*, const int64_t*, bool*, bool*, const CpuExec&);
INSTANTIATE(int64_t)
INSTANTIATE(float)
#undef INSTANTIATE

}  // namespace fastvision
