#include "box_area.h"

#include "box_vector.h"

namespace fastvision {

template <class T, class Isa>
void box_area(int64_t n, BoxFormat format, const T* boxes, T* out, const Cpu<Isa>& exec) {
  exec(ceil_div(n, kLanes<T>), 1 + 16384 / kLanes<T>, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * kLanes<T>; i < min_of(end * kLanes<T>, n); i += kLanes<T>) {
      const int64_t count = min_of(kLanes<T>, n - i);
      store_vector(out + i, area_of(load_boxes(boxes + 4 * i, count), format, T(0.5)), count);
    }
  });
}

#define INSTANTIATE(T) template void box_area(int64_t, BoxFormat, const T*, T*, const CpuExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
