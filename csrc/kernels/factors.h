// CPU: what maps are multiplied with.
#pragma once

#include <vector>

#include "common.h"

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
    for (int64_t i = 0; i < count; ++i) finite &= at[i] - at[i] == 0;
  }

 private:
  std::vector<Accum<T>> copy_;
};

}  // namespace
}  // namespace fastvision
