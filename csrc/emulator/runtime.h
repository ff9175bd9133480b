// What the device-facing headers ask of the runtime. Kernels and these headers are compiled with the sanitizers, the
// runtime without: so a sanitizer sees the kernel's own accesses and nothing of the machinery.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "vector_types.h"

// A last parameter that holds the caller's file and line.
#define FV_HERE const ::fastvision::emulator::Location& here = ::fastvision::emulator::Location::current()

inline uint3 threadIdx, blockIdx;  // set by the scheduler whenever another thread runs
inline dim3 blockDim, gridDim;

namespace fastvision::emulator {

using Location = std::source_location;

// A mistake of a kernel or of its launch; the text says where.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
[[noreturn]] void fail(const std::string& what, const Location& here = Location::current());

// How threads are ordered and when copies happen: everything that CUDA leaves open and a kernel must not depend on.
// An even seed picks any runnable thread; an odd one runs a thread as far as the barriers let it, in shuffled order.
enum class Order { forward, reverse, random };
inline constexpr unsigned kMaxBlocks = 65535;
struct Config {
  Order order = Order::forward;
  std::uint64_t seed = 0;
  bool lazy_copies = true;           // asynchronous copies happen at the wait for them, not at once
  unsigned max_blocks = kMaxBlocks;  // of grid_for(): a few make its loops go round more than once
};
Config& config();

// launch.cpp: runs `thread` for every thread of the grid.
void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, void (*thread)(const void*), const void* context,
              const Location& here);

// The size of a grid, and where launch() was called.
struct Grid {
  dim3 size;
  Location here;
  Grid(dim3 size, Location here = Location::current()) : size(size), here(here) {}
  template <class Integer>
    requires std::is_integral_v<Integer>
  Grid(Integer blocks, Location here = Location::current()) : size(unsigned(blocks)), here(here) {}
};

template <class... Parameters>
void run_kernel(void (*kernel)(Parameters...), const Grid& grid, dim3 block, std::size_t shared_bytes,
                std::tuple<Parameters...> arguments) {
  // Each thread gets its own copies. Not std::apply: its frames would fill the sanitizers' reports.
  const auto thread = [&]<std::size_t... I>(std::index_sequence<I...>) { kernel(std::get<I>(arguments)...); };
  const auto call = [&] { thread(std::index_sequence_for<Parameters...>()); };
  run_grid(
      grid.size, block, shared_bytes, [](const void* p) { (*static_cast<decltype(call)*>(p))(); }, &call, grid.here);
}

// block_barrier.cpp: the barrier, and what the threads agree on there.
enum class Vote { none, count, all, any };
int block_barrier(Vote vote, bool predicate, const Location& here);

// warp.cpp: each waits until all lanes of the mask have come, and gives the result of this lane.
unsigned lane_id();
void sync_warp(unsigned mask, const Location& here);
std::uint64_t shuffle(const char* name, unsigned mask, std::uint64_t value, std::size_t bytes, int source_lane,
                      const Location& here);
unsigned ballot(unsigned mask, bool predicate, const Location& here);
unsigned match_any(unsigned mask, std::uint64_t value, std::size_t bytes, const Location& here);
enum class Reduction { add, min, max, min_signed, max_signed, bit_and, bit_or, bit_xor };
std::uint32_t reduce(Reduction reduction, unsigned mask, std::uint32_t value, const Location& here);

// tensor_core.cpp: d = a b + c of 16 x 8 x (16 or 8) elements; 8 x 8 matrices of 16 bits, of which each lane brings a
// row.
enum class MatrixType { bfloat16, half, tf32 };
void multiply_accumulate(MatrixType type, float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                         const float (&c)[4], const Location& here);
void load_matrices(bool transposed, std::uint32_t (&fragment)[4], const std::uint32_t (&row)[4], const Location& here);

// shared_memory.cpp
struct SharedVariable {
  std::size_t bytes;
  const char* name;
  void* memory = nullptr;
  std::uint64_t block = 0;  // the last one that used it
};
void* shared_memory(SharedVariable& variable, const Location& here = Location::current());
void* dynamic_shared_memory(const Location& here = Location::current());
void check_shared(const char* what, const void* p, std::size_t bytes, std::size_t alignment, const Location& here);

// asynchronous_copy.cpp
void check_copy(const void* to, const void* from, int bytes, int source_bytes, const Location& here);
void queue_copy(void* to, const void* from, int bytes, int source_bytes);
void commit_copies();
void wait_for_copies(int groups_left);
void wait_for_all_copies();

// memory_order.cpp: what follows every atomic operation, and fences.
void after_atomic(const void* p, bool changed, const Location& here);
void fence();

// scheduler.cpp: the thread may wait for another, so that one runs now and then.
void spin(const Location& here);

}  // namespace fastvision::emulator
