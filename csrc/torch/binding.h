// The only bridge to torch: LibTorch's stable ABI, nothing else. A binding file is compiled once per backend:
//   FV_BACKEND=cpu       registers the CPU twins   as fastvision::<op> on the CPU
//   FV_BACKEND=cuda      registers the CUDA twins  as fastvision::<op> on CUDA
//   FV_BACKEND=emulated  registers the CUDA twins, run by the emulator, as fastvision_emulated::<op> on the CPU
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#include <thread>
#endif

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "../kernels/common.h"

#define FV_IS_cpu 1
#define FV_IS_cuda 2
#define FV_IS_emulated 3
#define FV_CONCAT_(a, b) a##b
#define FV_CONCAT(a, b) FV_CONCAT_(a, b)
#define FV_IS FV_CONCAT(FV_IS_, FV_BACKEND)

#if FV_IS == FV_IS_cpu
#include "../kernels/cpu_isa.h"
#define FV_OPS(m) STABLE_TORCH_LIBRARY_IMPL(fastvision, CPU, m)
#elif FV_IS == FV_IS_cuda
#define FV_OPS(m) STABLE_TORCH_LIBRARY_IMPL(fastvision, CUDA, m)
#else
#define FV_OPS(m) STABLE_TORCH_LIBRARY_IMPL(fastvision_emulated, CPU, m)
#endif

