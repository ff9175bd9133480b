// A chunk of pixels at a time, its classes one after another in vectors of pixels. Where the classes of a pixel lie
// together the chunk is first turned over in a buffer that stays in the cache.
#include "dice_loss.h"

#include <vector>

#include "simd.h"

namespace fastvision {
namespace {

// A run of pixels of one sample.
struct Run {
  int64_t sample, chunk, first, count;

  // Between classes in a buffer: whole vectors, and not a power of two, for the sake of the first cache.
  int64_t stride() const { return ceil_div(count, int64_t(16)) * 16 + 16; }
  int64_t offset(const DiceShape& s) const { return sample * s.classes * s.pixels + first * s.pixel_stride(); }
};

template <class T>
struct Buffers {
  std::vector<T> logits, targets, gradient;
  std::vector<Accum<T>> exponentials;
};

// Logits and targets of a run with neighbouring pixels, class after class `stride` apart.
template <class T>
struct Planes {
  const T *logits, *targets;
  int64_t stride;

  Planes(const DiceShape& s, const DiceInputs<T>& in, const Run& run, Buffers<T>& buffers)
      : logits(in.logits + run.offset(s)),
        targets(in.targets ? in.targets + run.offset(s) : nullptr),
        stride(s.class_stride()) {
    if (!s.class_last) return;
    stride = run.stride();
    logits = turned(s, logits, run, buffers.logits);
    if (targets) targets = turned(s, targets, run, buffers.targets);
  }

 private:
  static const T* turned(const DiceShape& s, const T* from, const Run& run, std::vector<T>& buffer) {
    buffer.resize(size_t(s.classes * run.stride()));
    transpose(from, s.classes, run.count, s.classes, buffer.data(), run.stride());
    return buffer.data();
  }
};

// What the target of a pixel is: its share of class c, and whether it counts.
template <class T>
struct Targets {
  using A = Accum<T>;
  using Bits = typename Vec<A>::Bits;
  const Planes<T>& planes;
  bool ignores;
  A ignored;
  typename Lanes<A>::Bits labels[kDiceChunk];  // -1 where ignored

