// Sines and cosines are worked out once per box by a kernel of its own. All pairs: each thread makes four neighbouring
// outputs and stores them at once; boxes are read through the caches (32 bytes each in float32). Arithmetic is the
// limit where boxes overlap, about 200 operations and 8 divisions per pair; far apart pairs end after ten operations.
// Backward: a block owns 32 boxes of one set and adds over the other set in a fixed order, once per set.
#include "box_iou_rotated.h"
#include "pairs.cuh"

namespace fastvision {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads)
    prepare_kernel(int64_t n, const T* __restrict__ boxes, AngleUnit unit, RotatedBox<T>* __restrict__ out) {
  FV_FOR(i, n) out[i] = load_rotated_box(boxes + 5 * i, unit);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    all_pairs_kernel(RotatedIouShape s, const RotatedBox<T>* __restrict__ boxes1,
                     const RotatedBox<T>* __restrict__ boxes2, T* __restrict__ out) {
  store_pairs(s, out, [&](int64_t row, int64_t column) { return iou(boxes1[row], boxes2[column]); });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    aligned_kernel(int64_t n, const RotatedBox<T>* __restrict__ boxes1, const RotatedBox<T>* __restrict__ boxes2,
                   T* __restrict__ out) {
  FV_FOR(i, n) out[i] = iou(boxes1[i], boxes2[i]);
}

template <class T>
__device__ void add_scaled(RotatedGradient<T>& sum, const RotatedGradient<T>& d, T g) {
  if (g == T(0)) return;
  sum.x += g * d.x, sum.y += g * d.y, sum.w += g * d.w, sum.h += g * d.h, sum.angle += g * d.angle;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    aligned_backward_kernel(int64_t n, AngleUnit unit, const T* __restrict__ grad,
                            const RotatedBox<T>* __restrict__ own_boxes, const RotatedBox<T>* __restrict__ other_boxes,
                            T* __restrict__ own_grad) {
  FV_FOR(i, n) {
    RotatedGradient<T> d{};
    add_scaled(d, iou_gradient(other_boxes[i], own_boxes[i]), grad[i]);
    store_gradient(own_grad + 5 * i, d, unit);
  }
}

// One set of boxes as seen from the other: owned box i and other box j meet at grad[i * own_stride + j * other_stride].
struct PairView {
  int64_t owned, others, own_stride, other_stride;
};

constexpr int kOwned = 32, kSlices = kThreads / kOwned;

template <class T>
__global__ void __launch_bounds__(kThreads)
    owned_backward_kernel(PairView v, int64_t batch, AngleUnit unit, const T* __restrict__ grad,
                          const RotatedBox<T>* __restrict__ own_boxes, const RotatedBox<T>* __restrict__ other_boxes,
                          T* __restrict__ own_grad) {
  FV_SHARED(partial, RotatedGradient<T>[kSlices][kOwned]);
  const int lane = threadIdx.x % kOwned, slice = threadIdx.x / kOwned;
  const int64_t tiles = ceil_div(v.owned, int64_t(kOwned));
  for (int64_t tile = blockIdx.x; tile < batch * tiles; tile += gridDim.x) {
    const int64_t n = tile / tiles, i = tile % tiles * kOwned + lane;
    RotatedGradient<T> sum{};
    if (i < v.owned) {
      const RotatedBox<T> own = own_boxes[n * v.owned + i];
      const T* g = grad + n * v.owned * v.others + i * v.own_stride;
      for (int64_t j = slice; j < v.others; j += kSlices)
        add_scaled(sum, iou_gradient(other_boxes[n * v.others + j], own), g[j * v.other_stride]);
    }
    partial[slice][lane] = sum;
    __syncthreads();
    if (slice == 0 && i < v.owned) {
      for (int k = 1; k < kSlices; ++k) add_scaled(sum, partial[k][lane], T(1));
      store_gradient(own_grad + 5 * (n * v.owned + i), sum, unit);
    }
    __syncthreads();
  }
}

}  // namespace

template <class T>
void prepare_rotated_boxes(int64_t n, const T* boxes, AngleUnit unit, RotatedBox<T>* out, const CudaExec& exec) {
  if (n > 0) launch(exec, prepare_kernel<T>, grid_for(n), kThreads, 0, n, boxes, unit, out);
}

template <class T>
void box_iou_rotated(const RotatedIouShape& s, const RotatedBox<T>* boxes1, const RotatedBox<T>* boxes2, T* out,
                     const CudaExec& exec) {
  if (s.out_size() == 0) return;
  if (s.aligned)
    launch(exec, aligned_kernel<T>, grid_for(s.out_size()), kThreads, 0, s.out_size(), boxes1, boxes2, out);
  else launch(exec, all_pairs_kernel<T>, grid_for_pairs(s), kThreads, 0, s, boxes1, boxes2, out);
}

template <class T>
void box_iou_rotated_backward(const RotatedIouShape& s, AngleUnit unit, const T* grad, const RotatedBox<T>* boxes1,
                              const RotatedBox<T>* boxes2, T* grad1, T* grad2, const CudaExec& exec) {
  const auto own = [&](const PairView& v, const RotatedBox<T>* own_boxes, const RotatedBox<T>* others, T* own_grad) {
    const int64_t n = s.batch * v.owned;
    if (n == 0) return;
    if (s.aligned)
      launch(exec, aligned_backward_kernel<T>, grid_for(n), kThreads, 0, n, unit, grad, own_boxes, others, own_grad);
    else
      launch(exec, owned_backward_kernel<T>, grid_for(s.batch * ceil_div(v.owned, int64_t(kOwned)), 1), kThreads, 0, v,
             s.batch, unit, grad, own_boxes, others, own_grad);
  };
  own({s.rows, s.cols, s.cols, 1}, boxes1, boxes2, grad1);
  own({s.cols, s.rows, 1, s.cols}, boxes2, boxes1, grad2);
}

#define INSTANTIATE(T)                                                                                      \
  template void prepare_rotated_boxes(int64_t, const T*, AngleUnit, RotatedBox<T>*, const CudaExec&);       \
  template void box_iou_rotated(const RotatedIouShape&, const RotatedBox<T>*, const RotatedBox<T>*, T*,     \
                                const CudaExec&);                                                           \
  template void box_iou_rotated_backward(const RotatedIouShape&, AngleUnit, const T*, const RotatedBox<T>*, \
                                         const RotatedBox<T>*, T*, T*, const CudaExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
