#include "../kernels/gram_matrix.h"

#include "binding.h"
#include "regions.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

GramShape shape_of(const Tensor& x, const Tensor& y, bool symmetric, bool normalize, bool tf32) {
  const int64_t pixels = x.size(2) * x.size(3), elements = x.size(1) * pixels;
  const double scale = normalize && elements > 0 ? 1 / double(elements) : 1;
  return {x.size(0), x.size(1), y.size(1), pixels, symmetric, is_channels_last(x), tf32, scale};
}

Tensor gram_matrix(const Tensor& x, const std::optional<Tensor>& other, bool normalize, bool tf32) {
  const Check check{"gram_matrix"};
  const Tensor& y = other ? *other : x;
  check.all_floats("x", x);
  check.shape(x.dim() == 4, "x", x, "(N, C, H, W)");
  check.same_dtype("y", y, "x", x);
  check.same_device("y", y, "x", x);
  check.shape(y.dim() == 4 && y.size(0) == x.size(0) && y.size(2) == x.size(2) && y.size(3) == x.size(3), "y", y,
              "(N, D, H, W) with N, H and W of x");
  const GramShape s = shape_of(x, y, !other, normalize, tf32);
  const Backend backend(x);
  const Tensor out = check.empty(x, {s.batch, s.rows, s.columns}, accumulated_type(x));
  if (out.numel() == 0) return out;
  const Tensor partial = check.empty(x, {s.parts(), s.batch, s.rows, s.columns}, accumulated_type(x));
  const MemoryFormat format = format_of(s.channels_last);
  const Tensor of_x = dense(x, format), of_y = other ? dense(y, format) : of_x;
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::gram_matrix<T>(s, data<T>(of_x), data<T>(of_y), mutable_data<Accum<T>>(partial),
                                 mutable_data<Accum<T>>(out), exec);
    });
  });
  return out;
}

std::tuple<Tensor, Tensor> gram_loss(const Tensor& x, const Tensor& target, bool normalize, bool tf32) {
  const Check check{"gram_loss"};
  check.all_floats("x", x);
  check.shape(x.dim() == 4, "x", x, "(N, C, H, W)");
  check.dtype(target.scalar_type() == accumulated_type(x), "target", target, dtype_name(accumulated_type(x)));
  check.same_device("target", target, "x", x);
  const int64_t channels = x.size(1);
  check.shape(target.dim() == 3 && (target.size(0) == 1 || target.size(0) == x.size(0)) && target.size(1) == channels &&
                  target.size(2) == channels,
              "target", target, "(N, C, C) or (1, C, C) with N and C of x");
  const GramShape s = shape_of(x, x, true, normalize, tf32);
  const Backend backend(x);
  const Tensor losses = check.empty(x, {s.batch}, accumulated_type(x));
  const Tensor slopes = check.empty(x, {s.batch, s.rows, s.rows}, accumulated_type(x));
  const Tensor partial = check.empty(x, {s.parts(), s.batch, s.rows, s.rows}, accumulated_type(x));
  const Tensor row_sums = check.empty(x, {s.batch, s.rows}, ScalarType::Double);
  const Tensor of_x = dense(x, format_of(s.channels_last)), to = dense(target);
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    using A = Accum<T>;
    const GramLoss<A> loss{data<A>(to), target.size(0) == 1, mutable_data<double>(row_sums), mutable_data<A>(losses),
                           mutable_data<A>(slopes)};
    backend.run(
        [&](const auto& exec) { fastvision::gram_loss<T>(s, data<T>(of_x), mutable_data<A>(partial), loss, exec); });
  });
  return {losses, slopes};
}

}  // namespace

FV_OPS(m) {
  m.impl("gram_matrix", TORCH_BOX(&gram_matrix));
  m.impl("gram_loss", TORCH_BOX(&gram_loss));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
