#include "../kernels/total_variation.h"

#include "binding.h"
#include "regions.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

struct Problem {
  TotalVariationShape shape;
  bool channels_last;
  Tensor x;
};

Problem problem_of(const Check& check, const Tensor& x, int64_t penalty, double beta) {
  check.all_floats("x", x);
  check.shape(x.dim() >= 2, "x", x, "(..., H, W)");
  check.that(penalty >= 0 && penalty <= 3, "penalty: expected an integer in 0..3, got ", penalty);
  check.finite_positive("beta", beta);
  const int64_t height = x.size(-2), width = x.size(-1);
  int64_t planes = 1;
  for (int64_t d = 0; d + 2 < x.dim(); ++d) planes *= x.size(d);
  const bool channels_last = x.dim() == 4 && is_channels_last(x);
  const int64_t channels = channels_last ? x.size(1) : 1;
  return {{planes / (channels ? channels : 1), height, width, channels, beta},
          channels_last,
          dense(x, format_of(channels_last))};
}

Sizes plane_sizes(const Tensor& x) {
  Sizes sizes = x.sizes().vec();
  sizes.resize(sizes.size() - 2);
  return sizes;
}

Tensor total_variation(const Tensor& x, int64_t penalty, double beta) {
  const Check check{"total_variation"};
  const Problem p = problem_of(check, x, penalty, beta);
  const Backend backend(x);
  const Tensor sums = check.empty(x, plane_sizes(x), accumulated_type(x));
  const Tensor scratch = check.empty(x, {p.shape.partial_sums()}, ScalarType::Double);
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::total_variation<T>(p.shape, Penalty(penalty), data<T>(p.x), mutable_data<double>(scratch),
                                     mutable_data<Accum<T>>(sums), exec);
    });
  });
  return sums;
}

Tensor total_variation_backward(const Tensor& grad, const Tensor& x, int64_t penalty, double beta) {
  const Check check{"total_variation_backward"};
  const Problem p = problem_of(check, x, penalty, beta);
  check.dtype(grad.scalar_type() == accumulated_type(x), "grad", grad, dtype_name(accumulated_type(x)));
  check.same_device("grad", grad, "x", x);
  check.shape(grad.sizes().vec() == plane_sizes(x), "grad", grad, "that of x without its last two dimensions");
  const Backend backend(x);
  const Tensor grad_x = check.empty(x, x.sizes().vec(), x.scalar_type(), format_of(p.channels_last));
  const Tensor g = dense(grad);
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::total_variation_backward<T>(p.shape, Penalty(penalty), data<Accum<T>>(g), data<T>(p.x),
                                              mutable_data<T>(grad_x), exec);
    });
  });
  return grad_x;
}

}  // namespace

FV_OPS(m) {
  m.impl("total_variation", TORCH_BOX(&total_variation));
  m.impl("total_variation_backward", TORCH_BOX(&total_variation_backward));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
