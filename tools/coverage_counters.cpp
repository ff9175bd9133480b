// What libFuzzer watches of a library built with -fsanitize-coverage=trace-pc (tools/libfuzzer.py): a counter per place
// that was passed.

#include <cstddef>
#include <cstdint>

namespace {
constexpr size_t kCounters = 1 << 16;
uint8_t counters[kCounters];
}  // namespace

#define FV_WATCHED extern "C" __attribute__((visibility("default"), no_sanitize_coverage))

FV_WATCHED void __sanitizer_cov_trace_pc() {
  const uintptr_t pc = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  ++counters[(pc ^ pc >> 16) % kCounters];
}
FV_WATCHED uint8_t* fuzz_counters() { return counters; }
FV_WATCHED size_t fuzz_counters_size() { return kCounters; }
