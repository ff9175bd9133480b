// exp, log and angle of scalars and of vectors (simd.h) by polynomials: the same operations in the same order for every
// instruction set, so that CPU twins agree bit for bit. The device fuses products into sums, which costs it nothing,
// and adds polynomials in another order. Errors in units in the last place (tests/kernels/elementary.cpp measures
// them): exp_negative and log_of 1, log1p_unit 2.5, angle_of 3.
#pragma once

#include <type_traits>

#include "common.h"
#include "unrolled.h"

namespace fastvision {

template <class A, class = void>
struct Lanes {
  using Scalar = A;
  using Bits = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
};
template <class A>
struct Lanes<A, std::void_t<typename A::Lane>> {
  using Scalar = typename A::Lane;
  using Bits = typename A::Bits;
};
template <class A>
constexpr bool kIsSingle = sizeof(typename Lanes<A>::Scalar) == 4;

template <class A>
FV_HD A times_plus(A a, A b, A c) {
#if defined(__CUDA_ARCH__)
  return multiply_add(a, b, c);
#else
  return a * b + c;
#endif
}
// Sums of bits, which may wrap where the result is not used.
FV_HD int32_t sum_of_bits(int32_t a, int32_t b) { return int32_t(uint32_t(a) + uint32_t(b)); }
FV_HD int64_t sum_of_bits(int64_t a, int64_t b) { return int64_t(uint64_t(a) + uint64_t(b)); }
template <class B, class C>
FV_HD B sum_of_bits(B a, C b) {
  typedef std::make_unsigned_t<std::decay_t<decltype(a[0])>> Unsigned __attribute__((vector_size(sizeof(B))));
  return B(Unsigned(a) + Unsigned(b + B{}));
}

// The highest power first. Even and odd powers by themselves, so that half of the operations wait for each other; on
// the device, which has other threads to go on with, by Horner's scheme, which needs fewer registers.
template <class A, class... C>
FV_HD A polynomial(A x, C... coefficients) {
  using S = typename Lanes<A>::Scalar;
  constexpr int kCount = sizeof...(C);
  static_assert(kCount >= 3);
  const S all[] = {S(coefficients)...};
#if defined(__CUDA_ARCH__)
  A sum(all[0]);
  unrolled<kCount - 1>([&](auto k) FV_INLINE { sum = times_plus(sum, x, A(all[k + 1])); });
  return sum;
#else
  const A square = x * x;
  A sums[2] = {A(all[0]), A(all[1])};
  unrolled<kCount - 2>([&](auto k) FV_INLINE { sums[k % 2] = times_plus(sums[k % 2], square, A(all[k + 2])); });
  return times_plus(sums[kCount % 2], x, sums[1 - kCount % 2]);
#endif
}

// Adding this to a small number leaves its nearest integer in the low bits.
template <class A>
struct Rounder;
template <>
struct Rounder<float> {
  static constexpr float kShift = 12582912.0f;  // 1.5 * 2^23
  static constexpr int kFraction = 23, kBias = 127;
  static constexpr float kLowest = -87.33654f, kSmallest = 1.17549435e-38f, kLargest = 3.4028234663852886e38f;
  static constexpr int32_t kRootHalf = 0x3f3504f3;  // bits of sqrt(1/2)
};
template <>
struct Rounder<double> {
  static constexpr double kShift = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int kFraction = 52, kBias = 1023;
  static constexpr double kLowest = -708.3964, kSmallest = 2.2250738585072014e-308, kLargest = 1.7976931348623157e308;
  static constexpr int64_t kRootHalf = 0x3fe6a09e667f3bcd;
};

// exp(x) for x <= 0; 0 where that would be below the normal numbers. NaN stays.
template <class A>
FV_HD A exp_negative(A x) {
  using S = typename Lanes<A>::Scalar;
  using R = Rounder<S>;
  using Bits = typename Lanes<A>::Bits;
  const A shifted = times_plus(x, A(S(1.44269504088896340736)), A(R::kShift)), n = shifted - A(R::kShift);
  A power;
  if constexpr (kIsSingle<A>) {
    const A r = times_plus(n, A(S(2.12194440e-4)), times_plus(n, A(S(-0.693359375)), x));
    const A p = polynomial(r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
                           5.0000001201e-1);
    power = times_plus(p, r * r, r) + A(S(1));
  } else {
    const A r = times_plus(n, A(S(-1.90821492927058770002e-10)), times_plus(n, A(S(-6.93147180369123816490e-1)), x));
    const A p = polynomial(r, 1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880,
                           1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5);
    power = times_plus(p, r * r, r) + A(S(1));
  }
  const Bits scale = sum_of_bits(Bits(bit_cast<Bits>(shifted) << R::kFraction), bit_cast<Bits>(A(S(1))));
  return select(x < A(R::kLowest), A(S(0)), power * bit_cast<A>(scale));
}

// log(1 + f) + k * log(2) for f between sqrt(1/2) - 1 and sqrt(2) - 1.
template <class A>
FV_HD A log_near_one(A f, A k) {
  using S = typename Lanes<A>::Scalar;
  const A square = f * f;
  if constexpr (kIsSingle<A>) {
    const A p = polynomial(f, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
                           -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1);
    const A low = times_plus(square, A(S(-0.5)), times_plus(k, A(S(-2.12194440e-4)), p * square * f));
    return times_plus(k, A(S(0.693359375)), low + f);
  } else {
    const A s = f / (A(S(2)) + f), z = s * s, half = square * A(S(0.5));
    const A p =
        polynomial(z, 1.479819860511658591e-1, 1.531383769920937332e-1, 1.818357216161805012e-1,
                   2.222219843214978396e-1, 2.857142874366239149e-1, 3.999999999940941908e-1, 6.666666666666735130e-1);
    const A low = half - times_plus(s, times_plus(z, p, half), k * A(S(1.90821492927058770002e-10)));
    return times_plus(k, A(S(6.93147180369123816490e-1)), f - low);
  }
}
// log((1 + q) / (1 - q)) for q in [0, 1/3], exact to the last digits for small q too: log(1 + v) with q = v / (2 + v).
template <class A>
FV_HD A log_of_quotient(A q) {
  const A z = q * q;
  A p;
  if constexpr (kIsSingle<A>)
    p = polynomial(z, 0.268514980228371518, 0.282366198053104814, 0.400075606449112058, 0.666666403366992398);
  else
    p = polynomial(z, 0.161640456119435322, 0.0880073848614467388, 0.120010728095907125, 0.133141442096549362,
                   0.153855700649586231, 0.181817894361328582, 0.22222222717427863, 0.285714285671087572,
                   0.400000000000145827, 0.666666666666666586);
  return times_plus(q * z, p, q + q);
}
// log(1 + v) for v in [0, 1].
template <class A>
FV_HD A log1p_unit(A v) {
  return log_of_quotient(v / (v + A(typename Lanes<A>::Scalar(2))));
}
// log(v) for v > 0; below the normal numbers the lowest number.
template <class A>
FV_HD A log_of(A v) {
  using S = typename Lanes<A>::Scalar;
  using R = Rounder<S>;
  using Bits = typename Lanes<A>::Bits;
  const Bits bits = bit_cast<Bits>(v), k = sum_of_bits(bits, -R::kRootHalf) >> R::kFraction;
  const A f = bit_cast<A>(sum_of_bits(bits, Bits(-k << R::kFraction))) - A(S(1));
  // As a float: the reverse of the trick in exp_negative.
  const A exponent = bit_cast<A>(sum_of_bits(k, bit_cast<Bits>(A(R::kShift)))) - A(R::kShift);
  const A log = log_near_one(f, exponent);
  return select(v < A(R::kSmallest), A(-R::kLargest), select(v <= A(R::kLargest), log, v));
}
// v^exponent for v in [0, 1] and exponent >= 0; 0^0 is 1.
template <class A, class S>
FV_HD A power_of_unit(A v, S exponent) {
  return exp_negative(max_of(log_of(v), A(S(-1e30))) * A(exponent));
}

// Angle between the axis of x and the point (x, y) of the first quadrant: atan2(y, x); 0 at the origin.
template <class A>
FV_HD A angle_of(A y, A x) {
  using S = typename Lanes<A>::Scalar;
  const A small = min_of(x, y), large = max_of(x, y);
  const auto steep = small > large * A(S(0.41421356237309504880));  // beyond 22.5 degrees from the nearer axis
  const A above = select(steep, small - large, small), below = select(steep, small + large, large);
  const A t = select(below > A(S(0)), above / below, A(S(0))), z = t * t;
  A angle;
  if constexpr (kIsSingle<A>) {
    angle =
        times_plus(polynomial(z, 8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1), z * t, t);
  } else {
    const A p = polynomial(z, -8.750608600031904122785e-1, -1.615753718733365076637e1, -7.500855792314704667340e1,
                           -1.228866684490136173410e2, -6.485021904942025371773e1);
    const A q = polynomial(z, 1.0, 2.485846490142306297962e1, 1.650270098316988542046e2, 4.328810604912902668951e2,
                           4.853903996359136964868e2, 1.945506571482613964425e2);
    angle = times_plus(t, z * p / q, t);
  }
  angle = select(steep, angle + A(S(0.78539816339744830962)), angle);
  return select(y > x, A(S(1.57079632679489661923)) - angle, angle);
}

}  // namespace fastvision
