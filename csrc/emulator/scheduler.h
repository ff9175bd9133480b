// The threads of the block that runs now, and which of them goes on. Blocks run one after another, threads one at a
// time.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "fiber.h"
#include "runtime.h"

namespace fastvision::emulator {

enum class State : std::uint8_t { not_started, runnable, at_block_barrier, in_warp_operation, finished };

inline constexpr std::size_t kMaxStaticSharedBytes = 48 * 1024;
inline constexpr std::size_t kMaxSharedBytes = 163 * 1024;  // of a block, on compute capability 8.0

struct QueuedCopy {
  void* to;
  const void* from;
  int bytes, source_bytes;
  int group;
};

struct Thread {
  uint3 index{};
  unsigned number = 0, lane = 0, warp = 0;
  State state = State::not_started;
  Fiber* fiber = nullptr;

  // Where it waits, for messages.
  const char* operation = "";
  Location here;
  unsigned mask = 0;

  std::vector<QueuedCopy> copies;
  int committed_groups = 0;

  void wait_in(State waiting, const char* name, const Location& at) {
    state = waiting;
    operation = name;
    here = at;
  }
};

struct Block {
  std::uint64_t serial = 0;  // counts the blocks of all launches
  std::vector<Thread> threads;
  Thread* current = nullptr;
  unsigned live = 0;  // threads that have not finished
};
extern Block block;

// launch.cpp: what is running.
struct Launch {
  void (*thread)(const void*) = nullptr;
  const void* context = nullptr;
  std::size_t dynamic_shared_bytes = 0;
  std::uint64_t random = 0;  // state of the generator
  char start = 0, end = 0;   // addresses for publish and observe
};
extern Launch launched;
std::uint64_t next_random();

void run_block();
void abandon_block();  // after an error
void suspend();        // the current thread waits, another runs
// Orders these threads, all of them able to run now, as the configuration says.
void make_runnable(unsigned* threads, std::size_t count);
void note_progress();  // something happened for which a spinning thread may have waited

// What the scheduler tells the others.
void begin_block_barrier();
void begin_warps();
void begin_shared_memory();
void leave_block_barrier();             // a thread has returned
void leave_warp(const Thread& thread);  // a thread has returned

// Texts of messages.
struct At {
  const Location& here;
};
std::ostream& operator<<(std::ostream& out, const At& at);  // file.cu:12
std::ostream& operator<<(std::ostream& out, const uint3& index);
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  ((out << parts), ...);
  return out.str();
}

}  // namespace fastvision::emulator
