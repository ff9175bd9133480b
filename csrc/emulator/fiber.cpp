#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "runtime.h"

namespace fastvision::emulator {
namespace {

Context main_context;
StackRecord main_stack;

// Without ThreadSanitizer any thread may use any stack. Never destroyed, so that no leak is reported at the end.
std::vector<Fiber*>& spare = *new std::vector<Fiber*>;

// ThreadSanitizer takes a fiber for a thread, so what one fiber does in two blocks is never a race. Making a new fiber
// per block and thread would cost 0.7 ms each; two sets that never synchronise with each other, for blocks of odd and
// even number, show every race between neighbouring blocks.
std::vector<Fiber*> by_thread[2];

Fiber* new_fiber() {
  // Only the pages that are used take memory. The lowest is a guard, so that an overflow is a fault.
  const std::size_t guard = std::size_t(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, guard + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, guard, PROT_NONE) != 0)
    throw Error("cannot allocate the stack of a thread");
  auto* fiber = new Fiber;
  fiber->stack = static_cast<char*>(memory) + guard;
  fiber->record = {fiber->stack, kStackBytes, nullptr, new_sanitizer_fiber()};
  return fiber;
}

Fiber*& fiber_of(unsigned thread, std::uint64_t block_serial) {
  auto& set = by_thread[block_serial % 2];
  if (set.size() <= thread) set.resize(thread + 1, nullptr);
  return set[thread];
}

}  // namespace

void begin_fibers() { main_stack.fiber = current_sanitizer_fiber(); }

Fiber* take_fiber(unsigned thread, std::uint64_t block_serial, void (*entry)()) {
  Fiber* fiber = nullptr;
  if constexpr (kThreadSanitizer) {
    Fiber*& own = fiber_of(thread, block_serial);
    if (!own) own = new_fiber();
    fiber = own;
  } else if (spare.empty()) {
    fiber = new_fiber();
  } else {
    fiber = spare.back();
    spare.pop_back();
  }
  renew_stack(fiber->record);
  fiber->fences = {};
  prepare(fiber->context, fiber->stack, kStackBytes, entry);
  return fiber;
}

void give_back_fiber(Fiber* fiber) {
  if constexpr (!kThreadSanitizer) spare.push_back(fiber);
}

void abandon_fiber(Fiber* fiber, unsigned thread, std::uint64_t block_serial) {
  if constexpr (kThreadSanitizer)
    fiber_of(thread, block_serial) = nullptr;  // lost: ThreadSanitizer does not let go of a fiber inside a function
  else spare.push_back(fiber);
}

void enter_fiber(Fiber& fiber) {
  before_switch(&main_stack, fiber.record);
  switch_stack(main_context, fiber.context);
  after_switch(main_stack, fiber.record);
}

void leave_fiber(Fiber& fiber, bool for_good) {
  before_switch(for_good ? nullptr : &fiber.record, main_stack);
  switch_stack(fiber.context, main_context);
  after_switch(fiber.record, main_stack);
}

void fiber_entered(Fiber& fiber) { after_switch(fiber.record, main_stack); }

}  // namespace fastvision::emulator
