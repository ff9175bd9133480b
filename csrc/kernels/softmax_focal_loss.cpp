// Where classes are planes, vectors of neighbouring pixels go through them. Where classes lie together, the vectors are
// of classes: the largest, the sum of exponentials, and for a vector of pixels at a time what is made of these. A few
// classes do not fill vectors: a chunk of such pixels is first turned over in a buffer that stays in the cache.
#include "softmax_focal_loss.h"

#include <cmath>
#include <vector>

#include "simd.h"

namespace fastvision {
namespace {

constexpr int64_t kLeastRow = 32;

// A class's logits of a run of pixels as neighbours: plane(c)[i].
template <class T>
struct Planes {
  const T* first;
  int64_t stride;
  const T* operator()(int64_t c) const { return first + c * stride; }
};

// Calls f(first pixel, last pixel, index of the chunk, scratch memory).
template <class Isa, class F>
void for_each_chunk(const SoftmaxFocalShape& s, const Cpu<Isa>& exec, F&& f) {
  exec(softmax_focal_chunks(s.pixels), 1, [&](int64_t first, int64_t last) {
    std::vector<unsigned char> buffer;
    for (int64_t chunk = first; chunk < last; ++chunk)
      f(chunk * kSoftmaxChunk, min_of((chunk + 1) * kSoftmaxChunk, s.pixels), chunk, buffer);
    finish_streaming();
  });
}

// Runs of pixels of one image within [begin, end).
template <class F>
void for_each_run(const SoftmaxFocalShape& s, int64_t begin, int64_t end, F&& f) {
  for (int64_t i = begin; i < end;) {
    const int64_t next = s.inner == 1 ? end : min_of(end, (i / s.inner + 1) * s.inner);
    f(i, next - i);
    i = next;
  }
}

template <class T>
T* room(std::vector<unsigned char>& buffer, const SoftmaxFocalShape& s) {
  buffer.resize(size_t(s.classes * kSoftmaxChunk) * sizeof(T));
  return reinterpret_cast<T*>(buffer.data());
}

// Whether classes lie together and are enough for vectors of them.
bool in_rows(const SoftmaxFocalShape& s) { return s.inner == 1 && s.classes >= kLeastRow; }

// A label per lane, -1 where it is ignored or out of the range of n.
template <class A>
IndexVec<A> load_labels(const SoftmaxFocalShape& s, const int64_t* labels, int64_t n) {
  IndexVec<A> v;
  for (int i = 0; i < kLanes<A>; ++i) v[i] = i < n && labels[i] != s.ignored ? labels[i] : -1;
  return v;
}

// The terms of a vector of pixels from the logits of their labels and the other classes' sums.
template <bool kSquare, class T>
FV_HD LossSum finish_pixels(const SoftmaxFocalShape& s, const SoftmaxFocalInputs<T>& in,
                            const SoftmaxFocalOutputs<T>& out, int64_t pixel, int64_t count,
                            const IndexVec<Accum<T>>& labels, const Vec<Accum<T>>& own,
                            const OnlineSum<Vec<Accum<T>>>& others) {
  using A = Accum<T>;
  using V = Vec<A>;
  const V zero(A(0));
  V factor = zero;
  for (int k = 0; k < count; ++k)
    if (labels[k] >= 0) factor.raw[k] = in.weight ? in.weight[labels[k]] : A(1);
  auto term = softmax_focal_term<kSquare>(own, others, factor * V(A(s.alpha)), s);
  const MaskOf<A, FV_ISA> ignored{labels < 0};
  for (V* v : {&term.loss, &term.slope, &term.largest, &term.inverse}) *v = select(ignored, zero, *v);
  if (out.losses) store_vector(out.losses + pixel, term.loss, count);
  if (out.states) {
    store_vector(out.states + pixel, term.slope, count);
    store_vector(out.states + s.pixels + pixel, term.largest, count);
    store_vector(out.states + 2 * s.pixels + pixel, term.inverse, count);
  }
  LossSum total{};
  for (int k = 0; k < count; ++k) total = total + LossSum{double(term.loss[k]), double(factor[k])};
  return total;
}

template <bool kSquare, class T>
LossSum forward(const SoftmaxFocalShape s, const SoftmaxFocalInputs<T> in, const SoftmaxFocalOutputs<T> out,
                const Planes<T>& planes, int64_t pixel, int64_t n) {
  using A = Accum<T>;
  using V = Vec<A>;
  const V none(-A(INFINITY));
  LossSum total{};
  for (int64_t i = 0; i < n; i += V::kLanes) {
    const int64_t count = min_of<int64_t>(n - i, V::kLanes);
    const auto labels = load_labels<A>(s, in.labels + pixel + i, count);
    OnlineSum<V> others;
    V own(A(0));
    for (int64_t c = 0; c < s.classes; ++c) {
      __builtin_prefetch(planes(c) + i + kAhead * V::kLanes);
      const V x = count == V::kLanes ? load_vector(planes(c) + i) : load_vector(planes(c) + i, count);
      const MaskOf<A, FV_ISA> is_label{labels == all_lanes<A>(c)};
      own = select(is_label, x, own);
      others.add(select(is_label, none, x));
    }
    total = total + finish_pixels<kSquare>(s, in, out, pixel + i, count, labels, own, others);
  }
  return total;
}

// Calls f(class, part of the group, lanes in range, the lane of the label) for the vectors of a row of classes.
template <class A, class F>
FV_HD void for_each_class(int64_t classes, int64_t label, F&& f) {
  for_each_vector<A>(classes, [&](int64_t c, int part, auto count) {
    f(c, part, count, MaskOf<A, FV_ISA>{lane_numbers<A>() == all_lanes<A>(label - c)});
  });
}

// The same sums from a row; with the label's logit in `largest`, too, which changes none of them.
template <class T>
FV_HD OnlineSum<Accum<T>> sum_of_row(const T* row, int64_t classes, int64_t label) {
  using A = Accum<T>;
  using V = Vec<A>;
  GroupSum<A> sums;
  V most[GroupSum<A>::kParts];
  for (V& v : most) v = -Rounder<A>::kLargest;
  for_each_vector<A>(classes, [&](int64_t c, int part, auto count) {
    const V x = load_vector(row + c, count);
    most[part] = select(both(lanes_in_range<A>(count), x > most[part]), x, most[part]);
  });
  for (const V& v : most) most[0] = max_of(most[0], v);
  const A largest = max_of_lanes(most[0]);
  for_each_class<A>(classes, label, [&](int64_t c, int part, auto count, const MaskOf<A, FV_ISA>& is_label) {
    const V e = exp_negative(load_vector(row + c, count) - V(largest));
    sums.parts[part] = sums.parts[part] + select(both(lanes_in_range<A>(count), !is_label), e, V(A(0)));
  });
  return {largest, sums.total()};
}

template <bool kSquare, class T>
LossSum forward_rows(const SoftmaxFocalShape s, const SoftmaxFocalInputs<T> in, const SoftmaxFocalOutputs<T> out,
                     int64_t pixel, int64_t n) {
  using A = Accum<T>;
  using V = Vec<A>;
  LossSum total{};
  for (int64_t i = 0; i < n; i += V::kLanes) {
    const int64_t count = min_of<int64_t>(n - i, V::kLanes);
    const auto labels = load_labels<A>(s, in.labels + pixel + i, count);
    A own[V::kLanes] = {}, largest[V::kLanes] = {}, sums[V::kLanes] = {};
    for (int64_t k = 0; k < count; ++k) {
      if (labels[k] < 0) continue;
      const T* row = in.logits + (pixel + i + k) * s.classes;
      const auto others = sum_of_row(row, s.classes, labels[k]);
      own[k] = to_accum(row[labels[k]]);
      largest[k] = others.largest;
      sums[k] = others.sum;
    }
    total = total + finish_pixels<kSquare>(s, in, out, pixel + i, count, labels, V::load(own),
                                           OnlineSum<V>{V::load(largest), V::load(sums)});
  }
  return total;
}

template <class T>
void backward_rows(const SoftmaxFocalShape s, const SoftmaxFocalInputs<T> in, const SoftmaxFocalGrad<T> g,
                   Accum<T> scale, T* gradient, int64_t pixel, int64_t n) {
  using A = Accum<T>;
  using V = Vec<A>;
  for (int64_t i = pixel; i < pixel + n; ++i) {
    const T* row = in.logits + i * s.classes;
    T* to = gradient + i * s.classes;
    if (in.labels[i] == s.ignored) {
      memset(to, 0, size_t(s.classes) * sizeof(T));
      continue;
    }
    const V slope(g.states[i] * (g.grad ? to_accum(g.grad[i]) : scale));
    const V largest(g.states[s.pixels + i]), inverse(g.states[2 * s.pixels + i]);
    for_each_class<A>(s.classes, in.labels[i], [&](int64_t c, int, auto count, const MaskOf<A, FV_ISA>& is_label) {
      const V p = exp_negative(load_vector(row + c, count) - largest) * inverse;
      store_vector(to + c, slope * (select(is_label, V(A(1)), V(A(0))) - p), count);
    });
  }
}

template <class T>
void backward(const SoftmaxFocalShape s, const SoftmaxFocalInputs<T> in, const SoftmaxFocalGrad<T> g, Accum<T> scale,
              const Planes<T>& planes, T* gradient, int64_t stride, bool past_caches, int64_t pixel, int64_t n) {
  using A = Accum<T>;
  using V = Vec<A>;
  const V zero(A(0)), one(A(1));
  for (int64_t i = 0; i < n; i += V::kLanes) {
    const int64_t count = min_of<int64_t>(n - i, V::kLanes);
    const auto labels = load_labels<A>(s, in.labels + pixel + i, count);
    const A* states = g.states + pixel + i;
    const V largest = load_vector(states + s.pixels, count), inverse = load_vector(states + 2 * s.pixels, count);
    const V slope = load_vector(states, count) * (g.grad ? load_vector(g.grad + pixel + i, count) : V(scale));
    const MaskOf<A, FV_ISA> ignored{labels < 0};
    for (int64_t c = 0; c < s.classes; ++c) {
      __builtin_prefetch(planes(c) + i + kAhead * V::kLanes);
      const V x = count == V::kLanes ? load_vector(planes(c) + i) : load_vector(planes(c) + i, count);
      const V p = exp_negative(x - largest) * inverse;
      const MaskOf<A, FV_ISA> is_label{labels == all_lanes<A>(c)};
      const V d = select(ignored, zero, slope * (select(is_label, one, zero) - p));
      T* to = gradient + c * stride + i;
      store_result(to, d, count, past_caches);
    }
  }
}

}  // namespace

template <class T, class Isa>
void softmax_focal_loss(const SoftmaxFocalShape& s, const SoftmaxFocalInputs<T>& in, const SoftmaxFocalOutputs<T>& out,
                        const Cpu<Isa>& exec) {
  for_each_chunk(s, exec, [&](int64_t begin, int64_t end, int64_t chunk, std::vector<unsigned char>& buffer) {
    LossSum sum{};
    for_each_run(s, begin, end, [&](int64_t pixel, int64_t n) {
      if (in_rows(s))
        return with_square(
            s.gamma, [&](auto square) { sum = sum + forward_rows<decltype(square)::value>(s, in, out, pixel, n); });
      Planes<T> planes{in.logits + s.offset(pixel), s.inner};
      if (s.inner == 1) {
        T* const turned = room<T>(buffer, s);
        transpose(in.logits + pixel * s.classes, s.classes, n, s.classes, turned, kSoftmaxChunk);
        planes = {turned, kSoftmaxChunk};
      }
      with_square(s.gamma,
                  [&](auto square) { sum = sum + forward<decltype(square)::value>(s, in, out, planes, pixel, n); });
    });
    if (out.partials) out.partials[chunk] = sum;
  });
  if (out.loss) finish_loss(s.reduction, out.partials, softmax_focal_chunks(s.pixels), out.loss, out.counted);
}

template <class T, class Isa>
void softmax_focal_loss_backward(const SoftmaxFocalShape& s, const SoftmaxFocalInputs<T>& in,
                                 const SoftmaxFocalGrad<T>& g, T* gradient, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const bool past_caches = s.pixels * s.classes * int64_t(sizeof(T)) >= kStreamedBytes;
  const A scale = g.grad_of_reduced ? gradient_scale(s.reduction, *g.grad_of_reduced, *g.counted) : A(1);
  for_each_chunk(s, exec, [&](int64_t begin, int64_t end, int64_t, std::vector<unsigned char>& buffer) {
    for_each_run(s, begin, end, [&](int64_t pixel, int64_t n) {
      if (in_rows(s)) return backward_rows(s, in, g, scale, gradient, pixel, n);
      if (s.inner != 1)
        return backward(s, in, g, scale, {in.logits + s.offset(pixel), s.inner}, gradient + s.offset(pixel), s.inner,
                        past_caches, pixel, n);
      T* const turned = room<T>(buffer, s);
      transpose(in.logits + pixel * s.classes, s.classes, n, s.classes, turned, kSoftmaxChunk);
      backward(s, in, g, scale, {turned, kSoftmaxChunk}, turned, kSoftmaxChunk, false, pixel, n);
      transpose(turned, kSoftmaxChunk, s.classes, n, gradient + pixel * s.classes, s.classes);
    });
  });
}

#define INSTANTIATE(T)                                                                              \
  template void softmax_focal_loss(const SoftmaxFocalShape&, const SoftmaxFocalInputs<T>&,          \
                                   const SoftmaxFocalOutputs<T>&, const CpuExec&);                  \
  template void softmax_focal_loss_backward(const SoftmaxFocalShape&, const SoftmaxFocalInputs<T>&, \
                                            const SoftmaxFocalGrad<T>&, T*, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
