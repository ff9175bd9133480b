// A chunk of values at a time: labels and class weights are first spelled out for the chunk, so that one loop of
// vectors serves every kind of target. Sums are kept in as many lanes as the widest instruction set has, so that all of
// them add in the same order.
#include "sigmoid_focal_loss.h"

#include <algorithm>

#include "simd.h"

namespace fastvision {
namespace {

// Targets of values [begin, end) from labels: 1 at the label, 0 elsewhere, -1 in rows that are ignored.
template <class T>
void spell_out(const SigmoidFocalShape& s, const int64_t* labels, int64_t begin, int64_t end, T* targets) {
  std::fill(targets, targets + (end - begin), from_accum<T>(0));
  for (int64_t row = begin / s.classes; row * s.classes < end; ++row) {
    const int64_t label = labels[row], first = row * s.classes;
    if (s.ignores && label == s.ignored_label)
      std::fill(targets + max_of(first, begin) - begin, targets + min_of(first + s.classes, end) - begin,
                from_accum<T>(-1));
    else if (label < s.classes && first + label >= begin && first + label < end)
      targets[first + label - begin] = from_accum<T>(1);
  }
}

template <class A>
void spell_out_weights(const SigmoidFocalShape& s, const A* weight, int64_t begin, int64_t end, A* weights) {
  int64_t c = begin % s.classes;
  for (int64_t i = 0; i < end - begin; ++i) {
    weights[i] = weight[c];
    if (++c == s.classes) c = 0;
  }
}

// Arguments are copies, so that no store can change them.
template <bool kSquare, LossPass kPass, class T>
LossSum chunk(const SigmoidFocalShape s, const SigmoidFocalInputs<T> in, const SigmoidFocalOutputs<T> out,
              int64_t begin, int64_t end, Accum<T> scale) {
  using A = Accum<T>;
  using V = Vec<A>;
  T spelled[kFocalChunk];
  A weights[kFocalChunk] = {};
  const T* targets = in.targets ? in.targets + begin : spelled;
  if (!in.targets) spell_out(s, in.labels, begin, end, spelled);
  if (in.weight) spell_out_weights(s, in.weight, begin, end, weights);
  const V ignored(A(in.targets ? s.ignored : -1)), zero(A(0)), one(A(1));
  GroupSum<A> sum, skipped;
  for_each_vector<A>(end - begin, [&](int64_t i, int part, auto count) {
    const V target = load_vector(targets + i, count);
    LossTerm<V> term = sigmoid_focal_term<kSquare>(load_vector(in.inputs + begin + i, count), target, s);
    if (in.weight) {
      const V w = V::load(weights + i);
      term = {term.loss * w, term.gradient * w};
    }
    const auto inside = lanes_in_range<A>(count);
    if (s.ignores) {
      const auto skip = target == ignored;
      term = {select(skip, zero, term.loss), select(skip, zero, term.gradient)};
      skipped.parts[part] = skipped.parts[part] + select(both(skip, inside), one, zero);
    }
    if constexpr (kPass != LossPass::gradient) {
      if (out.losses) store_vector(out.losses + begin + i, term.loss, count);
      else sum.parts[part] = sum.parts[part] + select(inside, term.loss, zero);
    }
    if constexpr (kPass != LossPass::loss)
      store_vector(out.gradient + begin + i,
                   term.gradient * (in.grad ? load_vector(in.grad + begin + i, count) : V(scale)), count);
  });
  return {double(sum.total()), double(end - begin) - double(skipped.total())};
}

template <bool kSquare, LossPass kPass, class T, class Isa>
void run(const SigmoidFocalShape& s, const SigmoidFocalInputs<T>& in, const SigmoidFocalOutputs<T>& out,
         const Cpu<Isa>& exec) {
  using A = Accum<T>;
  A scale(1);
  if (kPass == LossPass::gradient && !in.grad) scale = gradient_scale(s.reduction, *in.grad_of_reduced, *in.counted);
  if (kPass == LossPass::both) scale = gradient_scale(s.reduction, A(1), A(s.total));
  exec(focal_chunks(s.total), 4, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      const LossSum sum =
          chunk<kSquare, kPass>(s, in, out, c * kFocalChunk, min_of((c + 1) * kFocalChunk, s.total), scale);
      if (out.partials) out.partials[c] = sum;
    }
  });
  if (out.loss) finish_loss(s.reduction, out.partials, focal_chunks(s.total), out.loss, out.counted);
}

}  // namespace

template <class T, class Isa>
void sigmoid_focal_loss(const SigmoidFocalShape& s, LossPass pass, const SigmoidFocalInputs<T>& in,
                        const SigmoidFocalOutputs<T>& out, const Cpu<Isa>& exec) {
  with_square(s.gamma, [&](auto square) {
    constexpr bool kSquare = decltype(square)::value;
    if (pass == LossPass::loss) run<kSquare, LossPass::loss>(s, in, out, exec);
    else if (pass == LossPass::gradient) run<kSquare, LossPass::gradient>(s, in, out, exec);
    else run<kSquare, LossPass::both>(s, in, out, exec);
  });
}

#define INSTANTIATE(T)                                                                               \
  template void sigmoid_focal_loss(const SigmoidFocalShape&, LossPass, const SigmoidFocalInputs<T>&, \
                                   const SigmoidFocalOutputs<T>&, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
