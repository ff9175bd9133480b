// A thread per pair: 32 bytes in, and 4 out for the loss or 16 per set of boxes for the gradient, in float32. Around 60
// operations a pair, so memory is the limit. Sums have one order: each block adds up a fixed set of tiles.
#include "box_iou_loss.h"
#include "reduction.cuh"

namespace fastvision {
namespace {

template <IouKind kKind, class T>
__device__ Box<T> scaled_gradient(const Box<T>& a, const Box<T>& b, bool normal, T angle_a, T angle_b, double eps,
                                  T scale) {
  const T e(eps);
  Box<T> d = iou_gradient<kKind>(a, b, angle_a, angle_b, e, e, e);
  if (!normal || !is_finite(d)) d = careful_iou_gradient<kKind>(a, b, eps, eps);
  if (scale == T(0)) return {};
  return {d.x1 * scale, d.y1 * scale, d.x2 * scale, d.y2 * scale};
}

template <IouKind kKind, LossPass kPass, class T>
__global__ void __launch_bounds__(kThreads)
    loss_kernel(BoxIouLossShape s, BoxIouLossInputs<T> in, BoxIouLossOutputs<T> out, int64_t blocks) {
  const T common = common_scale(s, kPass, in);
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    double sum = 0;
    for (int64_t tile = block; tile * kThreads < s.pairs; tile += blocks) {
      const int64_t i = tile * kThreads + threadIdx.x;
      if (i >= s.pairs) continue;
      const Box<T> a = load_aligned_box(in.boxes1 + 4 * i), b = load_aligned_box(in.boxes2 + 4 * i);
      const T angle_a = loss_angle<kKind>(a), angle_b = loss_angle<kKind>(b);
      const IouTerm<T> term = iou_term<kKind>(a, b, angle_a, angle_b, T(s.eps), T(s.eps));
      if constexpr (kPass != LossPass::gradient) {
        const T loss = T(1) - (term.normal ? term.value : careful_iou_term<kKind>(a, b, s.eps, s.eps));
        if (out.losses) out.losses[i] = loss;
        sum += double(loss);
      }
      if constexpr (kPass != LossPass::loss) {
        const T scale = s.reduction == Reduction::none ? -in.grad[i] : common;
        if (out.gradient1)
          store_box(out.gradient1 + 4 * i, scaled_gradient<kKind>(a, b, term.normal, angle_a, angle_b, s.eps, scale));
        if (out.gradient2)
          store_box(out.gradient2 + 4 * i, scaled_gradient<kKind>(b, a, term.normal, angle_b, angle_a, s.eps, scale));
      }
    }
    if (kPass == LossPass::gradient || !out.partials) continue;
    const double total = block_sum(sum);
    if (threadIdx.x == 0) out.partials[block] = {total, 0};
  }
}

// As finish_loss_kernel, with the number of pairs known beforehand.
template <class T>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(BoxIouLossShape s, const LossSum* __restrict__ partials, int64_t n, T* __restrict__ loss) {
  double own = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) own += partials[i].loss;
  const double total = block_sum(own);
  if (threadIdx.x == 0) *loss = T(reduced(s.reduction, {total, double(s.pairs)}));
}

}  // namespace

template <class T>
void box_iou_loss(const BoxIouLossShape& s, LossPass pass, const BoxIouLossInputs<T>& in,
                  const BoxIouLossOutputs<T>& out, const CudaExec& exec) {
  const int64_t blocks = min_of(ceil_div(s.pairs, int64_t(kThreads)), kMaxPartials);
  const auto run = [&](auto kernel) {
    if (blocks > 0) launch(exec, kernel, grid_for(blocks, 1), kThreads, 0, s, in, out, blocks);
  };
  with_loss_kind(s.kind, [&](auto kind) {
    constexpr IouKind kKind = decltype(kind)::value;
    if (pass == LossPass::loss) run(loss_kernel<kKind, LossPass::loss, T>);
    else if (pass == LossPass::gradient) run(loss_kernel<kKind, LossPass::gradient, T>);
    else run(loss_kernel<kKind, LossPass::both, T>);
  });
  if (out.loss) launch(exec, finish_kernel<T>, 1, kThreads, 0, s, out.partials, blocks, out.loss);
}

#define INSTANTIATE(T)                                                                     \
  template void box_iou_loss(const BoxIouLossShape&, LossPass, const BoxIouLossInputs<T>&, \
                             const BoxIouLossOutputs<T>&, const CudaExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
