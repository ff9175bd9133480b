// cp.async as late as it may happen: at the wait. A kernel that reads before sees what it wrote at the issue, which the
// device-facing side poisons.
#include <cstring>

#include "scheduler.h"

namespace fastvision::emulator {
namespace {

// Through pointers, because an inlined copy would escape the sanitizers, which look at calls of the C library.
void* (*volatile copy_bytes)(void*, const void*, std::size_t) = std::memcpy;
void* (*volatile fill_bytes)(void*, int, std::size_t) = std::memset;

void copy_groups_before(int group) {
  std::vector<QueuedCopy>& copies = block.current->copies;
  std::size_t kept = 0;
  for (const QueuedCopy& copy : copies) {
    if (copy.group >= group) {
      copies[kept++] = copy;
      continue;
    }
    char* const to = static_cast<char*>(copy.to);
    if (copy.source_bytes) copy_bytes(to, copy.from, std::size_t(copy.source_bytes));
    if (copy.source_bytes < copy.bytes)
      fill_bytes(to + copy.source_bytes, 0, std::size_t(copy.bytes - copy.source_bytes));
  }
  copies.resize(kept);
}

}  // namespace

void queue_copy(void* to, const void* from, int bytes, int source_bytes) {
  const IgnoreAccesses ignore;
  Thread& thread = *block.current;
  thread.copies.push_back({to, from, bytes, source_bytes, thread.committed_groups});
}

void commit_copies() { ++block.current->committed_groups; }
void wait_for_copies(int groups_left) { copy_groups_before(block.current->committed_groups - groups_left); }
void wait_for_all_copies() { copy_groups_before(block.current->committed_groups + 1); }

}  // namespace fastvision::emulator
