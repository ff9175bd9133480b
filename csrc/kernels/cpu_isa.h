// Which instruction set the CPU twins use on this machine.
#pragma once

#include <type_traits>

#include "common.h"

namespace fastvision {

enum class CpuIsa : int { baseline, avx2, avx512 };

// The best one that the machine and this build have, unless the environment variable FASTVISION_CPU_ISA or
// set_cpu_isa() asked for a lesser one.
CpuIsa cpu_isa();
CpuIsa best_cpu_isa();
void set_cpu_isa(CpuIsa);
const char* name_of(CpuIsa);

// What this processor multiplies 16-bit floats with: "float32" (it has to widen them), "vectors", "matrices", or
// "unknown".
const char* bfloat16_products();
const char* float16_products();

// Calls f with std::type_identity<Baseline>, <Avx2> or <Avx512>.
template <class F>
void with_cpu_isa(F&& f) {
  switch (cpu_isa()) {
#if defined(__x86_64__)
    case CpuIsa::avx512: return f(std::type_identity<Avx512>());
    case CpuIsa::avx2: return f(std::type_identity<Avx2>());
#endif
    default: return f(std::type_identity<Baseline>());
  }
}

}  // namespace fastvision
