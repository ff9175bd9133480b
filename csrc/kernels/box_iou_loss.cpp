// A chunk of pairs at a time is spread into one array per coordinate, computed in vectors and, for the gradients, put
// together again.
#include "box_iou_loss.h"

#include "simd.h"

namespace fastvision {
namespace {

template <class T>
struct BoxChunk {
  T at[4][kBoxLossChunk];

  // The last vector is filled up with empty boxes.
  void load(const T* boxes, int64_t n) {
    for (int64_t i = 0; i < n; ++i)
      for (int k = 0; k < 4; ++k) at[k][i] = boxes[4 * i + k];
    for (int64_t i = n; i % kLanes<T>; ++i)
      for (int k = 0; k < 4; ++k) at[k][i] = 0;
  }
  void store(T* boxes, int64_t n) const {
    for (int64_t i = 0; i < n; ++i)
      for (int k = 0; k < 4; ++k) boxes[4 * i + k] = at[k][i];
  }
  FV_HD Box<Vec<T>> vectors(int64_t i) const {
    return {Vec<T>::load(at[0] + i), Vec<T>::load(at[1] + i), Vec<T>::load(at[2] + i), Vec<T>::load(at[3] + i)};
  }
  FV_HD void set_vectors(int64_t i, const Box<Vec<T>>& b) {
    b.x1.store(at[0] + i), b.y1.store(at[1] + i), b.x2.store(at[2] + i), b.y2.store(at[3] + i);
  }
  FV_HD Box<T> box(int64_t i) const { return {at[0][i], at[1][i], at[2][i], at[3][i]}; }
};

template <class T>
FV_HD Vec<T> scale_or_zero(Vec<T> v, Vec<T> by) {
  return select(by == Vec<T>(T(0)), Vec<T>(T(0)), v * by);
}

template <IouKind kKind, class T>
FV_HD void gradient_of(const BoxChunk<T>& a, const BoxChunk<T>& b, int64_t i, MaskOf<T, FV_ISA> normal, Vec<T> angle_a,
                       Vec<T> angle_b, double eps, Vec<T> scale, BoxChunk<T>& result) {
  const Vec<T> e{T(eps)};
  Box<Vec<T>> d = iou_gradient<kKind>(a.vectors(i), b.vectors(i), angle_a, angle_b, e, e, e);
  for (uint32_t left = bits(!both(normal, is_finite(d))); left; left &= left - 1) {
    const int k = __builtin_ctz(left);
    const Box<T> g = careful_iou_gradient<kKind>(a.box(i + k), b.box(i + k), eps, eps);
    d.x1.raw[k] = g.x1, d.y1.raw[k] = g.y1, d.x2.raw[k] = g.x2, d.y2.raw[k] = g.y2;
  }
  result.set_vectors(i, {scale_or_zero(d.x1, scale), scale_or_zero(d.y1, scale), scale_or_zero(d.x2, scale),
                         scale_or_zero(d.y2, scale)});
}

template <IouKind kKind, LossPass kPass, class T>
LossSum chunk(const BoxIouLossShape s, const BoxIouLossInputs<T> in, const BoxIouLossOutputs<T> out, int64_t begin,
              int64_t end, T common) {
  using V = Vec<T>;
  BoxChunk<T> a, b, gradient1, gradient2;
  a.load(in.boxes1 + 4 * begin, end - begin);
  b.load(in.boxes2 + 4 * begin, end - begin);
  GroupSum<T> sum;
  for_each_vector<T>(end - begin, [&](int64_t i, int part, auto count) {
    const Box<V> box_a = a.vectors(i), box_b = b.vectors(i);
    const V angle_a = loss_angle<kKind>(box_a), angle_b = loss_angle<kKind>(box_b);
    const auto term = iou_term<kKind>(box_a, box_b, angle_a, angle_b, T(s.eps), T(s.eps));
    if constexpr (kPass != LossPass::gradient) {
      V iou = term.value;
      for (uint32_t left = bits(!term.normal); left; left &= left - 1) {
        const int k = __builtin_ctz(left);
        iou.raw[k] = careful_iou_term<kKind>(a.box(i + k), b.box(i + k), s.eps, s.eps);
      }
      const V loss = V(T(1)) - iou;
      if (out.losses) store_vector(out.losses + begin + i, loss, count);
      else sum.parts[part] = sum.parts[part] + select(lanes_in_range<T>(count), loss, V(T(0)));
    }
    if constexpr (kPass != LossPass::loss) {
      V scale(common);
      if (s.reduction == Reduction::none) scale = -load_vector(in.grad + begin + i, count);
      if (out.gradient1) gradient_of<kKind>(a, b, i, term.normal, angle_a, angle_b, s.eps, scale, gradient1);
      if (out.gradient2) gradient_of<kKind>(b, a, i, term.normal, angle_b, angle_a, s.eps, scale, gradient2);
    }
  });
  if (kPass != LossPass::loss && out.gradient1) gradient1.store(out.gradient1 + 4 * begin, end - begin);
  if (kPass != LossPass::loss && out.gradient2) gradient2.store(out.gradient2 + 4 * begin, end - begin);
  return {double(sum.total()), double(end - begin)};
}

template <IouKind kKind, LossPass kPass, class T, class Isa>
void run(const BoxIouLossShape& s, const BoxIouLossInputs<T>& in, const BoxIouLossOutputs<T>& out,
         const Cpu<Isa>& exec) {
  const T common = common_scale(s, kPass, in);
  exec(box_loss_chunks(s.pairs), 8, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      const int64_t begin = c * kBoxLossChunk, end = min_of(begin + kBoxLossChunk, s.pairs);
      const LossSum sum = chunk<kKind, kPass>(s, in, out, begin, end, common);
      if (out.partials) out.partials[c] = sum;
    }
  });
  T counted;
  if (out.loss) finish_loss(s.reduction, out.partials, box_loss_chunks(s.pairs), out.loss, &counted);
}

}  // namespace

template <class T, class Isa>
void box_iou_loss(const BoxIouLossShape& s, LossPass pass, const BoxIouLossInputs<T>& in,
                  const BoxIouLossOutputs<T>& out, const Cpu<Isa>& exec) {
  with_loss_kind(s.kind, [&](auto kind) {
    constexpr IouKind kKind = decltype(kind)::value;
    if (pass == LossPass::loss) run<kKind, LossPass::loss>(s, in, out, exec);
    else if (pass == LossPass::gradient) run<kKind, LossPass::gradient>(s, in, out, exec);
    else run<kKind, LossPass::both>(s, in, out, exec);
  });
}

#define INSTANTIATE(T)                                                                     \
  template void box_iou_loss(const BoxIouLossShape&, LossPass, const BoxIouLossInputs<T>&, \
                             const BoxIouLossOutputs<T>&, const CpuExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
