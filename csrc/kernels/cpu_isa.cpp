#include "cpu_isa.h"

#include <stdlib.h>

#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace fastvision {
namespace {

CpuIsa initial_isa() {
  const char* wanted = getenv("FASTVISION_CPU_ISA");
  if (!wanted) return best_cpu_isa();
  for (const CpuIsa isa : {CpuIsa::baseline, CpuIsa::avx2, CpuIsa::avx512})
    if (strcmp(wanted, name_of(isa)) == 0 && isa <= best_cpu_isa()) return isa;
  return best_cpu_isa();
}

#if defined(__x86_64__)
// Leaf 7 of cpuid: what __builtin_cpu_supports knows of it depends on the compiler.
struct Features {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};
Features features(unsigned part) {
  Features f;
  if (!__get_cpuid_count(7, part, &f.eax, &f.ebx, &f.ecx, &f.edx)) return {};
  return f;
}
#endif

std::atomic<CpuIsa>& current() {
  static std::atomic<CpuIsa> isa{initial_isa()};
  return isa;
}

}  // namespace

CpuIsa best_cpu_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const auto has = [](auto... yes) { return (... && yes); };
  if (!has(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("fma"), __builtin_cpu_supports("bmi2")))
    return CpuIsa::baseline;
  if (!has(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bw"), __builtin_cpu_supports("avx512cd"),
           __builtin_cpu_supports("avx512dq"), __builtin_cpu_supports("avx512vl")))
    return CpuIsa::avx2;
  return CpuIsa::avx512;
#else
  return CpuIsa::baseline;
#endif
}

CpuIsa cpu_isa() { return current().load(std::memory_order_relaxed); }

void set_cpu_isa(CpuIsa isa) {
  if (isa <= best_cpu_isa()) current().store(isa, std::memory_order_relaxed);
}

#if defined(__x86_64__)
const char* bfloat16_products() {
  const Features seven = features(0);
  if (seven.edx >> 22 & 1) return "matrices";                         // AMX-BF16
  const bool vectors = seven.eax >= 1 && (features(1).eax >> 5 & 1);  // AVX512_BF16
  return vectors && best_cpu_isa() == CpuIsa::avx512 ? "vectors" : "float32";
}
const char* float16_products() {
  const Features seven = features(0);
  if (seven.eax >= 1 && (features(1).eax >> 21 & 1)) return "matrices";  // AMX-FP16
  const bool vectors = seven.edx >> 23 & 1;                              // AVX512_FP16
  return vectors && best_cpu_isa() == CpuIsa::avx512 ? "vectors" : "float32";
}
#else
const char* bfloat16_products() { return "unknown"; }
const char* float16_products() { return "unknown"; }
#endif

const char* name_of(CpuIsa isa) { return isa == CpuIsa::avx512 ? "avx512" : isa == CpuIsa::avx2 ? "avx2" : "baseline"; }

}  // namespace fastvision
