#include "box_coder.h"

namespace fastvision {

template <Coding kCoding, class T, class Isa>
void code_boxes(const BoxCoderShape& s, const T* references, const T* in, T* out, const Cpu<Isa>& exec) {
  exec(s.references, 1 + 1024 / (s.per_reference + 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Box<T> reference = load_box(references + 4 * i);
      for (int64_t k = i * s.per_reference; k < (i + 1) * s.per_reference; ++k)
        store_box(out + 4 * k, code_one<kCoding>(s, reference, load_box(in + 4 * k)));
    }
  });
}

template <Coding kCoding, class T, class Isa>
void code_boxes_backward(const BoxCoderShape& s, const T* grad, const T* references, const T* in, T* grad_references,
                         T* grad_in, const Cpu<Isa>& exec) {
  exec(s.references, 1 + 1024 / (s.per_reference + 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      code_reference_backward<kCoding>(s, i, grad, references, in, grad_references, grad_in);
  });
}

#define INSTANTIATE_CODING(C, T)                                                             \
  template void code_boxes<C>(const BoxCoderShape&, const T*, const T*, T*, const CpuExec&); \
  template void code_boxes_backward<C>(const BoxCoderShape&, const T*, const T*, const T*, T*, T*, const CpuExec&);
#define INSTANTIATE(T) INSTANTIATE_CODING(Coding::encode, T) INSTANTIATE_CODING(Coding::decode, T)
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE
#undef INSTANTIATE_CODING

}  // namespace fastvision
