#include "box_convert.h"

#include "box_vector.h"

namespace fastvision {

template <class T, class Isa>
void box_convert(int64_t n, BoxFormat from, BoxFormat to, const T* boxes, T* out, const Cpu<Isa>& exec) {
  exec(ceil_div(n, kLanes<T>), 1 + 16384 / kLanes<T>, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * kLanes<T>; i < min_of(end * kLanes<T>, n); i += kLanes<T>) {
      const int64_t count = min_of(kLanes<T>, n - i);
      store_boxes(out + 4 * i, convert_box(load_boxes(boxes + 4 * i, count), from, to, T(2)), count);
    }
  });
}

#define INSTANTIATE(T) template void box_convert(int64_t, BoxFormat, BoxFormat, const T*, T*, const CpuExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
