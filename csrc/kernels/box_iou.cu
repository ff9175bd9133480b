// All pairs: each thread makes four neighbouring outputs and stores them at once. The boxes are read through the caches
// (16 bytes per box, few of them), so the output's bytes are the limit: 4 per pair in float32.
// Backward: a block owns 32 boxes of one set and adds over the other set in a fixed order, once per set, so that the
// gradient's bytes are read twice and nothing is written but the result.
#include "box_iou.h"
#include "pairs.cuh"

namespace fastvision {
namespace {

template <IouKind kKind, class T>
__device__ T pair_value(const Box<T>& a, const Box<T>& b, double eps) {
  constexpr bool kAngles = kKind == IouKind::complete;
  return iou_of<kKind>(a, b, kAngles ? diagonal_angle(a) : T(0), kAngles ? diagonal_angle(b) : T(0), eps);
}
template <IouKind kKind, class T>
__device__ Box<T> pair_gradient(const Box<T>& a, const Box<T>& b, double eps) {
  constexpr bool kAngles = kKind == IouKind::complete;
  return iou_gradient_of<kKind>(a, b, kAngles ? diagonal_angle(a) : T(0), kAngles ? diagonal_angle(b) : T(0), eps);
}

template <IouKind kKind, class T>
__global__ void __launch_bounds__(kThreads)
    all_pairs_kernel(BoxIouShape s, const T* __restrict__ boxes1, const T* __restrict__ boxes2, T* __restrict__ out) {
  store_pairs(s, out, [&](int64_t row, int64_t column) {
    const Box<T> a = load_aligned_box(boxes1 + 4 * row), b = load_aligned_box(boxes2 + 4 * column);
    return pair_value<kKind>(a, b, s.eps);
  });
}

template <IouKind kKind, class T>
__global__ void __launch_bounds__(kThreads)
    aligned_kernel(BoxIouShape s, const T* __restrict__ boxes1, const T* __restrict__ boxes2, T* __restrict__ out) {
  FV_FOR(i, s.out_size())
    out[i] = pair_value<kKind>(load_aligned_box(boxes1 + 4 * i), load_aligned_box(boxes2 + 4 * i), s.eps);
}

template <class T>
__device__ void add_scaled(Box<T>& sum, const Box<T>& d, T g) {
  if (g == T(0)) return;
  sum.x1 += g * d.x1, sum.y1 += g * d.y1, sum.x2 += g * d.x2, sum.y2 += g * d.y2;
}

template <IouKind kKind, class T>
__global__ void __launch_bounds__(kThreads)
    aligned_backward_kernel(BoxIouShape s, const T* __restrict__ grad, const T* __restrict__ boxes1,
                            const T* __restrict__ boxes2, T* __restrict__ grad1, T* __restrict__ grad2) {
  FV_FOR(i, s.out_size()) {
    const Box<T> a = load_aligned_box(boxes1 + 4 * i), b = load_aligned_box(boxes2 + 4 * i);
    Box<T> da{}, db{};
    add_scaled(da, pair_gradient<kKind>(a, b, s.eps), grad[i]);
    add_scaled(db, pair_gradient<kKind>(b, a, s.eps), grad[i]);
    store_box(grad1 + 4 * i, da);
    store_box(grad2 + 4 * i, db);
  }
}

// One set of boxes as seen from the other: owned box i and other box j meet at grad[i * own_stride + j * other_stride].
struct PairView {
  int64_t owned, others, own_stride, other_stride;
};

constexpr int kOwned = 32, kSlices = kThreads / kOwned;

template <IouKind kKind, class T>
__global__ void __launch_bounds__(kThreads)
    owned_backward_kernel(PairView v, int64_t batch, double eps, const T* __restrict__ grad,
                          const T* __restrict__ own_boxes, const T* __restrict__ other_boxes,
                          T* __restrict__ own_grad) {
  FV_SHARED(partial, T[kSlices][kOwned][4]);
  const int lane = threadIdx.x % kOwned, slice = threadIdx.x / kOwned;
  const int64_t tiles = ceil_div(v.owned, int64_t(kOwned));
  for (int64_t tile = blockIdx.x; tile < batch * tiles; tile += gridDim.x) {
    const int64_t n = tile / tiles, i = tile % tiles * kOwned + lane;
    Box<T> sum{};
    if (i < v.owned) {
      const Box<T> own = load_aligned_box(own_boxes + 4 * (n * v.owned + i));
      const T* g = grad + n * v.owned * v.others + i * v.own_stride;
      for (int64_t j = slice; j < v.others; j += kSlices)
        add_scaled(sum, pair_gradient<kKind>(own, load_aligned_box(other_boxes + 4 * (n * v.others + j)), eps),
                   g[j * v.other_stride]);
    }
    store_box(partial[slice][lane], sum);
    __syncthreads();
    if (slice == 0 && i < v.owned) {
      for (int k = 1; k < kSlices; ++k) {
        const T* p = partial[k][lane];
        sum.x1 += p[0], sum.y1 += p[1], sum.x2 += p[2], sum.y2 += p[3];
      }
      store_box(own_grad + 4 * (n * v.owned + i), sum);
    }
    __syncthreads();
  }
}

}  // namespace

template <class T>
void box_iou(const BoxIouShape& s, const T* boxes1, const T* boxes2, T* out, const CudaExec& exec) {
  if (s.out_size() == 0) return;
  with_kind(s.kind, [&](auto kind) {
    constexpr IouKind k = decltype(kind)::value;
    if (s.aligned) launch(exec, aligned_kernel<k, T>, grid_for(s.out_size()), kThreads, 0, s, boxes1, boxes2, out);
    else launch(exec, all_pairs_kernel<k, T>, grid_for_pairs(s), kThreads, 0, s, boxes1, boxes2, out);
  });
}

template <class T>
void box_iou_backward(const BoxIouShape& s, const T* grad, const T* boxes1, const T* boxes2, T* grad1, T* grad2,
                      const CudaExec& exec) {
  with_kind(s.kind, [&](auto kind) {
    constexpr IouKind k = decltype(kind)::value;
    if (s.aligned) {
      if (s.out_size() > 0)
        launch(exec, aligned_backward_kernel<k, T>, grid_for(s.out_size()), kThreads, 0, s, grad, boxes1, boxes2, grad1,
               grad2);
      return;
    }
    const auto own = [&](const PairView& v, const T* own_boxes, const T* other_boxes, T* own_grad) {
      if (s.batch * v.owned > 0)
        launch(exec, owned_backward_kernel<k, T>, grid_for(s.batch * ceil_div(v.owned, int64_t(kOwned)), 1), kThreads,
               0, v, s.batch, s.eps, grad, own_boxes, other_boxes, own_grad);
    };
    own({s.rows, s.cols, s.cols, 1}, boxes1, boxes2, grad1);
    own({s.cols, s.rows, 1, s.cols}, boxes2, boxes1, grad2);
  });
}

#define INSTANTIATE(T)                                                                \
  template void box_iou(const BoxIouShape&, const T*, const T*, T*, const CudaExec&); \
  template void box_iou_backward(const BoxIouShape&, const T*, const T*, const T*, T*, T*, const CudaExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
