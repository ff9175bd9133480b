// A thread per output element forward, per input element backward; neighbouring threads take neighbouring elements in
// memory. Backward, without atomics: a pixel asks the windows that cover it, in their order, whether it was their
// maximum. Both are bound by the bytes of input, output and index.
#include "cuda.cuh"
#include "max_pool2d.h"

namespace fastvision {
namespace {

template <class T, class Index>
__global__ void __launch_bounds__(kThreads)
    pool_kernel(MaxPoolShape s, const T* __restrict__ input, T* __restrict__ out, Index* __restrict__ index) {
  FV_FOR(i, s.planes * s.out_plane()) {
    const int64_t c = i % s.channels, ox = i / s.channels % s.out_w, oy = i / s.out_row() % s.out_h;
    const auto best = maximum_at(s, input + i / s.out_plane() * s.in_plane() + c, oy, ox);
    out[i] = from_accum<T>(best.value);
    store_tap(s, oy, ox, best.tap, index + i);
  }
}

template <class T, class Index>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(MaxPoolShape s, const T* __restrict__ grad, const Index* __restrict__ index,
                    T* __restrict__ grad_input) {
  FV_FOR(i, s.planes * s.in_plane()) {
    const int64_t c = i % s.channels, x = i / s.channels % s.width, y = i / s.channels / s.width % s.height;
    const int64_t first = i / s.in_plane() * s.out_plane() + c;
    const Taps rows = windows_over(y, s.g.kernel_y, s.g.stride_y, s.g.padding_y, s.g.dilation_y, s.out_h);
    const Taps columns = windows_over(x, s.g.kernel_x, s.g.stride_x, s.g.padding_x, s.g.dilation_x, s.out_w);
    Accum<T> sum(0);
    for (int64_t oy = rows.begin; oy < rows.end; ++oy)
      for (int64_t ox = columns.begin; ox < columns.end; ++ox) {
        const int64_t o = first + (oy * s.out_w + ox) * s.channels;
        if (stored_position(s, oy, ox, index[o]) == y * s.width + x) sum += to_accum(grad[o]);
      }
    grad_input[i] = from_accum<T>(sum);
  }
}

}  // namespace

template <class T, class Index>
void max_pool2d(const MaxPoolShape& s, const T* input, T* out, Index* index, const CudaExec& exec) {
  const int64_t items = s.planes * s.out_plane();
  if (items > 0) launch(exec, pool_kernel<T, Index>, grid_for(items), kThreads, 0, s, input, out, index);
}

template <class T, class Index>
void max_pool2d_backward(const MaxPoolShape& s, const T* grad, const Index* index, T* grad_input,
                         const CudaExec& exec) {
  const int64_t items = s.planes * s.in_plane();
  if (items > 0) launch(exec, backward_kernel<T, Index>, grid_for(items), kThreads, 0, s, grad, index, grad_input);
}

#define INSTANTIATE_INDEX(T, Index)                                                     \
  template void max_pool2d(const MaxPoolShape&, const T*, T*, Index*, const CudaExec&); \
  template void max_pool2d_backward(const MaxPoolShape&, const T*, const Index*, T*, const CudaExec&);
#define INSTANTIATE(T) INSTANTIATE_INDEX(T, uint8_t) INSTANTIATE_INDEX(T, int64_t)
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE
#undef INSTANTIATE_INDEX

}  // namespace fastvision
