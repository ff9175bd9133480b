#include <mutex>
#include <vector>

#include "scheduler.h"

namespace fastvision::emulator {

Launch launched;

namespace {

std::mutex one_at_a_time;

void check_launch(const dim3& grid, const dim3& block_size, std::size_t shared_bytes, const Location& here) {
  const auto bad = [&](const auto&... what) { throw Error(text("invalid launch at ", At{here}, ": ", what...)); };
  const std::uint64_t threads = std::uint64_t(block_size.x) * block_size.y * block_size.z;
  if (threads == 0 || threads > 1024 || block_size.z > 64) bad("block of ", threads, " threads");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    bad("grid ", uint3{grid.x, grid.y, grid.z});
  if (shared_bytes > kMaxSharedBytes) bad("dynamic shared memory of ", shared_bytes, " bytes");
}

void place_threads(const dim3& size) {
  block.threads.resize(std::size_t(size.x) * size.y * size.z);
  unsigned number = 0;
  for (Thread& thread : block.threads) {
    thread.index = {number % size.x, number / size.x % size.y, number / (size.x * size.y)};
    thread.number = number;
    thread.lane = number % 32;
    thread.warp = number / 32;
    ++number;
  }
}

struct EndOfLaunch {
  ~EndOfLaunch() {
    observe(&launched.end);
    block.current = nullptr;
  }
};

}  // namespace

Config& config() {
  static Config configuration;
  return configuration;
}

std::uint64_t next_random() {  // splitmix64
  std::uint64_t z = (launched.random += 0x9e3779b97f4a7c15u);
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

void run_grid(dim3 grid, dim3 block_size, std::size_t shared_bytes, void (*thread)(const void*), const void* context,
              const Location& here) {
  const std::lock_guard lock(one_at_a_time);
  check_launch(grid, block_size, shared_bytes, here);
  launched.thread = thread;
  launched.context = context;
  launched.dynamic_shared_bytes = shared_bytes;
  launched.random = config().seed;
  gridDim = grid;
  blockDim = block_size;
  place_threads(block_size);
  begin_fibers();
  const EndOfLaunch end;
  publish(&launched.start);

  const std::uint64_t blocks = std::uint64_t(grid.x) * grid.y * grid.z;
  std::vector<std::uint64_t> order;
  if (config().order == Order::random) {
    order.resize(blocks);
    for (std::uint64_t i = 0; i < blocks; ++i) order[i] = i;
    for (std::uint64_t i = blocks; i > 1; --i) std::swap(order[i - 1], order[next_random() % i]);
  }
  try {
    for (std::uint64_t i = 0; i < blocks; ++i) {
      const std::uint64_t b = !order.empty() ? order[i] : config().order == Order::reverse ? blocks - 1 - i : i;
      blockIdx = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
      run_block();
    }
  } catch (...) {
    abandon_block();
    throw;
  }
}

}  // namespace fastvision::emulator
