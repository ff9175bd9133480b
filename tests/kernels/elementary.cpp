// Measures the largest errors of csrc/kernels/elementary.h in units in the last place, against long double, and makes a
// checksum of all results, which is the same for every instruction set.
#include "elementary.h"

#include <cmath>
#include <cstdio>
#include <random>

#include "simd.h"

using namespace fastvision;

namespace {

template <class A>
double error_of(A got, long double wanted) {
  if (wanted == 0) return got == 0 ? 0 : INFINITY;
  int exponent;
  frexpl(wanted, &exponent);
  return double(fabsl((long double)got - wanted) / ldexpl(1, exponent - (sizeof(A) == 4 ? 24 : 53)));
}

// 16 arguments at a time, whatever the width of the vectors.
template <class A, class F, class Scalar, class Exact, class Draw>
double worst(F vector, Scalar scalar, Exact exact, Draw draw, uint64_t* checksum) {
  std::mt19937_64 random(1);
  double result = 0;
  for (int i = 0; i < 20000; ++i) {
    A x[16], y[16], out[16];
    for (int k = 0; k < 16; ++k) draw(random, &x[k], &y[k]);
    for (int k = 0; k < 16; k += Vec<A>::kLanes) vector(Vec<A>::load(x + k), Vec<A>::load(y + k)).store(out + k);
    for (int k = 0; k < 16; ++k) {
      if (out[k] != scalar(x[k], y[k])) return INFINITY;
      result = std::fmax(result, error_of(out[k], exact(x[k], y[k])));
      uint64_t bits = 0;
      memcpy(&bits, &out[k], sizeof(A));
      *checksum = (*checksum ^ bits) * 1099511628211u;
    }
  }
  return result;
}

template <class A>
void measure(const char* name) {
  uint64_t checksum = 0;
  const auto uniform = [](auto& random, double low, double high) {
    return A(low + (high - low) * double(random() >> 11) * 0x1p-53);
  };
  const double lowest = sizeof(A) == 4 ? -87.3 : -708;
  const double exp_error = worst<A>([](auto x, auto) { return exp_negative(x); },
                                    [](A x, A) { return exp_negative(x); }, [](A x, A) { return expl(x); },
                                    [&](auto& r, A* x, A*) { *x = uniform(r, r() % 2 ? lowest : -2, 0); }, &checksum);
  const double log_error =
      worst<A>([](auto x, auto) { return log_of(x); }, [](A x, A) { return log_of(x); },
               [](A x, A) { return logl(x); },
               [&](auto& r, A* x, A*) { *x = r() % 2 ? uniform(r, 0.5, 2) : A(exp(double(uniform(r, -80, 80)))); },
               &checksum);
  const double log1p_error =
      worst<A>([](auto x, auto) { return log1p_unit(x); }, [](A x, A) { return log1p_unit(x); },
               [](A x, A) { return log1pl(x); },
               [&](auto& r, A* x, A*) { *x = r() % 2 ? uniform(r, 0, 1) : A(exp(double(uniform(r, -80, 0)))); },
               &checksum);
  const double angle_error = worst<A>([](auto x, auto y) { return angle_of(y, x); },
                                      [](A x, A y) { return angle_of(y, x); }, [](A x, A y) { return atan2l(y, x); },
                                      [&](auto& r, A* x, A* y) {
                                        *x = A(exp(double(uniform(r, -8, 8))));
                                        *y = A(exp(double(uniform(r, -8, 8))));
                                      },
                                      &checksum);
  printf("%s %.3f %.3f %.3f %.3f %016llx\n", name, exp_error, log_error, log1p_error, angle_error,
         (unsigned long long)checksum);
}

template <class A>
bool edges() {
  const A none = A(-INFINITY), nan = A(NAN);
  return exp_negative(A(0)) == 1 && exp_negative(none) == 0 && std::isnan(exp_negative(nan)) && log_of(A(1)) == 0 &&
         log_of(A(INFINITY)) == A(INFINITY) && std::isnan(log_of(nan)) && log1p_unit(A(0)) == 0 &&
         power_of_unit(A(0), A(0)) == 1 && power_of_unit(A(0), A(0.5)) == 0 && power_of_unit(A(1), A(1e30)) == 1 &&
         angle_of(A(0), A(0)) == 0 && angle_of(A(0), A(3)) == 0 && angle_of(A(3), A(0)) == A(1.5707963267948966);
}

}  // namespace

int main() {
  if (!edges<float>() || !edges<double>()) return 1;
  measure<float>("float");
  measure<double>("double");
}
