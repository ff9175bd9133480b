// Selection by a score and, among equals, by the index: a total order, so that any way to select gives the same.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace fastvision {

template <class A>
struct Ranked {
  A score;
  int64_t index;
};
template <class A>
struct InOrder {
  bool operator()(const Ranked<A>& a, const Ranked<A>& b) const {
    return a.score > b.score || (a.score == b.score && a.index < b.index);
  }
};

// Leaves the first k, in no order but that the last of them is at the end.
template <class A>
void keep_best(std::vector<Ranked<A>>& found, int64_t k) {
  if (int64_t(found.size()) <= k) return;
  if (k > 0) std::nth_element(found.begin(), found.begin() + (k - 1), found.end(), InOrder<A>());
  found.resize(size_t(k));
}

}  // namespace fastvision
