// A thread per box; bound by the bytes of a box.
#include "box_area.h"
#include "cuda.cuh"

namespace fastvision {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads)
    area_kernel(int64_t n, BoxFormat format, const T* __restrict__ boxes, T* __restrict__ out) {
  FV_FOR(i, n) out[i] = area_of(load_aligned_box(boxes + 4 * i), format, T(0.5));
}

}  // namespace

template <class T>
void box_area(int64_t n, BoxFormat format, const T* boxes, T* out, const CudaExec& exec) {
  if (n > 0) launch(exec, area_kernel<T>, grid_for(n), kThreads, 0, n, format, boxes, out);
}

#define INSTANTIATE(T) template void box_area(int64_t, BoxFormat, const T*, T*, const CudaExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
