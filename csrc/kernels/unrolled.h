// Loops that are written out while compiling.
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

}  // namespace fastvision
