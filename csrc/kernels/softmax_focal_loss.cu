// Where classes are planes a thread owns a pixel, and neighbours read neighbouring logits; where classes lie together a
// warp owns a pixel and its lanes share the classes. Either way the logits are read once, because the sum of
// exponentials is rescaled as larger logits come, and once more for the gradient, which needs three numbers per pixel
// besides: 4 and 8 bytes per logit in float32, so that memory is the limit from a few classes on.
#include "reduction.cuh"
#include "softmax_focal_loss.h"

namespace fastvision {
namespace {

// kShare: lanes that share a pixel.
template <bool kSquare, int kShare, class T>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(SoftmaxFocalShape s, SoftmaxFocalInputs<T> in, SoftmaxFocalOutputs<T> out, int64_t blocks,
                   DeviceErrors* errors) {
  using A = Accum<T>;
  constexpr int kPixels = kThreads / kShare;
  const int lane = threadIdx.x % kShare;
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    LossSum sum{};
    for (int64_t tile = block; tile * kPixels < s.pixels; tile += blocks) {
      const int64_t pixel = tile * kPixels + threadIdx.x / kShare;
      const bool active = pixel < s.pixels;
      const int64_t label = active ? in.labels[pixel] : 0;
      const bool good = label >= 0 && label < s.classes, skip = label == s.ignored || !good;
      OnlineSum<A> others;
      A own(0);
      if (active) {
        const T* logits = in.logits + s.offset(pixel);
        for (int64_t c = lane; c < s.classes; c += kShare) {
          const A x = to_accum(logits[c * s.inner]);
          if (c == label) own = x;
          else others.add(x);
        }
      }
      // The label's logit is 0 in all lanes but one.
      for (int step = kShare / 2; step; step /= 2) {
        others.add(OnlineSum<A>{__shfl_xor_sync(kFullWarp, others.largest, step),
                                __shfl_xor_sync(kFullWarp, others.sum, step)});
        own += __shfl_xor_sync(kFullWarp, own, step);
      }
      if (!active || lane != 0) continue;
      SoftmaxFocalTerm<A> term{};
      A factor(0);
      if (!skip) {
        factor = in.weight ? in.weight[label] : A(1);
        term = softmax_focal_term<kSquare>(own, others, factor * A(s.alpha), s);
      } else if (label != s.ignored) {
        report_bad_row(errors, OpId::softmax_focal_loss, pixel);
      }
      sum = sum + LossSum{double(term.loss), double(factor)};
      if (out.losses) out.losses[pixel] = from_accum<T>(term.loss);
      if (out.states) {
        out.states[pixel] = term.slope;
        out.states[s.pixels + pixel] = term.largest;
        out.states[2 * s.pixels + pixel] = term.inverse;
      }
    }
    if (!out.partials) continue;
    const LossSum total = block_sum(sum);
    if (threadIdx.x == 0) out.partials[block] = total;
  }
}

template <int kShare, class T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(SoftmaxFocalShape s, SoftmaxFocalInputs<T> in, SoftmaxFocalGrad<T> g, T* __restrict__ gradient) {
  using A = Accum<T>;
  const A scale = g.grad ? A(1) : gradient_scale(s.reduction, *g.grad_of_reduced, *g.counted);
  constexpr int64_t kPixels = kThreads / kShare;
  for (int64_t tile = blockIdx.x; tile * kPixels < s.pixels; tile += gridDim.x) {
    const int64_t pixel = tile * kPixels + threadIdx.x / kShare;
    if (pixel >= s.pixels) continue;
    const int64_t label = in.labels[pixel], offset = s.offset(pixel);
    const bool skip = label == s.ignored || label < 0 || label >= s.classes;
    const A slope = skip ? A(0) : g.states[pixel] * (g.grad ? to_accum(g.grad[pixel]) : scale);
    const A largest = g.states[s.pixels + pixel], inverse = g.states[2 * s.pixels + pixel];
    for (int64_t c = threadIdx.x % kShare; c < s.classes; c += kShare) {
      const A p = exp_negative(to_accum(in.logits[offset + c * s.inner]) - largest) * inverse;
      gradient[offset + c * s.inner] = from_accum<T>(skip ? A(0) : slope * ((c == label ? A(1) : A(0)) - p));
    }
  }
}

// Calls f with how many lanes share a pixel.
template <class F>
void with_share(const SoftmaxFocalShape& s, F&& f) {
  if (s.inner == 1 && s.classes >= 4) return f(std::integral_constant<int, 32>());
  f(std::integral_constant<int, 1>());
}

}  // namespace

template <class T>
void softmax_focal_loss(const SoftmaxFocalShape& s, const SoftmaxFocalInputs<T>& in, const SoftmaxFocalOutputs<T>& out,
                        const CudaExec& exec) {
  int64_t blocks = 0;
  with_share(s, [&](auto share) {
    constexpr int kShare = decltype(share)::value;
    blocks = min_of(ceil_div(s.pixels, int64_t(kThreads / kShare)), kMaxPartials);
    with_square(s.gamma, [&](auto square) {
      if (blocks > 0)
        launch(exec, forward_kernel<decltype(square)::value, kShare, T>, grid_for(blocks, 1), kThreads, 0, s, in, out,
               blocks, exec.errors);
    });
  });
  if (out.loss)
    launch(exec, finish_loss_kernel<Accum<T>>, 1, kThreads, 0, s.reduction, out.partials, blocks, out.loss,
           out.counted);
}

template <class T>
void softmax_focal_loss_backward(const SoftmaxFocalShape& s, const SoftmaxFocalInputs<T>& in,
                                 const SoftmaxFocalGrad<T>& g, T* gradient, const CudaExec& exec) {
  with_share(s, [&](auto share) {
    constexpr int kShare = decltype(share)::value;
    if (s.pixels > 0)
      launch(exec, backward_kernel<kShare, T>, grid_for(s.pixels, kThreads / kShare), kThreads, 0, s, in, g, gradient);
  });
}

#define INSTANTIATE(T)                                                                              \
  template void softmax_focal_loss(const SoftmaxFocalShape&, const SoftmaxFocalInputs<T>&,          \
                                   const SoftmaxFocalOutputs<T>&, const CudaExec&);                 \
  template void softmax_focal_loss_backward(const SoftmaxFocalShape&, const SoftmaxFocalInputs<T>&, \
                                            const SoftmaxFocalGrad<T>&, T*, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
