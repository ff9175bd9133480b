// Leaving one stack and going on on another: all that a fiber needs of the machine.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) && !defined(__aarch64__)
#define FV_EMULATOR_UCONTEXT
#endif
#if defined(FV_EMULATOR_UCONTEXT)
#include <ucontext.h>
#endif

namespace fastvision::emulator {

#if defined(FV_EMULATOR_UCONTEXT)
// POSIX, for any other machine. Ten times slower, because it also switches the signal mask, which is a system call.
struct Context {
  ucontext_t registers;
};
inline void switch_stack(Context& from, Context& to) { swapcontext(&from.registers, &to.registers); }
#else
extern "C" void fastvision_emulator_switch(void** save_stack_pointer, void* stack_pointer);

// The registers that a function must preserve lie on the stack.
struct Context {
  void* stack_pointer = nullptr;
};
inline void switch_stack(Context& from, Context& to) {
  fastvision_emulator_switch(&from.stack_pointer, to.stack_pointer);
}
#endif

// Makes the next switch to `context` call `entry`, which must never return, on the given memory.
void prepare(Context& context, char* stack, std::size_t bytes, void (*entry)());

}  // namespace fastvision::emulator
