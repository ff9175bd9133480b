// Lets tests choose how the emulator orders threads.
#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>

#include "runtime.h"

namespace {

using fastvision::emulator::Config;
using fastvision::emulator::Order;

Config configuration(const std::string& order, int64_t seed, bool lazy) {
  if (order != "forward" && order != "reverse" && order != "random")
    throw std::runtime_error("configure_emulator: order: expected forward, reverse or random, got " + order);
  const Order chosen = order == "forward" ? Order::forward : order == "reverse" ? Order::reverse : Order::random;
  const bool few_blocks = seed / 8 % 2 != 0;  // the lower bits choose the order and the copies in tests/support.py
  return {chosen, static_cast<std::uint64_t>(seed), lazy, few_blocks ? 2 : fastvision::emulator::kMaxBlocks};
}

// FASTVISION_SCHEDULE="order seed lazy|eager" fixes the schedule of the whole process, whatever tests choose.
bool schedule_is_fixed() {
  static const bool fixed = [] {
    const char* schedule = std::getenv("FASTVISION_SCHEDULE");
    if (!schedule) return false;
    std::istringstream in(schedule);
    std::string order, copies;
    int64_t seed = 0;
    if (!(in >> order >> seed >> copies) || (copies != "lazy" && copies != "eager"))
      throw std::runtime_error("FASTVISION_SCHEDULE: expected 'order seed lazy|eager'");
    fastvision::emulator::config() = configuration(order, seed, copies == "lazy");
    return true;
  }();
  return fixed;
}

// lazy: asynchronous copies happen as late as they may.
void configure_emulator(std::string order, int64_t seed, bool lazy) {
  const Config chosen = configuration(order, seed, lazy);
  if (!schedule_is_fixed()) fastvision::emulator::config() = chosen;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastvision_emulated, m) {
  schedule_is_fixed();
  m.def("configure_emulator(str order, int seed, bool lazy) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(fastvision_emulated, CompositeExplicitAutograd, m) {
  m.impl("configure_emulator", TORCH_BOX(&configure_emulator));
}
