// What this library was built with, which instruction set its CPU twins use, and what the processor multiplies.
#include <torch/csrc/stable/library.h>

#include <stdexcept>
#include <string>

#include "../kernels/cpu_isa.h"

#ifndef FV_CUDA_VERSION
#define FV_CUDA_VERSION ""
#define FV_CUDA_ARCHITECTURES ""
#endif
#ifndef FV_VERSION
#define FV_VERSION ""
#endif
#if defined(__clang__)
#define FV_COMPILER "clang " __clang_version__
#else
#define FV_COMPILER "gcc " __VERSION__
#endif

namespace {

// Lines of "key=value".
std::string build_info() {
  return std::string("version=") + FV_VERSION + "\ncompiler=" + FV_COMPILER + "\ncuda=" + FV_CUDA_VERSION +
         "\ncuda_architectures=" + FV_CUDA_ARCHITECTURES + "\ntorch_built_with=" + std::to_string(TORCH_VERSION_MAJOR) +
         "." + std::to_string(TORCH_VERSION_MINOR) + "\ntorch_floor=" + std::to_string(TORCH_TARGET_VERSION >> 56) +
         "." + std::to_string(TORCH_TARGET_VERSION >> 48 & 255) +
         "\ncpu_isa=" + fastvision::name_of(fastvision::cpu_isa()) +
         "\ncpu_isa_best=" + fastvision::name_of(fastvision::best_cpu_isa()) +
         "\ncpu_bfloat16=" + fastvision::bfloat16_products() + "\ncpu_float16=" + fastvision::float16_products();
}

void set_cpu_isa(std::string name) {
  using fastvision::CpuIsa;
  for (const CpuIsa isa : {CpuIsa::baseline, CpuIsa::avx2, CpuIsa::avx512})
    if (name == fastvision::name_of(isa) && isa <= fastvision::best_cpu_isa()) return fastvision::set_cpu_isa(isa);
  throw std::runtime_error("set_cpu_isa: name: expected an instruction set of this machine, got " + name);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(FV_LIBRARY, m) {
  m.def("build_info() -> str");
  m.def("set_cpu_isa(str name) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(FV_LIBRARY, CompositeExplicitAutograd, m) {
  m.impl("build_info", TORCH_BOX(&build_info));
  m.impl("set_cpu_isa", TORCH_BOX(&set_cpu_isa));
}
