// Lets tests choose how the emulator orders threads.
#include <torch/csrc/stable/library.h>

#include <string>

#include "cuda_emulator.h"

namespace {

// order: "forward", "reverse" or "random"; lazy: asynchronous copies happen as late as they may.
void configure_emulator(std::string order, int64_t seed, bool lazy) {
  auto& config = fastvision::emulator::config();
  config.order = order == "reverse"  ? fastvision::emulator::Order::reverse
                 : order == "random" ? fastvision::emulator::Order::random
                                     : fastvision::emulator::Order::forward;
  config.seed = static_cast<std::uint64_t>(seed);
  config.cp_async_lazy = lazy;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastvision_emulated, m) {
  m.def("configure_emulator(str order, int seed, bool lazy) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(fastvision_emulated, CompositeExplicitAutograd, m) {
  m.impl("configure_emulator", TORCH_BOX(&configure_emulator));
}
