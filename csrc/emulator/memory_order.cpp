// Atomics are relaxed and fences order them, as in C++: what a thread does before a fence is visible to a thread that
// reads, by an atomic before a fence of its own, what the first has written by an atomic after its fence. Values are
// always sequentially consistent here; this tells ThreadSanitizer what a kernel may rely on.
//
// An atomic after a fence publishes all that the thread has done, even after the fence: a second fence that is missing
// in the same thread and block does not show. The exact rule would reject two idioms that are right on every GPU: the
// last block resets its ticket by a plain store, and one thread signals for all after each has fenced and a barrier.
#include <algorithm>

#include "scheduler.h"

namespace fastvision::emulator {

void after_atomic(const void* p, bool changed, const Location& here) {
  if constexpr (kThreadSanitizer) {
    FenceState& fences = block.current->fiber->fences;
    if (fences.fenced) publish(p);
    fences.atomics[fences.atomic_count++ % FenceState::kRemembered] = p;
  }
  if (changed) note_progress();
  else spin(here);
}

void fence() {
  if constexpr (kThreadSanitizer) {
    FenceState& fences = block.current->fiber->fences;
    for (unsigned i = 0; i < std::min(fences.atomic_count, FenceState::kRemembered); ++i) observe(fences.atomics[i]);
    fences.atomic_count = 0;
    fences.fenced = true;
  }
}

}  // namespace fastvision::emulator
