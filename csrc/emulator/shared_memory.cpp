// Every shared variable is a heap block of its own and of its exact size, so that AddressSanitizer sees a step outside.
// At the start of a block it holds 0xff bytes (NaN, -1): on a GPU it would hold anything.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "scheduler.h"

namespace fastvision::emulator {
namespace {

constexpr int kPoison = 0xff;

std::vector<const SharedVariable*> in_use;  // by this block
std::size_t static_bytes = 0;
char* dynamic = nullptr;
std::size_t dynamic_bytes = 0;

void* allocate(std::size_t alignment, std::size_t bytes) {
  void* p = nullptr;
  if (posix_memalign(&p, alignment, bytes) != 0) throw Error("out of memory for shared memory");
  return p;
}

bool contains(const void* memory, std::size_t size, const void* p, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(memory), at = reinterpret_cast<std::uintptr_t>(p);
  return at >= begin && at + bytes <= begin + size;
}

bool is_shared(const void* p, std::size_t bytes) {
  if (dynamic && contains(dynamic, dynamic_bytes, p, bytes)) return true;
  for (const SharedVariable* variable : in_use)
    if (contains(variable->memory, variable->bytes, p, bytes)) return true;
  return false;
}

}  // namespace

void begin_shared_memory() {
  const IgnoreAccesses ignore;
  in_use.clear();
  static_bytes = 0;
  const std::size_t bytes = launched.dynamic_shared_bytes;
  if (bytes != dynamic_bytes || kThreadSanitizer) {  // for ThreadSanitizer each block has its own memory, as in CUDA
    std::free(dynamic);
    dynamic = nullptr;
    dynamic_bytes = bytes;
    if (bytes) dynamic = static_cast<char*>(allocate(128, bytes));
  }
  if (dynamic) std::memset(dynamic, kPoison, dynamic_bytes);
}

void* shared_memory(SharedVariable& variable, const Location& here) {
  if (variable.block == block.serial) return variable.memory;
  const IgnoreAccesses ignore;
  if (kThreadSanitizer && variable.memory) {
    std::free(variable.memory);
    variable.memory = nullptr;
  }
  if (!variable.memory) variable.memory = allocate(16, variable.bytes);
  std::memset(variable.memory, kPoison, variable.bytes);
  variable.block = block.serial;
  in_use.push_back(&variable);
  static_bytes += variable.bytes;
  if (static_bytes > kMaxStaticSharedBytes)
    fail(text("more than 48 KiB of static shared memory: ", static_bytes, " bytes with ", variable.name), here);
  if (static_bytes + dynamic_bytes > kMaxSharedBytes)
    fail(text("more than 163 KiB of shared memory: ", static_bytes, " bytes static, ", dynamic_bytes, " dynamic"),
         here);
  return variable.memory;
}

void* dynamic_shared_memory(const Location& here) {
  if (!dynamic) fail("the kernel uses dynamic shared memory but was launched with none", here);
  return dynamic;
}

void check_shared(const char* what, const void* p, std::size_t bytes, std::size_t alignment, const Location& here) {
  if (reinterpret_cast<std::uintptr_t>(p) % alignment)
    fail(text(what, ": address not aligned to ", alignment, " bytes"), here);
  if (!is_shared(p, bytes)) fail(text(what, ": address is not in shared memory"), here);
}

void check_copy(const void* to, const void* from, int bytes, int source_bytes, const Location& here) {
  check_shared("cp.async destination", to, std::size_t(bytes), std::size_t(bytes), here);
  if (reinterpret_cast<std::uintptr_t>(from) % std::uintptr_t(bytes))
    fail(text("cp.async source: address not aligned to ", bytes, " bytes"), here);
  if (source_bytes < 0 || source_bytes > bytes)
    fail(text("cp.async: expected 0 to ", bytes, " source bytes, got ", source_bytes), here);
  if (source_bytes && is_shared(from, 1)) fail("cp.async source: address is in shared memory", here);
}

}  // namespace fastvision::emulator
