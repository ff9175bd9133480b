// What AddressSanitizer and ThreadSanitizer must be told, because they cannot see a switch of stacks. The runtime
// itself is compiled without -fsanitize; FV_EMULATOR_ASAN or FV_EMULATOR_TSAN says what the kernels are compiled with.
#pragma once

#include <cstddef>

#if defined(FV_EMULATOR_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(FV_EMULATOR_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_ignore_thread_begin();
extern "C" void __tsan_ignore_thread_end();
#endif

namespace fastvision::emulator {

#if defined(FV_EMULATOR_TSAN)
inline constexpr bool kThreadSanitizer = true;
inline constexpr std::size_t kStackBytes = 48 * 1024;  // up to 2048 of them, none ever freed
#elif defined(FV_EMULATOR_ASAN)
inline constexpr bool kThreadSanitizer = false;
inline constexpr std::size_t kStackBytes = 256 * 1024;  // red zones make frames larger
#else
inline constexpr bool kThreadSanitizer = false;
inline constexpr std::size_t kStackBytes = 128 * 1024;
#endif

// A stack as the sanitizers know it.
struct StackRecord {
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  void* fake_stack = nullptr;  // AddressSanitizer
  void* fiber = nullptr;       // ThreadSanitizer
};

// `from` is null when that stack is left for good.
inline void before_switch([[maybe_unused]] StackRecord* from, [[maybe_unused]] const StackRecord& to) {
#if defined(FV_EMULATOR_ASAN)
  __sanitizer_start_switch_fiber(from ? &from->fake_stack : nullptr, to.bottom, to.bytes);
#elif defined(FV_EMULATOR_TSAN)
  __tsan_switch_to_fiber(to.fiber, __tsan_switch_to_fiber_no_sync);
#endif
}
inline void after_switch([[maybe_unused]] const StackRecord& now, [[maybe_unused]] StackRecord& came_from) {
#if defined(FV_EMULATOR_ASAN)
  __sanitizer_finish_switch_fiber(now.fake_stack, &came_from.bottom, &came_from.bytes);
#endif
}

// A stack that another thread has used is clean again.
inline void renew_stack([[maybe_unused]] StackRecord& stack) {
  stack.fake_stack = nullptr;
#if defined(FV_EMULATOR_ASAN)
  __asan_unpoison_memory_region(stack.bottom, stack.bytes);
#endif
}

inline void* new_sanitizer_fiber() {
#if defined(FV_EMULATOR_TSAN)
  return __tsan_create_fiber(0);
#else
  return nullptr;
#endif
}
inline void* current_sanitizer_fiber() {
#if defined(FV_EMULATOR_TSAN)
  return __tsan_get_current_fiber();
#else
  return nullptr;
#endif
}
inline void name_sanitizer_fiber([[maybe_unused]] void* fiber, [[maybe_unused]] const char* name) {
#if defined(FV_EMULATOR_TSAN)
  __tsan_set_fiber_name(fiber, name);
#endif
}

// Happens-before: what is done before publish(p) is visible after a later observe(p).
inline void publish([[maybe_unused]] const void* p) {
#if defined(FV_EMULATOR_TSAN)
  __tsan_release(const_cast<void*>(p));
#endif
}
inline void observe([[maybe_unused]] const void* p) {
#if defined(FV_EMULATOR_TSAN)
  __tsan_acquire(const_cast<void*>(p));
#endif
}

// While it lives, calls of malloc, memset and the like are the runtime's own and no accesses of the kernel.
class IgnoreAccesses {
 public:
#if defined(FV_EMULATOR_TSAN)
  IgnoreAccesses() { __tsan_ignore_thread_begin(); }
  ~IgnoreAccesses() { __tsan_ignore_thread_end(); }
#else
  IgnoreAccesses() {}
#endif
  IgnoreAccesses(const IgnoreAccesses&) = delete;
  IgnoreAccesses& operator=(const IgnoreAccesses&) = delete;
};

}  // namespace fastvision::emulator
