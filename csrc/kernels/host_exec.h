// Where host code runs: a number of threads and a way to use them. Like the CPU twins (common.h), host kernels own no
// threads; the binding brings them.
#pragma once

#include <cstdint>

namespace fastvision {

struct HostExec {
  int64_t threads;
  // Calls body(context, piece) once for each piece in [0, pieces), on up to `threads` threads.
  void (*run)(int64_t threads, int64_t pieces, void (*body)(void*, int64_t), void* context);

  // Calls f(begin, end) for ranges of at most `grain` that together make [0, n). What f throws comes out here.
  template <class F>
  void operator()(int64_t n, int64_t grain, F&& f) const {
    if (n <= grain || threads <= 1) {
      if (n > 0) f(int64_t(0), n);
      return;
    }
    auto piece = [&](int64_t i) { f(i * grain, i + 1 < (n + grain - 1) / grain ? (i + 1) * grain : n); };
    run(threads, (n + grain - 1) / grain, [](void* p, int64_t i) { (*static_cast<decltype(piece)*>(p))(i); }, &piece);
  }
};

}  // namespace fastvision
