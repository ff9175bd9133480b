// CPU: samples of deformable convolution in vectors of channels, and the gradients that follow from theirs.
#pragma once

#include "deform_conv2d.h"
#include "simd.h"

namespace fastvision {
namespace {

// The corners of a sample that count, and how much.
template <class A>
struct Corners {
  int64_t at[4];  // pixels
  A weight[4];
  int count;
};

template <class A>
Corners<A> corners_of(const DeformShape& s, const DeformSample<A>& sample, A mask) {
  Corners<A> c;
  c.count = 0;
  for (int i = 0; i < 4; ++i) {
    const A weight = sample.weight(i);
    // A pixel with weight 0 takes no part: it may hold NaN.
    if (weight == A(0) || !sample.has(s, i)) continue;
    c.at[c.count] = sample.pixel(s, i);
    c.weight[c.count++] = mask * weight;
  }
  return c;
}

// `count` channels of a sample.
template <class T>
void interpolate(const Corners<Accum<T>>& c, const T* input, int64_t stride, int64_t count, Accum<T>* to) {
  using A = Accum<T>;
  if (c.count == 4) {
    const T* p[4];
    Vec<A> w[4];
    for (int i = 0; i < 4; ++i) p[i] = input + c.at[i] * stride, w[i] = Vec<A>(c.weight[i]);
    int64_t k = 0;
    for (; k + kLanes<A> <= count; k += kLanes<A>) {
      Vec<A> sum = w[0] * load_vector(p[0] + k);
      for (int i = 1; i < 4; ++i) sum = multiply_add(w[i], load_vector(p[i] + k), sum);
      store_vector(to + k, sum);
    }
    if (k < count) {
      Vec<A> sum = w[0] * load_vector(p[0] + k, count - k);
      for (int i = 1; i < 4; ++i) sum = multiply_add(w[i], load_vector(p[i] + k, count - k), sum);
      store_vector(to + k, sum, count - k);
    }
    return;
  }
  for (int64_t k = 0; k < count; k += kLanes<A>) {
    const int64_t n = min_of(kLanes<A>, count - k);
    Vec<A> sum(A(0));
    for (int i = 0; i < c.count; ++i)
      sum = multiply_add(Vec<A>(c.weight[i]), load_vector(input + c.at[i] * stride + k, n), sum);
    store_vector(to + k, sum, n);
  }
}

// How the gradients by offsets and mask of one tap, and by the input, follow from that by the sample.
template <class T>
struct SampleGradient {
  using A = Accum<T>;
  const DeformShape& s;
  const T* input;    // of the image, from the first channel of the slice
  A* by_input;       // (pixel, channel of the slice)
  int64_t channels;  // of the slice

  // Returns sums over the channels of gradient times corner.
  struct Sums {
    A corner[4];
  };
  Sums add(const DeformSample<A>& sample, A mask, const A* grad) const {
    Sums sums{};
    const T* p[4];
    A *q[4], weight[4];
    int corner[4], count = 0;
    for (int i = 0; i < 4; ++i) {
      if (!sample.has(s, i)) continue;
      const int64_t pixel = sample.pixel(s, i);
      p[count] = input + pixel * s.in_channels, q[count] = by_input + pixel * channels;
      weight[count] = mask * sample.weight(i), corner[count++] = i;
    }
    for (int i = 0; i < count; ++i) {
      GroupSum<A> sum;
      const Vec<A> w(weight[i]);
      const bool adds = sample.weight(corner[i]) != A(0);
      for_each_vector<A>(channels, [&](int64_t c, int part, auto n) {
        const Vec<A> g = load_vector(grad + c, n);
        sum.parts[part] = multiply_add(g, load_vector(p[i] + c, n), sum.parts[part]);
        if (adds) store_vector(q[i] + c, multiply_add(w, g, load_vector(q[i] + c, n)), n);
      });
      sums.corner[corner[i]] = sum.total();
    }
    return sums;
  }
};

}  // namespace
}  // namespace fastvision
