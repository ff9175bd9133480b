// Loops that are written out while compiling, and counts that the compiler knows.
#pragma once

#include <type_traits>
#include <utility>

#include "common.h"

namespace fastvision {

// Of lambdas for unrolled(): arrays that only they use are then in registers.
#define FV_INLINE __attribute__((always_inline))

// f(0), ..., f(count - 1), with the numbers known to the compiler.
template <int count, class F>
FV_HD void unrolled(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>)
      FV_INLINE { (f(std::integral_constant<int, i>()), ...); }(std::make_integer_sequence<int, count>());
}

// f of min(count, 4), of a count of at least 1, as a constant.
template <class F>
FV_HD void with_constant(int64_t count, F&& f) {
  if (count >= 4) f(std::integral_constant<int, 4>());
  else if (count == 3) f(std::integral_constant<int, 3>());
  else if (count == 2) f(std::integral_constant<int, 2>());
  else f(std::integral_constant<int, 1>());
}

}  // namespace fastvision
