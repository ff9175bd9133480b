// Boxes in vectors, one coordinate each: four vectors of memory are taken apart and put together again.
#include "box_coder.h"

#include "box_vector.h"
#include "elementary.h"

namespace fastvision {

// Lanes outside of where the polynomials hold (zeros, negative numbers, infinities, the smallest results) are rare.
template <class A, class Isa>
FV_HD VecOf<A, Isa> exp_of(VecOf<A, Isa> v) {
  using V = VecOf<A, Isa>;
  const auto plain = both(v >= V(A(Rounder<A>::kLowest)), v <= V(A(-Rounder<A>::kLowest)));
  return any(!plain) ? each_lane(v, [](A x) { return exp_of(x); }) : exp_negative(v);
}
template <class A, class Isa>
FV_HD VecOf<A, Isa> log_of_any(VecOf<A, Isa> v) {
  using V = VecOf<A, Isa>;
  const auto plain = both(v >= V(A(Rounder<A>::kSmallest)), v <= V(A(Rounder<A>::kLargest)));
  return any(!plain) ? each_lane(v, [](A x) { return log_of_any(x); }) : log_of(v);
}

template <Coding kCoding, class T, class Isa>
void code_boxes(const BoxCoderShape& s, const T* references, const T* in, T* out, const Cpu<Isa>& exec) {
  const auto code = [&](const Box<Vec<T>>& reference, int64_t k, int64_t count) {
    store_boxes(out + 4 * k, code_one<kCoding>(s, reference, load_boxes(in + 4 * k, count)), count);
  };
  if (s.per_reference == 1) {
    exec(ceil_div(s.references, kLanes<T>), 1 + 4096 / kLanes<T>, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * kLanes<T>; i < min_of(end * kLanes<T>, s.references); i += kLanes<T>) {
        const int64_t count = min_of(kLanes<T>, s.references - i);
        code(load_boxes(references + 4 * i, count), i, count);
      }
    });
    return;
  }
  exec(s.references, 1 + 4096 / (s.per_reference + 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Box<T> one = load_box(references + 4 * i);
      const Box<Vec<T>> reference{one.x1, one.y1, one.x2, one.y2};
      for (int64_t k = 0; k < s.per_reference; k += kLanes<T>)
        code(reference, i * s.per_reference + k, min_of(kLanes<T>, s.per_reference - k));
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
