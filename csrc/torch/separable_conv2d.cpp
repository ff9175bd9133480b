#include "../kernels/separable_conv2d.h"

#include "binding.h"
#include "regions.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

// geometry: padding and dilation of the depthwise stage, two numbers each.
Tensor separable_conv2d(const Tensor& input, const Tensor& depthwise_weight, const Tensor& pointwise_weight,
                        const std::optional<Tensor>& depthwise_bias, const std::optional<Tensor>& pointwise_bias,
                        const std::optional<Tensor>& scale, const std::optional<Tensor>& shift, const Sizes& geometry,
                        bool depthwise_relu, bool relu, int64_t out_h, int64_t out_w, bool tf32) {
  const Check check{"separable_conv2d"};
  check.all_floats("input", input);
  check.shape(input.dim() == 4, "input", input, "(N, C, H, W) or (C, H, W)");
  const int64_t channels = input.size(1);
  const auto matches = [&](const char* name, const Tensor& t) {
    check.same_dtype(name, t, "input", input);
    check.same_device(name, t, "input", input);
  };
  matches("depthwise_weight", depthwise_weight);
  matches("pointwise_weight", pointwise_weight);
  const Tensor &d = depthwise_weight, &p = pointwise_weight;
  check.shape(d.dim() == 4 && d.size(0) == channels && d.size(1) == 1 && d.size(2) >= 1 && d.size(3) >= 1,
              "depthwise_weight", d, "(C, 1, kernel height, kernel width) with C of input");
  check.shape(p.dim() == 4 && p.size(1) == channels && p.size(2) == 1 && p.size(3) == 1, "pointwise_weight", p,
              "(D, C, 1, 1) with C of input");
  const auto per_channel = [&](const char* name, const std::optional<Tensor>& t, int64_t count) {
    if (!t) return;
    matches(name, *t);
    check.that(t->dim() == 1 && t->size(0) == count, name, ": expected shape (", count, ",), got ", shape_of(*t));
  };
  per_channel("depthwise_bias", depthwise_bias, channels);
  per_channel("pointwise_bias", pointwise_bias, p.size(0));
  per_channel("scale_shift", scale, p.size(0));
  per_channel("scale_shift", shift, p.size(0));
  check.that(scale.has_value() == shift.has_value(), "scale_shift: expected both or none, got one");
  check.that(geometry.size() == 4, "geometry: expected 4 integers, got ", geometry.size());
  check.steps("padding", geometry[0], geometry[1], 0);
  check.steps("dilation", geometry[2], geometry[3], 1);
  check.that(input.size(2) >= 1 && input.size(3) >= 1, "input: expected at least one pixel per map, got ",
             shape_of(input));
  check.that(out_h >= 1 && out_w >= 1, "output_size: expected integers >= 1, got ", out_h, "x", out_w);

  SeparableShape s{};
  s.depthwise.batch = input.size(0);
  s.depthwise.groups = channels;
  s.depthwise.small_channels = s.depthwise.large_channels = 1;
  s.depthwise.small_h = out_h, s.depthwise.small_w = out_w;
  s.depthwise.large_h = input.size(2), s.depthwise.large_w = input.size(3);
  s.depthwise.kernel_y = d.size(2), s.depthwise.kernel_x = d.size(3);
  s.depthwise.stride_y = s.depthwise.stride_x = 1;
  s.depthwise.padding_y = geometry[0], s.depthwise.padding_x = geometry[1];
  s.depthwise.dilation_y = geometry[2], s.depthwise.dilation_x = geometry[3];
  s.depthwise.channels_last = is_channels_last(input);
  s.depthwise.tf32 = tf32;
  s.out_channels = p.size(0);
  s.depthwise_relu = depthwise_relu, s.relu = relu;
  const Backend backend(input);
  const MemoryFormat format = format_of(s.depthwise.channels_last);
  const Tensor out = check.empty(input, {s.depthwise.batch, s.out_channels, out_h, out_w}, input.scalar_type(), format);
  if (out.numel() == 0) return out;
  const Tensor x = dense(input, format), of_depthwise = dense(d), of_pointwise = dense(p);
  const std::optional<Tensor> db = dense(depthwise_bias), pb = dense(pointwise_bias), a = dense(scale),
                              b = dense(shift);
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    const SeparableFactors<T> f{data<T>(of_depthwise), data<T>(db), data<T>(of_pointwise),
                                data<T>(pb),           data<T>(a),  data<T>(b)};
    backend.run(
        [&](const auto& exec) { fastvision::separable_conv2d<T>(s, data<T>(x), f, mutable_data<T>(out), exec); });
  });
  return out;
}

}  // namespace

FV_OPS(m) { m.impl("separable_conv2d", TORCH_BOX(&separable_conv2d)); }

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
