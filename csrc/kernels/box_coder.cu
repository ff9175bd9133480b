// A thread per box forward, a thread per reference backward. Bound by bytes: 16 read for the box, 16 written, and the
// reference once per box through the caches.
#include "box_coder.h"
#include "cuda.cuh"

namespace fastvision {
namespace {

template <Coding kCoding, class T>
__global__ void __launch_bounds__(kThreads)
    code_kernel(BoxCoderShape s, const T* __restrict__ references, const T* __restrict__ in, T* __restrict__ out) {
  FV_FOR(i, s.references * s.per_reference) {
    const Box<T> reference = load_aligned_box(references + 4 * (i / s.per_reference));
    store_box(out + 4 * i, code_one<kCoding>(s, reference, load_aligned_box(in + 4 * i)));
  }
}

template <Coding kCoding, class T>
__global__ void __launch_bounds__(kThreads)
    code_backward_kernel(BoxCoderShape s, const T* __restrict__ grad, const T* __restrict__ references,
                         const T* __restrict__ in, T* __restrict__ grad_references, T* __restrict__ grad_in) {
  FV_FOR(i, s.references) code_reference_backward<kCoding>(s, i, grad, references, in, grad_references, grad_in);
}

}  // namespace

template <Coding kCoding, class T>
void code_boxes(const BoxCoderShape& s, const T* references, const T* in, T* out, const CudaExec& exec) {
  const int64_t items = s.references * s.per_reference;
  if (items > 0) launch(exec, code_kernel<kCoding, T>, grid_for(items), kThreads, 0, s, references, in, out);
}

template <Coding kCoding, class T>
void code_boxes_backward(const BoxCoderShape& s, const T* grad, const T* references, const T* in, T* grad_references,
                         T* grad_in, const CudaExec& exec) {
  if (s.references > 0)
    launch(exec, code_backward_kernel<kCoding, T>, grid_for(s.references), kThreads, 0, s, grad, references, in,
           grad_references, grad_in);
}

#define INSTANTIATE_CODING(C, T)                                                              \
  template void code_boxes<C>(const BoxCoderShape&, const T*, const T*, T*, const CudaExec&); \
  template void code_boxes_backward<C>(const BoxCoderShape&, const T*, const T*, const T*, T*, T*, const CudaExec&);
#define INSTANTIATE(T) INSTANTIATE_CODING(Coding::encode, T) INSTANTIATE_CODING(Coding::decode, T)
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE
#undef INSTANTIATE_CODING

}  // namespace fastvision
