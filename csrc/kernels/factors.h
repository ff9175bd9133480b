// CPU: what maps are multiplied with.
#pragma once

#include <vector>

#include "simd.h"

namespace fastvision {
namespace {

// Weights or biases in the type of the sums, and whether a product with 0 is 0 for all of them.
template <class T>
struct Factors {
  const Accum<T>* at;
  bool finite = true;

  Factors(const T* from, int64_t count) {
    if constexpr (sizeof(T) == sizeof(Accum<T>)) {
      at = from;
    } else {
      copy_.resize(size_t(count));
      for (int64_t i = 0; i < count; ++i) copy_[i] = to_accum(from[i]);
      at = copy_.data();
    }
    Vec<Accum<T>> differences(Accum<T>(0));
    for_each_vector<Accum<T>>(count, [&](int64_t i, int, auto n) FV_INLINE {
      const Vec<Accum<T>> v = load_vector(at + i, n);
      differences = differences + (v - v);
    });
    finite = sum_of(differences) == 0;
  }

 private:
  std::vector<Accum<T>> copy_;
};

}  // namespace
}  // namespace fastvision
