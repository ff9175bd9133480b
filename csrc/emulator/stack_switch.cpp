#include "stack_switch.h"

namespace fastvision::emulator {

#if defined(FV_EMULATOR_UCONTEXT)

void prepare(Context& context, char* stack, std::size_t bytes, void (*entry)()) {
  getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = stack;
  context.registers.uc_stack.ss_size = bytes;
  context.registers.uc_link = nullptr;
  makecontext(&context.registers, entry, 0);
}

#elif defined(__x86_64__)

// System V: rbx, rbp and r12 to r15 belong to the caller.
asm(R"(
  .text
  .p2align 4
  .hidden fastvision_emulator_switch
  .globl fastvision_emulator_switch
  .type fastvision_emulator_switch, @function
fastvision_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size fastvision_emulator_switch, . - fastvision_emulator_switch
)");

void prepare(Context& context, char* stack, std::size_t bytes, void (*entry)()) {
  auto** top = reinterpret_cast<void**>(stack + bytes);
  *--top = nullptr;  // the return address of `entry`: unwinders stop here
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context.stack_pointer = top;
}

#elif defined(__aarch64__)

// AAPCS64: x19 to x30 and d8 to d15 belong to the caller.
asm(R"(
  .text
  .p2align 4
  .hidden fastvision_emulator_switch
  .globl fastvision_emulator_switch
  .type fastvision_emulator_switch, %function
fastvision_emulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
  .size fastvision_emulator_switch, . - fastvision_emulator_switch

  .hidden fastvision_emulator_start
  .globl fastvision_emulator_start
  .type fastvision_emulator_start, %function
fastvision_emulator_start:
  mov x30, xzr
  br x19
  .size fastvision_emulator_start, . - fastvision_emulator_start
)");
extern "C" void fastvision_emulator_start();  // calls the function in x19, with no way back for unwinders

void prepare(Context& context, char* stack, std::size_t bytes, void (*entry)()) {
  auto** frame = reinterpret_cast<void**>(stack + bytes) - 20;
  for (int i = 0; i < 20; ++i) frame[i] = nullptr;
  frame[0] = reinterpret_cast<void*>(entry);                        // x19
  frame[11] = reinterpret_cast<void*>(&fastvision_emulator_start);  // x30
  context.stack_pointer = frame;
}

#endif

}  // namespace fastvision::emulator