namespace fastvision::binding {

inline namespace FV_BACKEND {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::vector<int64_t>;

// Errors. Python turns the RuntimeError into a ValueError, or into a TypeError where the text says "expected dtype"
// (python/fastvision/_lib.py), so every text reads: "op: argument: expected ..., got ...".
template <class... Args>
[[noreturn]] void fail(const Args&... parts) {
  std::ostringstream text;
  ((text << parts), ...);
  throw std::runtime_error(text.str());
}

inline std::string shape_of(const Tensor& t) {
  std::ostringstream s;
  s << '(';
  for (int64_t i = 0; i < t.dim(); ++i) s << (i ? ", " : "") << t.size(i);
  s << (t.dim() == 1 ? ",)" : ")");
  return s.str();
}

inline const char* dtype_name(ScalarType t) {
  switch (t) {
    case ScalarType::Byte: return "uint8";
    case ScalarType::Char: return "int8";
    case ScalarType::Short: return "int16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::Half: return "float16";
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Bool: return "bool";
    default: return "an unsupported dtype";
  }
}

inline std::string device_name(const Tensor& t) {
  if (t.is_cpu()) return "cpu";
  if (t.is_cuda()) return "cuda:" + std::to_string(t.get_device_index());
  return "another device";
}

// Checks of one op's arguments. Each names the op and the argument.
struct Check {
  const char* op;

  template <class... Args>
  void that(bool ok, const Args&... parts) const {
    if (!ok) fail(op, ": ", parts...);
  }
  void shape(bool ok, const char* argument, const Tensor& t, const char* expected) const {
    if (!ok) fail(op, ": ", argument, ": expected shape ", expected, ", got ", shape_of(t));
  }
  void dtype(bool ok, const char* argument, const Tensor& t, const char* expected) const {
    if (!ok) fail(op, ": ", argument, ": expected dtype ", expected, ", got ", dtype_name(t.scalar_type()));
  }
  void all_floats(const char* argument, const Tensor& t) const {
    const ScalarType d = t.scalar_type();
    dtype(d == ScalarType::Float || d == ScalarType::Double || d == ScalarType::Half || d == ScalarType::BFloat16,
          argument, t, "float16, bfloat16, float32 or float64");
  }
  void floats(const char* argument, const Tensor& t) const {
    const ScalarType d = t.scalar_type();
    dtype(d == ScalarType::Float || d == ScalarType::Double, argument, t, "float32 or float64");
  }
  void same_dtype(const char* argument, const Tensor& t, const char* other, const Tensor& like) const {
    if (t.scalar_type() != like.scalar_type())
      fail(op, ": ", argument, ": expected dtype ", dtype_name(like.scalar_type()), " as ", other, ", got ",
           dtype_name(t.scalar_type()));
  }
  void same_device(const char* argument, const Tensor& t, const char* other, const Tensor& like) const {
    if (t.device() != like.device())
      fail(op, ": ", argument, ": expected device ", device_name(like), " as ", other, ", got ", device_name(t));
  }
  void in_range(const char* argument, double value, double low, double high) const {
    if (!(value >= low && value <= high))
      fail(op, ": ", argument, ": expected a number in [", low, ", ", high, "], got ", value);
  }
  void at_least(const char* argument, int64_t value, int64_t low) const {
    if (value < low) fail(op, ": ", argument, ": expected an integer >= ", low, ", got ", value);
  }
  // Of a window, down and across, and the like. Products with sizes of maps must not overflow.
  void steps(const char* argument, int64_t y, int64_t x, int64_t low) const {
    at_least(argument, min_of(y, x), low);
    const int64_t most = max_of(y, x);
    if (most >= int64_t(1) << 31) fail(op, ": ", argument, ": expected an integer < 2**31, got ", most);
  }
  void finite(const char* argument, double value) const {
    if (!std::isfinite(value)) fail(op, ": ", argument, ": expected a finite number, got ", value);
  }
  void finite_positive(const char* argument, double value) const {
    if (!(std::isfinite(value) && value > 0)) fail(op, ": ", argument, ": expected a finite number > 0, got ", value);
  }

  // A new tensor beside `like`. Sizes that overflow, or do not fit in memory, are an error that names them.
  Tensor empty(const Tensor& like, const Sizes& sizes, ScalarType dtype,
               MemoryFormat format = MemoryFormat::Contiguous) const {
    int64_t bytes = 8;
    bool overflow = false;
    for (const int64_t n : sizes) overflow |= __builtin_mul_overflow(bytes, n > 0 ? n : 1, &bytes);
    if (overflow) fail(op, ": the result: expected at most 2**63 bytes, got shape ", text(sizes));
    try {
      const Tensor t = torch::stable::empty(sizes, dtype, std::nullopt, like.device(), std::nullopt, format);
      advise_huge_pages(t, bytes / 8 * element_bytes(dtype));
      return t;
    } catch (const std::runtime_error&) {
      fail(op, ": out of memory: cannot allocate shape ", text(sizes), " of ", dtype_name(dtype), " (",
           bytes / 8 * element_bytes(dtype), " bytes)");
    }
  }
  Tensor empty(const Tensor& like, const Sizes& sizes) const { return empty(like, sizes, like.scalar_type()); }

 private:
  // Fresh memory is mapped when it is first written; 4 KiB at a time that takes longer than many kernels do.
  static void advise_huge_pages([[maybe_unused]] const Tensor& t, [[maybe_unused]] int64_t bytes) {
#if FV_IS == FV_IS_cpu && defined(__linux__)
    constexpr uintptr_t kPage = 4096;
    if (bytes < int64_t(4) << 20) return;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(t.mutable_data_ptr()) + kPage - 1) / kPage * kPage;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(t.mutable_data_ptr()) + uintptr_t(bytes)) / kPage * kPage;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
  }
  static std::string text(const Sizes& sizes) {
    std::ostringstream s;
    s << '(';
    for (size_t i = 0; i < sizes.size(); ++i) s << (i ? ", " : "") << sizes[i];
    s << ')';
    return s.str();
  }
  static int64_t element_bytes(ScalarType t) {
    switch (t) {
      case ScalarType::Double:
      case ScalarType::Long: return 8;
      case ScalarType::Float:
      case ScalarType::Int: return 4;
      case ScalarType::Half:
      case ScalarType::BFloat16:
      case ScalarType::Short: return 2;
      default: return 1;
    }
  }
};

