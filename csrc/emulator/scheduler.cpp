#include "scheduler.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iomanip>
#include <string_view>
#include <utility>

namespace fastvision::emulator {

Block block;

namespace {

// Runnable threads; the last one runs next, except that an even seed of the random order takes any of them.
std::vector<unsigned> runnable, all;
std::exception_ptr error;  // thrown by the kernel

// A thread whose atomics change nothing may wait for a thread that does not run: after so many it lets others run, and
// when that happens so often without any other event, no thread will ever go on.
constexpr unsigned kIdleAtomicsPerTurn = 4096, kIdleTurns = 5000;
unsigned idle_atomics = 0, idle_turns = 0;

bool shuffled() { return config().order == Order::random && config().seed % 2 == 1; }
bool uniform() { return config().order == Order::random && config().seed % 2 == 0; }

unsigned take_runnable() {
  if (uniform()) std::swap(runnable[next_random() % runnable.size()], runnable.back());
  const unsigned thread = runnable.back();
  runnable.pop_back();
  return thread;
}

void begin_turn(Thread& thread) {
  block.current = &thread;
  threadIdx = thread.index;
  idle_atomics = 0;
}

void finish(Thread& thread) {
  const IgnoreAccesses ignore;
  thread.state = State::finished;
  --block.live;
  note_progress();
  publish(&launched.end);
  if (error) return;
  try {
    leave_warp(thread);
    leave_block_barrier();
  } catch (...) {
    error = std::current_exception();
  }
}

void run_fiber() {
  fiber_entered(*block.current->fiber);
  for (;;) {
    observe(&launched.start);
    try {
      launched.thread(launched.context);
    } catch (...) {
      if (!error) error = std::current_exception();
    }
    finish(*block.current);
    // A thread that has finished hands its stack to the next one that has not started: no switch, so a kernel without
    // barriers costs a function call per thread. ThreadSanitizer needs a fiber per thread.
    if (kThreadSanitizer || error || runnable.empty()) break;
    const unsigned next = take_runnable();
    Thread& thread = block.threads[next];
    if (thread.state != State::not_started) {
      runnable.push_back(next);
      break;
    }
    thread.fiber = block.current->fiber;
    thread.state = State::runnable;
    begin_turn(thread);
  }
  leave_fiber(*block.current->fiber, true);
  std::abort();  // a finished fiber starts again through prepare()
}

[[maybe_unused]] void name_fiber(const Thread& thread) {  // for reports; printf because this happens for every thread
  char name[100];
  std::snprintf(name, sizeof name, "block (%u,%u,%u) thread (%u,%u,%u)", blockIdx.x, blockIdx.y, blockIdx.z,
                thread.index.x, thread.index.y, thread.index.z);
  name_sanitizer_fiber(thread.fiber->record.fiber, name);
}

void run(Thread& thread) {
  if (thread.state == State::not_started) {
    thread.fiber = take_fiber(thread.number, block.serial, &run_fiber);
    if constexpr (kThreadSanitizer) name_fiber(thread);
  }
  thread.state = State::runnable;
  begin_turn(thread);
  enter_fiber(*thread.fiber);
  Thread& last = *block.current;  // a stack may have played several threads meanwhile
  if (last.state == State::finished) give_back_fiber(last.fiber);
}

[[noreturn]] void report_deadlock() {
  struct Group {
    std::string waits;
    std::vector<unsigned> threads;
  };
  std::vector<Group> groups;
  std::size_t finished = 0;
  for (const Thread& thread : block.threads) {
    if (thread.state == State::finished) {
      ++finished;
      continue;
    }
    std::string waits = text(thread.operation, " at ", At{thread.here});
    if (thread.state == State::in_warp_operation)
      waits += text(" (warp ", thread.warp, ", mask 0x", std::hex, std::setfill('0'), std::setw(8), thread.mask, ")");
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.waits == waits; });
    if (group == groups.end()) group = groups.insert(groups.end(), Group{waits, {}});
    group->threads.push_back(thread.number);
  }
  std::ostringstream out;
  out << "deadlock in block " << blockIdx << ":";
  for (const Group& group : groups) {
    out << "\n  " << group.threads.size() << " thread(s) wait in " << group.waits << ", threads";
    for (std::size_t first = 0, last; first < group.threads.size(); first = last + 1) {
      last = first;
      while (last + 1 < group.threads.size() && group.threads[last + 1] == group.threads[last] + 1) ++last;
      out << ' ' << group.threads[first];
      if (last > first) out << '-' << group.threads[last];
    }
  }
  if (finished) out << "\n  " << finished << " thread(s) have returned";
  throw Error(out.str());
}

}  // namespace

void make_runnable(unsigned* threads, std::size_t count) {
  if (shuffled())
    for (std::size_t i = count; i > 1; --i) std::swap(threads[i - 1], threads[next_random() % i]);
  if (config().order != Order::reverse) std::reverse(threads, threads + count);
  runnable.insert(runnable.end(), threads, threads + count);
}

void note_progress() {
  idle_atomics = 0;
  idle_turns = 0;
}

void suspend() { leave_fiber(*block.current->fiber, false); }

void spin(const Location& here) {
  if (++idle_atomics < kIdleAtomicsPerTurn) return;
  if (++idle_turns > kIdleTurns) fail("livelock: threads only spin on atomics", here);
  const IgnoreAccesses ignore;
  runnable.insert(runnable.begin(), block.current->number);
  suspend();
}

void run_block() {
  ++block.serial;
  block.live = unsigned(block.threads.size());
  runnable.clear();
  note_progress();
  all.resize(block.threads.size());
  for (Thread& thread : block.threads) {
    all[thread.number] = thread.number;
    thread.state = State::not_started;
    thread.copies.clear();
    thread.committed_groups = 0;
  }
  begin_block_barrier();
  begin_warps();
  begin_shared_memory();
  make_runnable(all.data(), all.size());
  while (block.live > 0) {
    if (runnable.empty()) report_deadlock();
    run(block.threads[take_runnable()]);
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
  }
}

void abandon_block() {
  for (Thread& thread : block.threads) {
    if (thread.state != State::not_started && thread.state != State::finished)
      abandon_fiber(thread.fiber, thread.number, block.serial);
    thread.state = State::finished;
  }
}

std::ostream& operator<<(std::ostream& out, const At& at) {
  const std::string_view path = at.here.file_name();
  return out << path.substr(path.rfind('/') + 1) << ':' << at.here.line();
}

std::ostream& operator<<(std::ostream& out, const uint3& index) {
  return out << '(' << index.x << ',' << index.y << ',' << index.z << ')';
}

void fail(const std::string& what, const Location& here) {
  const std::string thread = block.current ? text(" thread ", block.current->index) : "";
  throw Error(text(what, " [", At{here}, ", block ", blockIdx, thread, "]"));
}

}  // namespace fastvision::emulator