  Targets(const DiceShape& s, const DiceInputs<T>& in, const Run& run, const Planes<T>& p)
      : planes(p), ignores(s.ignores), ignored(A(s.ignored)) {
    if (!in.labels) return;
    const int64_t* from = in.labels + run.sample * s.pixels + run.first;
    for (int64_t i = 0; i < run.count; ++i) labels[i] = s.ignores && from[i] == s.ignored_label ? -1 : from[i];
    for (int64_t i = run.count; i % kLanes<A>; ++i) labels[i] = -1;
  }
  struct Target {
    Vec<A> value;
    MaskOf<A, FV_ISA> counts;
  };
  template <class Count>
  FV_HD Target at(int64_t c, int64_t i, Count count) const {
    const Vec<A> zero(A(0)), one(A(1));
    const MaskOf<A, FV_ISA> inside = lanes_in_range<A>(count);
    if (!planes.targets) {
      Bits label;
      memcpy(&label, labels + i, sizeof label);
      const MaskOf<A, FV_ISA> is_class{label == all_lanes<A>(c)}, kept{label >= 0};
      return {select(is_class, one, zero), both(inside, kept)};
    }
    const Vec<A> t = load_vector(planes.targets + c * planes.stride + i, count);
    return {t, ignores ? both(inside, !(t == Vec<A>(ignored))) : inside};
  }
};

template <class T, class Isa, class F>
void for_each_run(const DiceShape& s, const Cpu<Isa>& exec, F&& f) {
  const int64_t chunks = dice_chunks(s.pixels);
  exec(s.samples * chunks, 1, [&](int64_t first, int64_t last) {
    Buffers<T> buffers;
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = i % chunks * kDiceChunk;
      f(Run{i / chunks, i % chunks, begin, min_of(kDiceChunk, s.pixels - begin)}, buffers);
    }
    finish_streaming();
  });
}

template <bool kSoftmax, class T>
void forward(const DiceShape s, const DiceInputs<T> in, const DiceOutputs<T> out, const Run run, Buffers<T>& buffers) {
  using A = Accum<T>;
  using V = Vec<A>;
  const Planes<T> planes(s, in, run, buffers);
  const Targets<T> targets(s, in, run, planes);
  const V zero(A(0));
  A inverse[kDiceChunk];
  if constexpr (kSoftmax) {
    A* const states = out.states + run.sample * s.pixels + run.first;
    buffers.exponentials.resize(size_t(s.classes * run.stride()));
    for_each_vector<A>(run.count, [&](int64_t i, int, auto count) {
      const auto logit = [&](int64_t c) { return load_vector(planes.logits + c * planes.stride + i, count); };
      V largest(-Rounder<A>::kLargest), sum = zero;
      for (int64_t c = 0; c < s.classes; ++c) {
        __builtin_prefetch(planes.logits + c * planes.stride + i + kAhead * V::kLanes);
        largest = max_of(largest, logit(c));
      }
      for (int64_t c = 0; c < s.classes; ++c) {
        const V e = exp_negative(logit(c) - largest);
        e.store(&buffers.exponentials[size_t(c * run.stride() + i)]);
        sum = sum + e;
      }
      (V(A(1)) / sum).store(inverse + i);
      store_vector(states + i, largest, count);
      store_vector(states + s.samples * s.pixels + i, V::load(inverse + i), count);
    });
  }
  for (int64_t c = 0; c < s.classes; ++c) {
    GroupSum<A> sum_both, sum_probability, sum_target;
    for_each_vector<A>(run.count, [&](int64_t i, int part, auto count) {
      const auto target = targets.at(c, i, count);
      V p;
      if constexpr (kSoftmax) p = V::load(&buffers.exponentials[size_t(c * run.stride() + i)]) * V::load(inverse + i);
      else p = sigmoid(load_vector(planes.logits + c * planes.stride + i, count)).value;
      const auto add = [&](GroupSum<A>& sum, V v) {
        sum.parts[part] = sum.parts[part] + select(target.counts, v, zero);
      };
      add(sum_both, p * target.value);
      add(sum_probability, p);
      add(sum_target, target.value);
    });
    out.partials[(run.sample * s.classes + c) * dice_chunks(s.pixels) + run.chunk] = {
        double(sum_both.total()), double(sum_probability.total()), double(sum_target.total())};
  }
}

template <bool kSoftmax, class T>
void backward(const DiceShape s, const DiceInputs<T> in, const DiceGrad<T> g, T* gradient, const Run run,
              Buffers<T>& buffers) {
  using A = Accum<T>;
  using V = Vec<A>;
  const Planes<T> planes(s, in, run, buffers);
  const Targets<T> targets(s, in, run, planes);
  const V zero(A(0));
  T* to = gradient + run.offset(s);
  if (s.class_last) {
    buffers.gradient.resize(size_t(s.classes * run.stride()));
    to = buffers.gradient.data();
  }
  const bool past_caches = !s.class_last && s.planes() * s.pixels * int64_t(sizeof(T)) >= kStreamedBytes;
  const auto slope_of = [&](int64_t c) { return g.slope(s, run.sample * s.classes + c); };
  const auto on_probability = [&](const DiceSlope<A>& slope, int64_t c, int64_t i, auto count) {
    const auto target = targets.at(c, i, count);
    return select(target.counts, V(slope.base) + V(slope.slope) * target.value, zero);
  };
  if constexpr (kSoftmax) {
    std::vector<DiceSlope<A>> slopes;
    for (int64_t c = 0; c < s.classes; ++c) slopes.push_back(slope_of(c));
    buffers.exponentials.resize(size_t(s.classes * V::kLanes));
    const A* states = g.states + run.sample * s.pixels + run.first;
    for_each_vector<A>(run.count, [&](int64_t i, int, auto count) {
      const V largest = load_vector(states + i, count);
      const V inverse = load_vector(states + s.samples * s.pixels + i, count);
      V mean = zero;
      for (int64_t c = 0; c < s.classes; ++c) {
        const T* const logits = planes.logits + c * planes.stride + i;
        __builtin_prefetch(logits + kAhead * V::kLanes);
        const V p = exp_negative(load_vector(logits, count) - largest) * inverse;
        p.store(&buffers.exponentials[size_t(c * V::kLanes)]);
        mean = mean + p * on_probability(slopes[size_t(c)], c, i, count);
      }
      for (int64_t c = 0; c < s.classes; ++c) {
        const V p = V::load(&buffers.exponentials[size_t(c * V::kLanes)]);
        const V d = p * (on_probability(slopes[size_t(c)], c, i, count) - mean);
        store_result(to + c * planes.stride + i, d, count, past_caches);
      }
    });
  } else {
    for (int64_t c = 0; c < s.classes; ++c) {
      const DiceSlope<A> slope = slope_of(c);
      for_each_vector<A>(run.count, [&](int64_t i, int, auto count) {
        const V x = load_vector(planes.logits + c * planes.stride + i, count);
        store_vector(to + c * planes.stride + i, sigmoid(x).slope * on_probability(slope, c, i, count), count);
      });
    }
  }
  if (s.class_last) transpose(to, run.stride(), s.classes, run.count, gradient + run.offset(s), s.classes);
}

}  // namespace

template <class T, class Isa>
void dice_loss(const DiceShape& s, const DiceInputs<T>& in, const DiceOutputs<T>& out, const Cpu<Isa>& exec) {
  for_each_run<T>(s, exec, [&](const Run& run, Buffers<T>& buffers) {
    if (s.softmax) forward<true>(s, in, out, run, buffers);
    else forward<false>(s, in, out, run, buffers);
  });
  LossSum total{};
  for (int64_t plane = 0; plane < s.planes(); ++plane) {
    DiceSums sums{};
    for (int64_t k = 0; k < dice_chunks(s.pixels); ++k) sums = sums + out.partials[plane * dice_chunks(s.pixels) + k];
    total = total + out.finish(s, plane, dice_fraction(s, sums));
  }
  if (out.loss) finish_loss(s.reduction, &total, 1, out.loss);
}

template <class T, class Isa>
void dice_loss_backward(const DiceShape& s, const DiceInputs<T>& in, const DiceGrad<T>& g, T* gradient,
                        const Cpu<Isa>& exec) {
  for_each_run<T>(s, exec, [&](const Run& run, Buffers<T>& buffers) {
    if (s.softmax) backward<true>(s, in, g, gradient, run, buffers);
    else backward<false>(s, in, g, gradient, run, buffers);
  });
}

#define INSTANTIATE(T)                                                                                    \
  template void dice_loss(const DiceShape&, const DiceInputs<T>&, const DiceOutputs<T>&, const CpuExec&); \
  template void dice_loss_backward(const DiceShape&, const DiceInputs<T>&, const DiceGrad<T>&, T*, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
