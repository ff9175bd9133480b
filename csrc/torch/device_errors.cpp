// The executor of the CUDA twins: the current stream, and the counter of index errors that kernels add to.
// On the CPU an index error is an exception, so nothing is ever counted.
#include <dlfcn.h>

#include <map>
#include <mutex>

#include "binding.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

#if FV_IS == FV_IS_cpu
Tensor device_errors(const Tensor& like) {
  Tensor none = torch::stable::empty({3}, ScalarType::Long, std::nullopt, like.device());
  torch::stable::zero_(none);
  return none;
}
#else
// One counter per device: int64 (count, op, row), never freed, because the device may be gone when statics are.
Tensor& counter_on(const Tensor& like) {
  static std::mutex mutex;
  static auto& counters = *new std::map<int32_t, Tensor>;
  const std::lock_guard lock(mutex);
  const int32_t device = like.get_device_index();
  auto found = counters.find(device);
  if (found == counters.end()) {
    Tensor counter = torch::stable::empty({3}, ScalarType::Long, std::nullopt, like.device());
    torch::stable::zero_(counter);
    found = counters.emplace(device, counter).first;
  }
  return found->second;
}

#if FV_IS == FV_IS_cuda
// Looked up at the first call, so that this library also loads beside a torch without CUDA.
void* current_stream(int32_t device) {
  using Function = AOTITorchError (*)(int32_t, void**);
  static const auto function = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
    return library ? reinterpret_cast<Function>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
  }();
  void* stream = nullptr;
  if (!function || function(device, &stream) != TORCH_SUCCESS)
    fail("fastvision: cannot find torch's current CUDA stream (libtorch_cuda.so is not loaded)");
  return stream;
}
#else
void* current_stream(int32_t) { return nullptr; }
#endif

Tensor device_errors(const Tensor& like) {
  Tensor& counter = counter_on(like);
  const Tensor seen = torch::stable::clone(counter);
  torch::stable::zero_(counter);
  return seen;
}
#endif

}  // namespace

#if FV_IS != FV_IS_cpu
CudaExec executor_on(const Tensor& t) {
  return {current_stream(t.get_device_index()), static_cast<DeviceErrors*>(counter_on(t).mutable_data_ptr())};
}
#endif

FV_OPS(m) { m.impl("device_errors", TORCH_BOX(&device_errors)); }

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
