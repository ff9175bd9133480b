// emulator_tests right [SCHEDULE]          runs all cases that must come out right
// emulator_tests NAME... [SCHEDULE]        runs these cases
// emulator_tests list                      names the planted defects
// SCHEDULE is: forward|reverse|random SEED lazy|eager. Ends with 0 if all are right, 1 if a result is wrong, 3 if the
// emulator refuses.
#include <algorithm>
#include <cstdlib>

#include "harness.h"

namespace {

std::vector<Case> joined(std::initializer_list<std::vector<Case>> lists) {
  std::vector<Case> all;
  for (const std::vector<Case>& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

#if defined(__CUDACC__)
std::vector<Case> right_cases() { return joined({thread_cases(), memory_cases(), fragment_cases()}); }
std::vector<Case> planted() { return {}; }
#else
std::vector<Case> right_cases() { return joined({thread_cases(), memory_cases(), fragment_cases(), launch_cases()}); }
std::vector<Case> planted() {
  return joined({planted_memory_cases(), planted_synchronisation_cases(), planted_control_flow_cases()});
}
#endif

int run_case(const Case& c) {
  try {
    c.run();
    return 0;
  } catch (const WrongResult& wrong) {
    std::printf("wrong: %s: %s\n", c.name, wrong.what());
    return 1;
  } catch (const std::runtime_error& error) {
    std::printf("error: %s: %s\n", c.name, error.what());
    return 3;
  }
}

void set_schedule([[maybe_unused]] const std::string& order, [[maybe_unused]] const char* seed,
                  [[maybe_unused]] const std::string& copies) {
#if !defined(__CUDACC__)
  using fastvision::emulator::Order;
  auto& config = fastvision::emulator::config();
  config.order = order == "forward" ? Order::forward : order == "reverse" ? Order::reverse : Order::random;
  config.seed = std::strtoull(seed, nullptr, 10);
  config.lazy_copies = copies == "lazy";
#endif
}

}  // namespace

int main(int count, char** values) {
  std::vector<std::string> arguments(values + 1, values + count);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  for (std::size_t i = 0; i + 2 < arguments.size(); ++i)
    if (arguments[i] == "forward" || arguments[i] == "reverse" || arguments[i] == "random") {
      set_schedule(arguments[i], arguments[i + 1].c_str(), arguments[i + 2]);
      arguments.resize(i);
    }
  int worst = 0, ran = 0;
  for (const std::string& argument : arguments) {
    if (argument == "list")
      for (const Case& c : planted()) std::puts(c.name);
    if (argument == "list") return 0;
    for (const bool is_planted : {false, true})
      for (const Case& c : is_planted ? planted() : right_cases())
        if (argument == c.name || (argument == "right" && !is_planted)) worst = std::max(worst, run_case(c)), ++ran;
  }
  std::printf("%d case(s)\n", ran);
  return ran == 0 ? 2 : worst;
}
