// Each thread takes 16 bytes of logits at a time: one exponential, one logarithm and one division per logit, about 60
// operations. Bytes per logit in float32: loss 4 (8 with dense targets), gradient 8 (12); nothing is saved between the
// two, so together 12 (20), and memory is the limit. A block adds up a fixed set of tiles, so the sums have one order.
#include "reduction.cuh"
#include "sigmoid_focal_loss.h"

namespace fastvision {
namespace {

template <class T>
constexpr int kPack = 16 / sizeof(T);
template <class T>
constexpr int64_t kTile = 4 * kThreads * kPack<T>;

// The target of one value from its row's label. Ignored rows, and those with a label out of range, are skipped.
struct RowTarget {
  int64_t label;
  bool skip;
};
__device__ RowTarget row_target(const SigmoidFocalShape& s, const int64_t* labels, int64_t row) {
  const int64_t label = labels[row];
  return {label, (s.ignores && label == s.ignored_label) || label < 0 || label > s.classes};
}

template <bool kSquare, LossPass kPass, class T>
__global__ void __launch_bounds__(kThreads, 2)
    focal_kernel(SigmoidFocalShape s, SigmoidFocalInputs<T> in, SigmoidFocalOutputs<T> out, int64_t blocks,
                 DeviceErrors* errors) {
  using A = Accum<T>;
  A scale(1);
  if (kPass == LossPass::gradient && !in.grad) scale = gradient_scale(s.reduction, *in.grad_of_reduced, *in.counted);
  if (kPass == LossPass::both) scale = gradient_scale(s.reduction, A(1), A(s.total));
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    LossSum sum{};
    for (int64_t tile = block; tile * kTile<T> < s.total; tile += blocks) {
      A tile_loss(0);
      int tile_counted = 0;
      for (int step = 0; step < 4; ++step) {
        const int64_t begin = tile * kTile<T> + (step * kThreads + int(threadIdx.x)) * kPack<T>;
        if (begin >= s.total) break;
        const int count = int(min_of(s.total - begin, int64_t(kPack<T>)));
        const bool whole = count == kPack<T>;
        Pack<T, kPack<T>> x, t, g, loss, gradient;
        if (whole) {
          x = load_pack<kPack<T>>(in.inputs + begin);
          if (in.targets) t = load_pack<kPack<T>>(in.targets + begin);
          if (kPass == LossPass::gradient && in.grad) g = load_pack<kPack<T>>(in.grad + begin);
        } else {
          FV_UNROLL
          for (int k = 0; k < kPack<T>; ++k)
            if (k < count) {
              x.at[k] = in.inputs[begin + k];
              if (in.targets) t.at[k] = in.targets[begin + k];
              if (kPass == LossPass::gradient && in.grad) g.at[k] = in.grad[begin + k];
            }
        }
        int64_t row = begin / s.classes, column = begin - row * s.classes;
        RowTarget of_row{};
        if (in.labels) of_row = row_target(s, in.labels, row);
        FV_UNROLL
        for (int k = 0; k < kPack<T>; ++k) {
          if (k >= count) break;
          if (column == s.classes) {
            column = 0, ++row;
            if (in.labels) of_row = row_target(s, in.labels, row);
          }
          A target;
          bool skip;
          if (in.labels) {
            target = of_row.label == column ? A(1) : A(0);
            skip = of_row.skip;
            if (kPass != LossPass::gradient && skip && column == 0 && !(s.ignores && of_row.label == s.ignored_label))
              report_bad_row(errors, OpId::sigmoid_focal_loss, row);
          } else {
            target = to_accum(t.at[k]);
            skip = s.ignores && target == A(s.ignored);
          }
          LossTerm<A> term{};
          if (!skip) term = sigmoid_focal_term<kSquare>(to_accum(x.at[k]), target, s);
          if (in.weight && !skip) {
            const A w = in.weight[column];
            term = {term.loss * w, term.gradient * w};
          }
          tile_loss += term.loss;
          tile_counted += skip ? 0 : 1;
          if (kPass != LossPass::gradient) loss.at[k] = from_accum<T>(term.loss);
          if (kPass != LossPass::loss) {
            const A factor = kPass == LossPass::gradient && in.grad ? to_accum(g.at[k]) : scale;
            gradient.at[k] = from_accum<T>(term.gradient * factor);
          }
          ++column;
        }
        const auto store = [&](T* to, const Pack<T, kPack<T>>& values) {
          if (whole) return store_pack(to + begin, values);
          FV_UNROLL
          for (int k = 0; k < kPack<T>; ++k)
            if (k < count) to[begin + k] = values.at[k];
        };
        if (kPass != LossPass::gradient && out.losses) store(out.losses, loss);
        if (kPass != LossPass::loss) store(out.gradient, gradient);
      }
      sum = sum + LossSum{double(tile_loss), double(tile_counted)};
    }
    if (kPass == LossPass::gradient || !out.partials) continue;
    const LossSum total = block_sum(sum);
    if (threadIdx.x == 0) out.partials[block] = total;
  }
}

}  // namespace

template <class T>
void sigmoid_focal_loss(const SigmoidFocalShape& s, LossPass pass, const SigmoidFocalInputs<T>& in,
                        const SigmoidFocalOutputs<T>& out, const CudaExec& exec) {
  const int64_t blocks = min_of(ceil_div(s.total, kTile<T>), kMaxPartials);
  const auto run = [&](auto kernel) {
    if (blocks > 0) launch(exec, kernel, grid_for(blocks, 1), kThreads, 0, s, in, out, blocks, exec.errors);
  };
  with_square(s.gamma, [&](auto square) {
    constexpr bool kSquare = decltype(square)::value;
    if (pass == LossPass::loss) run(focal_kernel<kSquare, LossPass::loss, T>);
    else if (pass == LossPass::gradient) run(focal_kernel<kSquare, LossPass::gradient, T>);
    else run(focal_kernel<kSquare, LossPass::both, T>);
  });
  if (out.loss)
    launch(exec, finish_loss_kernel<Accum<T>>, 1, kThreads, 0, s.reduction, out.partials, blocks, out.loss,
           out.counted);
}

#define INSTANTIATE(T)                                                                               \
  template void sigmoid_focal_loss(const SigmoidFocalShape&, LossPass, const SigmoidFocalInputs<T>&, \
                                   const SigmoidFocalOutputs<T>&, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
