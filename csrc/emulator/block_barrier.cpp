#include <cstring>
#include <vector>

#include "scheduler.h"

namespace fastvision::emulator {
namespace {

// Counts the threads that have not returned, as hardware does since Volta.
struct Barrier {
  unsigned arrived = 0, phase = 0, first = 0;
  int votes = 0;
  Vote vote = Vote::none;
  int result[2] = {};  // by parity of the phase: some threads read it when others are at the next barrier
} barrier;
std::vector<unsigned> waiting;

// Addresses for ThreadSanitizer, by parity of the block and the phase. With a single one, fast threads that have
// reached the next barrier would seem to have synchronised with slow ones that still leave this one.
char order[2][2];

bool same(const Location& a, const Location& b) {
  if (std::memcmp(&a, &b, sizeof a) == 0) return true;
  return a.line() == b.line() && a.column() == b.column() && std::strcmp(a.file_name(), b.file_name()) == 0 &&
         std::strcmp(a.function_name(), b.function_name()) == 0;
}

void release() {
  const int votes = barrier.votes;
  int& result = barrier.result[barrier.phase % 2];
  switch (barrier.vote) {
    case Vote::none:
    case Vote::count: result = votes; break;
    case Vote::all: result = unsigned(votes) == barrier.arrived; break;
    case Vote::any: result = votes > 0; break;
  }
  waiting.clear();
  for (Thread& thread : block.threads)
    if (thread.state == State::at_block_barrier) {
      thread.state = State::runnable;
      waiting.push_back(thread.number);
    }
  make_runnable(waiting.data(), waiting.size());
  barrier.arrived = 0;
  barrier.votes = 0;
  ++barrier.phase;
  note_progress();
}

}  // namespace

void begin_block_barrier() { barrier = {}; }

int block_barrier(Vote vote, bool predicate, const Location& here) {
  Thread& thread = *block.current;
  const IgnoreAccesses ignore;
  if (barrier.arrived == 0) {
    barrier.vote = vote;
    barrier.first = thread.number;
  } else {
    const Thread& first = block.threads[barrier.first];
    if (vote != barrier.vote || !same(first.here, here))
      fail(text("divergent barrier: this thread is at ", At{here}, ", thread ", first.index, " waits at ",
                At{first.here}),
           here);
  }
  thread.wait_in(State::at_block_barrier, "__syncthreads", here);
  barrier.votes += predicate;
  const unsigned phase = barrier.phase % 2;
  publish(&order[block.serial % 2][phase]);
  if (++barrier.arrived == block.live) release();
  suspend();
  observe(&order[block.serial % 2][phase]);
  return barrier.result[phase];
}

void leave_block_barrier() {
  if (barrier.arrived > 0 && barrier.arrived == block.live) release();
}

}  // namespace fastvision::emulator