// What elements of this tensor are computed in (Accum), and sums of them are returned in.
inline ScalarType accumulated_type(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// t itself if it is contiguous in this format and aligned for 16-byte loads, otherwise a copy that is.
inline Tensor dense(const Tensor& t, MemoryFormat format = MemoryFormat::Contiguous) {
  const bool is_dense = format == MemoryFormat::Contiguous && t.is_contiguous();  // much faster than to ask torch's op
  const Tensor c = is_dense ? t : torch::stable::contiguous(t, format);
  if (c.numel() == 0 || reinterpret_cast<uintptr_t>(c.const_data_ptr()) % 16 == 0) return c;
  return torch::stable::clone(c);
}

// Calls an op of torch by name. Arguments are passed as the schema has them.
template <int kResults, class... Args>
std::array<Tensor, kResults> call_torch(const char* op, const char* overload, const Args&... args) {
  std::array<StableIValue, (sizeof...(Args) > kResults ? sizeof...(Args) : kResults)> stack{
      torch::stable::detail::from(args)...};
  if (torch_call_dispatcher(op, overload, stack.data(), TORCH_ABI_VERSION) != TORCH_SUCCESS)
    fail("fastvision: torch's ", op, " failed");
  std::array<Tensor, kResults> results;
  for (int i = 0; i < kResults; ++i) results[i] = torch::stable::detail::to<Tensor>(stack[i]);
  return results;
}

// Values and indices of a stable sort along the last dimension.
inline std::array<Tensor, 2> sort(const Tensor& t, bool descending) {
  return call_torch<2>("aten::sort", "stable", t, std::optional<bool>(true), int64_t(-1), descending);
}
inline Tensor gather_last(const Tensor& t, const Tensor& index) {
  return call_torch<1>("aten::gather", "", t, int64_t(-1), index, false)[0];
}

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
const T* data(const std::optional<Tensor>& t) {
  return t ? data<T>(*t) : nullptr;
}
template <class T>
T* mutable_data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}
inline std::optional<Tensor> dense(const std::optional<Tensor>& t) {
  return t ? std::optional<Tensor>(dense(*t)) : std::nullopt;
}

#if FV_IS != FV_IS_cpu
CudaExec executor_on(const torch::stable::Tensor&);  // device_errors.cpp
#endif

#if defined(__SANITIZE_THREAD__)
// ThreadSanitizer does not see how torch's threads wait for each other.
constexpr int64_t kOwnThreads = 4;
inline void on_own_threads(int64_t n, int64_t, void (*body)(void*, int64_t, int64_t), void* context) {
  const int64_t share = ceil_div(n, kOwnThreads);
  std::vector<std::thread> threads;
  for (int64_t begin = 0; begin < n; begin += share)
    threads.emplace_back(body, context, begin, min_of(begin + share, n));
  for (std::thread& thread : threads) thread.join();
}
#endif

// The device of a tensor made current, and the executor of its backend.
class Backend {
 public:
#if FV_IS == FV_IS_cpu
  explicit Backend(const Tensor&) {}

  // Calls f with the executor of the best instruction set of this machine.
  template <class F>
  void run(F&& f) const {
    with_cpu_isa([&](auto isa) {
#if defined(__SANITIZE_THREAD__)
      const Cpu<typename decltype(isa)::type> exec{on_own_threads, kOwnThreads};
#else
      const Cpu<typename decltype(isa)::type> exec{
          [](int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
            torch::stable::parallel_for(0, n, grain, [&](int64_t b, int64_t e) { body(context, b, e); });
          },
          int64_t(torch::stable::get_num_threads())};
#endif
      f(exec);
    });
  }
#else
  explicit Backend(const Tensor& on)
      :
#if FV_IS == FV_IS_cuda
        guard_(on.get_device_index()),
#endif
        exec_(executor_on(on)) {
  }
  template <class F>
  void run(F&& f) const {
    f(exec_);
  }

 private:
#if FV_IS == FV_IS_cuda
  torch::stable::accelerator::DeviceGuard guard_;
#endif
  CudaExec exec_;
#endif
};

// Whether index-like values are checked on the host: always on the CPU; elsewhere that would wait for the device, so
// only if FASTVISION_VALIDATE=1 asks for it.
inline bool validates_indices() {
  if (FV_IS == FV_IS_cpu) return true;
  const char* validate = std::getenv("FASTVISION_VALIDATE");
  return validate && validate[0] == '1';
}
inline Tensor on_cpu(const Tensor& t) {
  return t.is_cpu() ? t : torch::stable::to(t, torch::stable::Device(torch::headeronly::DeviceType::CPU));
}

// Call f with a value of the tensor's C++ type. Plain functions: no macro to trip over commas.
template <class F>
void dispatch_floats(const Tensor& t, F&& f) {
  if (t.scalar_type() == ScalarType::Double) return f(double{});
  f(float{});
}
template <class F>
void dispatch_all_floats(const Tensor& t, F&& f) {
  switch (t.scalar_type()) {
    case ScalarType::Double: return f(double{});
    case ScalarType::Half: return f(Half{});
    case ScalarType::BFloat16: return f(BFloat16{});
    default: return f(float{});
  }
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
