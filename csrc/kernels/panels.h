// Second factors of matrix products laid out by panels of as many columns as are multiplied together, so that a panel
// stays in the first cache while all rows of the first factor meet it.
#pragma once

#include <algorithm>
#include <vector>

#include "product.h"

namespace fastvision {
namespace {

constexpr int64_t kPanelDepth = 128;  // of a panel that the first cache holds

// Numbers per row of the sums of products.
template <class A>
int64_t padded(int64_t columns) {
  return ceil_div(columns, kPanel<A>) * kPanel<A>;
}

// Numbers [first, first + count) of row k of a second factor of `depth` rows.
template <class T>
void store_row(const T* from, int64_t first, int64_t count, int64_t k, int64_t depth, Accum<T>* panels) {
  for (int64_t c = first, next; c < first + count; from += next - c, c = next) {
    const int64_t panel = c / kPanel<Accum<T>> * kPanel<Accum<T>>;
    next = min_of(panel + kPanel<Accum<T>>, first + count);
    copy_numbers(from, next - c, panels + panel * depth + k * kPanel<Accum<T>> + c - panel);
  }
}

// sums += a times the second factor, of which panels is (panel, depth, column). sums: (row, padded column).
template <class A>
void add_panels(int64_t rows, int64_t columns, int64_t depth, Factor<A> a, const A* panels, A* sums) {
  for (int64_t k = 0; k < depth; k += kPanelDepth)
    for (int64_t c = 0; c < columns; c += kPanel<A>)
      add_product(rows, min_of(kPanel<A>, columns - c), min_of(kPanelDepth, depth - k),
                  Factor<A>{a.at + k * a.by_depth, a.by_row, a.by_depth}, panels + c * depth + k * kPanel<A>, kPanel<A>,
                  sums + c, padded<A>(columns));
}

constexpr int64_t kSpan = 4096;  // pixels whose products are added up by themselves: bounds rounding errors

// Adds the sums of a span, which are zero afterwards.
template <class A>
void add_span(std::vector<A>& span, A* sums) {
  for (size_t i = 0; i < span.size(); ++i) sums[i] += span[i];
  std::fill(span.begin(), span.end(), A(0));
}

}  // namespace
}  // namespace fastvision
