// A thread per box; bound by the bytes of a box read and written.
#include "box_convert.h"
#include "cuda.cuh"

namespace fastvision {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads)
    convert_kernel(int64_t n, BoxFormat from, BoxFormat to, const T* __restrict__ boxes, T* __restrict__ out) {
  FV_FOR(i, n) store_box(out + 4 * i, convert_box(load_aligned_box(boxes + 4 * i), from, to, T(2)));
}

}  // namespace

template <class T>
void box_convert(int64_t n, BoxFormat from, BoxFormat to, const T* boxes, T* out, const CudaExec& exec) {
  if (n > 0) launch(exec, convert_kernel<T>, grid_for(n), kThreads, 0, n, from, to, boxes, out);
}

#define INSTANTIATE(T) template void box_convert(int64_t, BoxFormat, BoxFormat, const T*, T*, const CudaExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
