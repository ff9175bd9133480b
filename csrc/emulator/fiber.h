// A fiber plays one CUDA thread: a stack of its own that can be left in the middle of a function and entered again.
#pragma once

#include <cstdint>

#include "sanitizers.h"
#include "stack_switch.h"

namespace fastvision::emulator {

// What the thread has done that matters at its next fence or atomic (memory_order.cpp), under ThreadSanitizer alone.
struct FenceState {
  static constexpr unsigned kRemembered = 8;
  bool fenced = false;
  const void* atomics[kRemembered] = {};  // the latest addresses
  unsigned atomic_count = 0;              // since the last fence
};

struct Fiber {
  char* stack;
  Context context;
  StackRecord record;
  FenceState fences;
};

// Before the first fiber of a launch, on the stack that all fibers return to.
void begin_fibers();

// A fiber for this thread of this block; `entry` starts at the first enter_fiber.
Fiber* take_fiber(unsigned thread, std::uint64_t block_serial, void (*entry)());
void give_back_fiber(Fiber* fiber);
// For a fiber that was left in the middle of a function and will not be entered again.
void abandon_fiber(Fiber* fiber, unsigned thread, std::uint64_t block_serial);

void enter_fiber(Fiber& fiber);
void leave_fiber(Fiber& fiber, bool for_good);
void fiber_entered(Fiber& fiber);  // the first thing that `entry` calls

}  // namespace fastvision::emulator
