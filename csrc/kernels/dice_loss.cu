// A block takes 1024 pixels of a sample, four per thread, and one class (sigmoid) or all of them one after another
// (softmax, whose pixels' sums of exponentials come first and are kept in registers). Bytes per logit in float32 with
// dense targets: 8 forward and 12 backward, plus 8 for each pass over the classes that the caches do not hold. Partial
// sums are added in the order of the chunks, a plane to a block, and reduced losses by one more block.
#include "dice_loss.h"
#include "reduction.cuh"

namespace fastvision {
namespace {

constexpr int kPerThread = int(kDiceChunk / kThreads), kWarps = kThreads / 32, kClassesAtOnce = 32;

// What a block works on.
struct Work {
  int64_t sample, chunk, class_begin, class_end;
};
FV_HD int64_t work_items(const DiceShape& s) { return s.samples * dice_chunks(s.pixels) * (s.softmax ? 1 : s.classes); }
FV_HD Work work_at(const DiceShape& s, int64_t i) {
  const int64_t chunks = dice_chunks(s.pixels);
  if (s.softmax) return {i / chunks, i % chunks, 0, s.classes};
  const int64_t plane = i / chunks, c = plane % s.classes;
  return {plane / s.classes, i % chunks, c, c + 1};
}

// A thread's pixel: where it is and what its label is.
struct Pixel {
  int64_t place;   // of class 0, in logits and targets
  int64_t number;  // among the pixels of all samples
  int64_t label;
  bool inside, counts;
};
template <class T>
__device__ Pixel pixel_at(const DiceShape& s, const DiceInputs<T>& in, const Work& w, int k, DeviceErrors* errors) {
  const int64_t i = w.chunk * kDiceChunk + k * kThreads + threadIdx.x;
  Pixel p{w.sample * s.classes * s.pixels + i * s.pixel_stride(), w.sample * s.pixels + i, 0, i < s.pixels, false};
  p.counts = p.inside;
  if (!in.labels || !p.inside) return p;
  p.label = in.labels[p.number];
  const bool ignored = s.ignores && p.label == s.ignored_label, bad = p.label < 0 || p.label >= s.classes;
  p.counts = !ignored && !bad;
  if (errors && bad && !ignored && w.class_begin == 0) report_bad_row(errors, OpId::dice_loss, p.number);
  return p;
}

template <class A>
struct Target {
  A value;
  bool counts;
};
template <class T>
__device__ Target<Accum<T>> target_at(const DiceShape& s, const DiceInputs<T>& in, const Pixel& p, int64_t c) {
  using A = Accum<T>;
  if (in.labels || !p.inside) return {p.label == c ? A(1) : A(0), p.counts};
  const A t = to_accum(in.targets[p.place + c * s.class_stride()]);
  return {t, !(s.ignores && t == A(s.ignored))};
}
template <class T>
__device__ Accum<T> logit_at(const DiceShape& s, const DiceInputs<T>& in, const Pixel& p, int64_t c) {
  return p.inside ? to_accum(in.logits[p.place + c * s.class_stride()]) : Accum<T>(0);
}

template <bool kSoftmax, class T>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(DiceShape s, DiceInputs<T> in, DiceOutputs<T> out, DeviceErrors* errors) {
  using A = Accum<T>;
  FV_SHARED(warp_sums, DiceSums[kClassesAtOnce][kWarps]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t chunks = dice_chunks(s.pixels);
  for (int64_t item = blockIdx.x; item < work_items(s); item += gridDim.x) {
    const Work w = work_at(s, item);
    Pixel pixels[kPerThread];
    A largest[kPerThread], inverse[kPerThread];
    FV_UNROLL
    for (int k = 0; k < kPerThread; ++k) {
      pixels[k] = pixel_at(s, in, w, k, errors);
      if constexpr (kSoftmax) {
        OnlineSum<A> sum;
        for (int64_t c = 0; c < s.classes; ++c) sum.add(logit_at(s, in, pixels[k], c));
        // An infinite logit makes NaN of all classes, as softmax does.
        largest[k] = sum.largest, inverse[k] = A(1) / (sum.sum + (sum.largest - sum.largest));
        if (pixels[k].inside) {
          out.states[pixels[k].number] = largest[k];
          out.states[s.samples * s.pixels + pixels[k].number] = inverse[k];
        }
      }
    }
    for (int64_t first = w.class_begin; first < w.class_end; first += kClassesAtOnce) {
      const int count = int(min_of(w.class_end - first, int64_t(kClassesAtOnce)));
      for (int at = 0; at < count; ++at) {
        A sum_both(0), sum_probability(0), sum_target(0);
        FV_UNROLL
        for (int k = 0; k < kPerThread; ++k) {
          const A x = logit_at(s, in, pixels[k], first + at);
          const Target<A> target = target_at(s, in, pixels[k], first + at);
          if (!target.counts) continue;
          A p;
          if constexpr (kSoftmax) p = exp_negative(x - largest[k]) * inverse[k];
          else p = sigmoid(x).value;
          sum_both += p * target.value, sum_probability += p, sum_target += target.value;
        }
        for (int step = 16; step; step /= 2) {
          sum_both += __shfl_xor_sync(kFullWarp, sum_both, step);
          sum_probability += __shfl_xor_sync(kFullWarp, sum_probability, step);
          sum_target += __shfl_xor_sync(kFullWarp, sum_target, step);
        }
        if (lane == 0) warp_sums[at][warp] = {double(sum_both), double(sum_probability), double(sum_target)};
      }
      __syncthreads();
      if (int(threadIdx.x) < count) {
        DiceSums sums{};
        for (int k = 0; k < kWarps; ++k) sums = sums + warp_sums[threadIdx.x][k];
        out.partials[(w.sample * s.classes + first + threadIdx.x) * chunks + w.chunk] = sums;
      }
      __syncthreads();
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) finish_kernel(DiceShape s, DiceOutputs<T> out) {
  const int64_t chunks = dice_chunks(s.pixels);
  LossSum total{};
  for (int64_t plane = blockIdx.x; plane < s.planes(); plane += gridDim.x) {
    DiceSums own{};
    for (int64_t k = threadIdx.x; k < chunks; k += kThreads) own = own + out.partials[plane * chunks + k];
    const DiceFraction<double> f = dice_fraction(s, block_sum(own));
    if (threadIdx.x == 0) total = total + out.finish(s, plane, f);
  }
  if (out.loss && threadIdx.x == 0) out.sums[blockIdx.x] = total;
}

template <bool kSoftmax, class T>
__global__ void __launch_bounds__(kThreads, sizeof(Accum<T>) == 4 ? 3 : 2)
    backward_kernel(DiceShape s, DiceInputs<T> in, DiceGrad<T> g, T* __restrict__ gradient) {
  using A = Accum<T>;
  for (int64_t item = blockIdx.x; item < work_items(s); item += gridDim.x) {
    const Work w = work_at(s, item);
    const auto on_probability = [&](const Pixel& pixel, int64_t c) {
      const DiceSlope<A> slope = g.slope(s, w.sample * s.classes + c);
      const Target<A> target = target_at(s, in, pixel, c);
      return target.counts ? slope.base + slope.slope * target.value : A(0);
    };
    for (int k = 0; k < kPerThread; ++k) {
      const Pixel pixel = pixel_at(s, in, w, k, nullptr);
      if (!pixel.inside) continue;
      A largest(0), inverse(0), mean(0);
      if constexpr (kSoftmax) {
        largest = g.states[pixel.number], inverse = g.states[s.samples * s.pixels + pixel.number];
        for (int64_t c = 0; c < s.classes; ++c)
          mean += exp_negative(logit_at(s, in, pixel, c) - largest) * inverse * on_probability(pixel, c);
      }
      for (int64_t c = w.class_begin; c < w.class_end; ++c) {
        const A x = logit_at(s, in, pixel, c), d = on_probability(pixel, c);
        A value;
        if constexpr (kSoftmax) value = exp_negative(x - largest) * inverse * (d - mean);
        else value = sigmoid(x).slope * d;
        gradient[pixel.place + c * s.class_stride()] = from_accum<T>(value);
      }
    }
  }
}

}  // namespace

template <class T>
void dice_loss(const DiceShape& s, const DiceInputs<T>& in, const DiceOutputs<T>& out, const CudaExec& exec) {
  if (s.planes() * s.pixels > 0)
    launch(exec, s.softmax ? forward_kernel<true, T> : forward_kernel<false, T>, grid_for(work_items(s), 1), kThreads,
           0, s, in, out, exec.errors);
  const int64_t sums = dice_sums(s.planes());
  if (sums > 0) launch(exec, finish_kernel<T>, unsigned(sums), kThreads, 0, s, out);
  if (out.loss)
    launch(exec, finish_loss_kernel<Accum<T>>, 1, kThreads, 0, s.reduction, out.sums, sums, out.loss,
           static_cast<Accum<T>*>(nullptr));
}

template <class T>
void dice_loss_backward(const DiceShape& s, const DiceInputs<T>& in, const DiceGrad<T>& g, T* gradient,
                        const CudaExec& exec) {
  if (s.planes() * s.pixels == 0) return;
  launch(exec, s.softmax ? backward_kernel<true, T> : backward_kernel<false, T>, grid_for(work_items(s), 1), kThreads,
         0, s, in, g, gradient);
}

#define INSTANTIATE(T)                                                                                     \
  template void dice_loss(const DiceShape&, const DiceInputs<T>&, const DiceOutputs<T>&, const CudaExec&); \
  template void dice_loss_backward(const DiceShape&, const DiceInputs<T>&, const DiceGrad<T>&, T*, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
