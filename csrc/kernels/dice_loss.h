// Dice loss (Milletari et al., 3DV 2016, with the probability not squared): 1 - (2 sum(p t) + smooth) / (sum(p) +
// sum(t) + smooth) over the pixels of each class of each sample.
#pragma once

#include "reduction.h"
#include "softmax.h"

namespace fastvision {

struct DiceShape {
  int64_t samples, classes, pixels;
  bool class_last;  // logits of a pixel lie together; otherwise those of a class
  bool softmax;
  double smooth;
  bool ignores;
  double ignored;         // of dense targets
  int64_t ignored_label;  // of labels
  Reduction reduction;    // over the planes

  FV_HD int64_t planes() const { return samples * classes; }
  FV_HD int64_t class_stride() const { return class_last ? 1 : pixels; }
  FV_HD int64_t pixel_stride() const { return class_last ? classes : 1; }
};

struct DiceSums {
  double both, probability, target;
};
FV_HD DiceSums operator+(DiceSums a, DiceSums b) {
  return {a.both + b.both, a.probability + b.probability, a.target + b.target};
}

// The fraction's numerator and denominator; without either pixels or smoothing there is nothing to lose.
template <class A>
struct DiceFraction {
  A numerator, denominator;
};
FV_HD double dice_value(DiceFraction<double> f) { return f.denominator > 0 ? 1 - f.numerator / f.denominator : 0; }
FV_HD DiceFraction<double> dice_fraction(const DiceShape& s, DiceSums sums) {
  return {2 * sums.both + s.smooth, sums.probability + sums.target + s.smooth};
}

// The gradient of one class's loss with respect to p: base + slope * t.
template <class A>
struct DiceSlope {
  A base, slope;
};
template <class A>
FV_HD DiceSlope<A> dice_slope(A grad, A numerator, A denominator) {
  if (!(denominator > A(0))) return {A(0), A(0)};
  const A scaled = grad / denominator;
  return {scaled * (numerator / denominator), A(-2) * scaled};
}

// Pixels in a chunk, which is what one partial sum per class is for.
constexpr int64_t kDiceChunk = 1024;
FV_HD int64_t dice_chunks(int64_t pixels) { return ceil_div(pixels, kDiceChunk); }
// Of the losses of planes.
FV_HD int64_t dice_sums(int64_t planes) { return min_of(planes, kMaxPartials); }

template <class T>
struct DiceInputs {
  const T* logits;
  const T* targets;       // dense targets, in the order of the logits, or null
  const int64_t* labels;  // or labels (samples, pixels); the CPU twin trusts them
};
// losses: one per plane; null if they are reduced. loss: the reduced one; otherwise null. fractions: numerators, then
// denominators, of the planes. states: for the softmax the largest logit of each pixel and the inverse of its sum of
// exponentials. partials: scratch, dice_chunks(pixels) per plane. sums: scratch of the CUDA twin, dice_sums(planes).
template <class T>
struct DiceOutputs {
  Accum<T>*losses, *loss, *fractions, *states;
  DiceSums* partials;
  LossSum* sums;

  // Returns what a plane adds to the reduced loss.
  FV_HD LossSum finish(const DiceShape& s, int64_t plane, DiceFraction<double> f) const {
    if (losses) losses[plane] = Accum<T>(dice_value(f));
    fractions[plane] = Accum<T>(f.numerator), fractions[s.planes() + plane] = Accum<T>(f.denominator);
    return {dice_value(f), 1};
  }
};
// grad: of every plane's loss, or of the reduced one, of which each plane's has this share.
template <class T>
struct DiceGrad {
  const Accum<T>*grad, *fractions, *states;
  Accum<T> share;

  FV_HD DiceSlope<Accum<T>> slope(const DiceShape& s, int64_t plane) const {
    const Accum<T> own = grad[s.reduction == Reduction::none ? plane : 0] * share;
    return dice_slope(own, fractions[plane], fractions[s.planes() + plane]);
  }
};

// Twins.
template <class T, class Isa>
void dice_loss(const DiceShape&, const DiceInputs<T>&, const DiceOutputs<T>&, const Cpu<Isa>&);
template <class T, class Isa>
void dice_loss_backward(const DiceShape&, const DiceInputs<T>&, const DiceGrad<T>&, T* gradient, const Cpu<Isa>&);
template <class T>
void dice_loss(const DiceShape&, const DiceInputs<T>&, const DiceOutputs<T>&, const CudaExec&);
template <class T>
void dice_loss_backward(const DiceShape&, const DiceInputs<T>&, const DiceGrad<T>&, T* gradient, const CudaExec&);

}  // namespace fastvision
