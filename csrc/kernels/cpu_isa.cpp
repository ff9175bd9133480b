#include "cpu_isa.h"

#include <stdlib.h>

#include <atomic>

namespace fastvision {
namespace {

CpuIsa initial_isa() {
  const char* wanted = getenv("FASTVISION_CPU_ISA");
  if (!wanted) return best_cpu_isa();
  for (const CpuIsa isa : {CpuIsa::baseline, CpuIsa::avx2, CpuIsa::avx512})
    if (strcmp(wanted, name_of(isa)) == 0 && isa <= best_cpu_isa()) return isa;
  return best_cpu_isa();
}

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
  __builtin_cpu_init();
  return __builtin_cpu_supports("amx-bf16") ? "matrices" : __builtin_cpu_supports("avx512bf16") ? "vectors" : "float32";
}
const char* float16_products() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512fp16") ? "vectors" : "float32";
}
#else
const char* bfloat16_products() { return "unknown"; }
const char* float16_products() { return "unknown"; }
#endif

const char* name_of(CpuIsa isa) { return isa == CpuIsa::avx512 ? "avx512" : isa == CpuIsa::avx2 ? "avx2" : "baseline"; }

}  // namespace fastvision
