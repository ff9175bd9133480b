// exp(x) for x <= 0 out of additions, multiplications and divisions alone, for scalars and vectors (simd.h): the same
// bits on every instruction set and on CUDA, which the library's function does not promise. Cephes' approximation
// (Moshier), right to two units in the last place; exactly 1 at 0, and 0 where the result would not be a normal number.
#pragma once

#include "box.h"

namespace fastvision {

// Adds to y's exponent the integer in the low bits of t.
FV_HD float add_to_exponent(float y, float t) {
  return bit_cast<float>(bit_cast<uint32_t>(y) + (bit_cast<uint32_t>(t) << 23));
}
FV_HD double add_to_exponent(double y, double t) {
  return bit_cast<double>(bit_cast<uint64_t>(y) + (bit_cast<uint64_t>(t) << 52));
}

// A holds values of type S.
template <class S, class A>
FV_HD A exp_nonpositive(A x) {
  constexpr bool kSingle = sizeof(S) == 4;
  constexpr S kLeast = kSingle ? S(-87) : S(-708);
  constexpr S kRound = kSingle ? S(0x1.8p23) : S(0x1.8p52);  // adding it leaves the nearest integer in the low bits
  const auto in_range = x >= A(kLeast);
  const A bounded = select(in_range, x, A(S(0)));
  const A t = bounded * A(S(1.44269504088896340736)) + A(kRound), n = t - A(kRound);
  A y;
  if constexpr (kSingle) {
    const A r = bounded - n * A(0.693359375f) - n * A(-2.12194440e-4f);
    A p(1.9875691500e-4f);
    p = p * r + A(1.3981999507e-3f);
    p = p * r + A(8.3334519073e-3f);
    p = p * r + A(4.1665795894e-2f);
    p = p * r + A(1.6666665459e-1f);
    p = p * r + A(5.0000001201e-1f);
    y = p * (r * r) + r + A(1.0f);
  } else {
    const A r = bounded - n * A(6.93145751953125e-1) - n * A(1.42860682030941723212e-6), square = r * r;
    A p(1.26177193074810590878e-4), q(3.00198505138664455042e-6);
    p = p * square + A(3.02994407707441961300e-2);
    p = (p * square + A(9.99999999999999999910e-1)) * r;
    q = q * square + A(2.52448340349684104192e-3);
    q = q * square + A(2.27265548208155028766e-1);
    q = q * square + A(2.00000000000000000009);
    const A ratio = p / (q - p);
    y = A(1.0) + (ratio + ratio);
  }
  return select(in_range, add_to_exponent(y, t), A(S(0)));
}

}  // namespace fastvision
