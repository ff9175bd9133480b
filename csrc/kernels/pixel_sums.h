// CPU: a bin of RoIAlign in channels_last.
#pragma once

#include "simd.h"

namespace fastvision {
namespace {

template <class A>
struct WeightedPixel {
  int64_t offset;  // of its channel 0
  A weight;
};

// The weighted sums of pixels [first, last) of a map. past_caches: see store_result.
template <class T>
void sum_pixels(const T* map, const WeightedPixel<Accum<T>>* first, const WeightedPixel<Accum<T>>* last,
                int64_t channels, bool past_caches, T* out) {
  using A = Accum<T>;
  constexpr int kBlock = 4;  // vectors of channels that are added at a time
  int64_t c = 0;
  for (; c + kBlock * kLanes<A> <= channels; c += kBlock * kLanes<A>) {
    Vec<A> sum[kBlock] = {A(0), A(0), A(0), A(0)};
    for (const auto* p = first; p != last; ++p)
      for (int v = 0; v < kBlock; ++v)
        sum[v] = multiply_add(Vec<A>(p->weight), load_vector(map + p->offset + c + v * kLanes<A>), sum[v]);
    for (int v = 0; v < kBlock; ++v) store_result(out + c + v * kLanes<A>, sum[v], past_caches);
  }
  for (; c < channels; c += kLanes<A>) {
    const int64_t count = min_of(kLanes<A>, channels - c);
    Vec<A> sum(A(0));
    for (const auto* p = first; p != last; ++p)
      sum = multiply_add(Vec<A>(p->weight), load_vector(map + p->offset + c, count), sum);
    store_vector(out + c, sum, count);
  }
}

}  // namespace
}  // namespace fastvision
