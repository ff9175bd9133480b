#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "arguments.h"

namespace fastvision::host {
namespace {

void run_on_threads(int64_t threads, int64_t pieces, void (*body)(void*, int64_t), void* context) {
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;
  const auto work = [&] {
    for (int64_t piece; (piece = next.fetch_add(1)) < pieces;) {
      try {
        body(context, piece);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        next = pieces;
      }
    }
  };
  std::vector<std::thread> helpers;
  try {
    for (int64_t i = 1; i < std::min(threads, pieces); ++i) helpers.emplace_back(work);
  } catch (const std::system_error&) {  // the machine gives no more threads
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace

HostExec executor(int64_t threads) {
  if (threads < 1) fail("threads: expected an integer >= 1, got ", std::to_string(threads));
  return {threads, run_on_threads};
}

}  // namespace fastvision::host
