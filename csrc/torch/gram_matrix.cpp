#include "../kernels/gram_matrix.h"

#include "binding.h"
#include "regions.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

Tensor gram_matrix(const Tensor& x, const std::optional<Tensor>& other, bool normalize, bool tf32) {
  const Check check{"gram_matrix"};
  const Tensor& y = other ? *other : x;
  check.all_floats("x", x);
  check.shape(x.dim() == 4, "x", x, "(N, C, H, W)");
  check.same_dtype("y", y, "x", x);
  check.same_device("y", y, "x", x);
  check.shape(y.dim() == 4 && y.size(0) == x.size(0) && y.size(2) == x.size(2) && y.size(3) == x.size(3), "y", y,
              "(N, D, H, W) with N, H and W of x");
  const int64_t pixels = x.size(2) * x.size(3), elements = x.size(1) * pixels;
  const bool channels_last = is_channels_last(x);
  const GramShape s{x.size(0), x.size(1),     y.size(1), pixels,
                    !other,    channels_last, tf32,      normalize && elements > 0 ? 1 / double(elements) : 1};
  const Backend backend(x);
  const ScalarType sums = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  const Tensor out = check.empty(x, {s.batch, s.rows, s.columns}, sums);
  if (out.numel() == 0) return out;
  const Tensor partial = check.empty(x, {s.parts(), s.batch, s.rows, s.columns}, sums);
  const Tensor of_x = dense(x, format_of(channels_last)), of_y = other ? dense(y, format_of(channels_last)) : of_x;
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::gram_matrix<T>(s, data<T>(of_x), data<T>(of_y), mutable_data<Accum<T>>(partial),
                                 mutable_data<Accum<T>>(out), exec);
    });
  });
  return out;
}

}  // namespace

FV_OPS(m) { m.impl("gram_matrix", TORCH_BOX(&gram_matrix)); }

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
