#include "../kernels/deform_conv2d.h"

#include <tuple>

#include "binding.h"
#include "regions.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

// geometry: stride, padding and dilation, two numbers each. All checks but those of bias and gradient.
DeformShape shape_of_problem(const Check& check, const Tensor& input, const Tensor& offset, const Tensor& weight,
                             const std::optional<Tensor>& mask, const Sizes& geometry) {
  check.all_floats("input", input);
  check.shape(input.dim() == 4, "input", input, "(N, C, H, W)");
  check.same_dtype("weight", weight, "input", input);
  check.same_device("weight", weight, "input", input);
  check.shape(weight.dim() == 4 && weight.size(2) >= 1 && weight.size(3) >= 1, "weight", weight,
              "of 4 dimensions, the last two at least 1");
  check.that(geometry.size() == 6, "geometry: expected 6 integers, got ", geometry.size());
  check.steps("stride", geometry[0], geometry[1], 1);
  check.steps("padding", geometry[2], geometry[3], 0);
  check.steps("dilation", geometry[4], geometry[5], 1);
  check.that(input.size(2) >= 1 && input.size(3) >= 1, "input: expected at least one pixel per map, got ",
             shape_of(input));
  DeformShape s{};
  s.batch = input.size(0), s.in_channels = input.size(1), s.in_h = input.size(2), s.in_w = input.size(3);
  s.out_channels = weight.size(0), s.kernel_y = weight.size(2), s.kernel_x = weight.size(3);
  s.stride_y = geometry[0], s.stride_x = geometry[1];
  s.padding_y = geometry[2], s.padding_x = geometry[3];
  s.dilation_y = geometry[4], s.dilation_x = geometry[5];
  s.channels_last = is_channels_last(input);
  const int64_t per_group = weight.size(1);
  check.that(per_group > 0 ? s.in_channels % per_group == 0 && s.in_channels > 0 : s.in_channels == 0,
             "weight: expected shape with a number of channels that divides the ", s.in_channels,
             " of input in place 1, got ", shape_of(weight));
  s.groups = per_group > 0 ? s.in_channels / per_group : 1;
  check.that(s.out_channels % s.groups == 0, "weight: expected shape with channels divisible by groups=", s.groups,
             ", got ", shape_of(weight));
  const int64_t window_y = s.dilation_y * (s.kernel_y - 1) + 1, window_x = s.dilation_x * (s.kernel_x - 1) + 1;
  const int64_t padded_y = s.in_h + 2 * s.padding_y, padded_x = s.in_w + 2 * s.padding_x;
  check.that(padded_y >= window_y && padded_x >= window_x,
             "input: expected a padded map of at least the effective kernel size ", window_y, "x", window_x, ", got ",
             padded_y, "x", padded_x);
  s.out_h = (padded_y - window_y) / s.stride_y + 1, s.out_w = (padded_x - window_x) / s.stride_x + 1;

  const auto check_map = [&](const char* name, const Tensor& t, int64_t channels, const char* expected) {
    const ScalarType wanted = accumulated_type(input);
    check.that(t.scalar_type() == wanted, name, ": expected dtype ", dtype_name(wanted), " for input of ",
               dtype_name(input.scalar_type()), ", got ", dtype_name(t.scalar_type()));
    check.same_device(name, t, "input", input);
    const bool fits = t.dim() == 4 && t.size(0) == s.batch && t.size(2) == s.out_h && t.size(3) == s.out_w &&
                      t.size(1) % channels == 0 && t.size(1) >= channels;
    check.that(fits, name, ": expected shape (", s.batch, ", ", expected, " * ", channels, ", ", s.out_h, ", ", s.out_w,
               "), got ", shape_of(t));
  };
  check_map("offset", offset, 2 * s.taps(), "offset groups");
  s.offset_groups = offset.size(1) / (2 * s.taps());
  check.that(s.in_channels % s.offset_groups == 0,
             "offset: expected a number of offset groups that divides the channels of input, ", s.in_channels, ", got ",
             s.offset_groups);
  if (mask) {
    check_map("mask", *mask, s.taps(), "offset groups");
    check.that(mask->size(1) == s.offset_groups * s.taps(), "mask: expected shape (", s.batch, ", ",
               s.offset_groups * s.taps(), ", ", s.out_h, ", ", s.out_w, "), got ", shape_of(*mask));
  }
  return s;
}

void check_grad(const Check& check, const Tensor& grad, const Tensor& input, const DeformShape& s) {
  check.same_dtype("grad", grad, "input", input);
  check.same_device("grad", grad, "input", input);
  const bool fits = grad.dim() == 4 && grad.size(0) == s.batch && grad.size(1) == s.out_channels &&
                    grad.size(2) == s.out_h && grad.size(3) == s.out_w;
  check.that(fits, "grad: expected shape (", s.batch, ", ", s.out_channels, ", ", s.out_h, ", ", s.out_w, "), got ",
             shape_of(grad));
}

Tensor deform_conv2d(const Tensor& input, const Tensor& offset, const Tensor& weight, const std::optional<Tensor>& bias,
                     const std::optional<Tensor>& mask, const Sizes& geometry) {
  const Check check{"deform_conv2d"};
  const DeformShape s = shape_of_problem(check, input, offset, weight, mask, geometry);
  if (bias) {
    check.same_dtype("bias", *bias, "input", input);
    check.same_device("bias", *bias, "input", input);
    check.that(bias->dim() == 1 && bias->size(0) == s.out_channels, "bias: expected shape (", s.out_channels,
               ",), got ", shape_of(*bias));
  }
  const Backend backend(input);
  const Tensor out =
      check.empty(input, {s.batch, s.out_channels, s.out_h, s.out_w}, input.scalar_type(), format_of(s.channels_last));
  if (out.numel() == 0) return out;
  const Tensor x = dense(input, MemoryFormat::ChannelsLast), at = dense(offset), w = dense(weight);
  const std::optional<Tensor> m = dense(mask), b = dense(bias);
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::deform_conv2d<T>(s, data<T>(x), data<Accum<T>>(at), data<Accum<T>>(m), data<T>(w), data<T>(b),
                                   mutable_data<T>(out), exec);
    });
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor> deform_conv2d_input_gradient(const Tensor& grad, const Tensor& input,
                                                                const Tensor& offset, const Tensor& weight,
                                                                const std::optional<Tensor>& mask,
                                                                const Sizes& geometry) {
  const Check check{"deform_conv2d_input_gradient"};
  const DeformShape s = shape_of_problem(check, input, offset, weight, mask, geometry);
  check_grad(check, grad, input, s);
  const Backend backend(input);
  const Tensor by_input =
      check.empty(input, {s.batch, s.in_channels, s.in_h, s.in_w}, input.scalar_type(), format_of(s.channels_last));
  const Tensor by_offset = check.empty(offset, {s.batch, offset.size(1), s.out_h, s.out_w});
  const Tensor by_mask =
      mask ? check.empty(offset, {s.batch, mask->size(1), s.out_h, s.out_w}) : check.empty(offset, {0});
  if (by_input.numel() == 0) {
    if (by_offset.numel() > 0) torch::stable::zero_(const_cast<Tensor&>(by_offset));
    if (by_mask.numel() > 0) torch::stable::zero_(const_cast<Tensor&>(by_mask));
    return {by_input, by_offset, by_mask};
  }
  const Tensor g = dense(grad, MemoryFormat::ChannelsLast), x = dense(input, MemoryFormat::ChannelsLast);
  const Tensor at = dense(offset), w = dense(weight);
  const std::optional<Tensor> m = dense(mask);
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    using A = Accum<T>;
    backend.run([&](const auto& exec) {
      const Tensor scratch = check.empty(offset, {deform_scratch(s, exec)});
      fastvision::deform_conv2d_input_gradient<T>(
          s, data<T>(g), data<T>(x), data<A>(at), data<A>(m), data<T>(w), mutable_data<A>(scratch),
          mutable_data<T>(by_input), mutable_data<A>(by_offset), mask ? mutable_data<A>(by_mask) : nullptr, exec);
    });
  });
  return {by_input, by_offset, by_mask};
}

Tensor deform_conv2d_weight_gradient(const Tensor& grad, const Tensor& input, const Tensor& offset,
                                     const Tensor& weight, const std::optional<Tensor>& mask, const Sizes& geometry) {
  const Check check{"deform_conv2d_weight_gradient"};
  const DeformShape s = shape_of_problem(check, input, offset, weight, mask, geometry);
  check_grad(check, grad, input, s);
  const Backend backend(input);
  const Tensor out = check.empty(weight, {s.out_channels, s.group_in(), s.kernel_y, s.kernel_x});
  if (out.numel() == 0) return out;
  const Tensor g = dense(grad, MemoryFormat::ChannelsLast), x = dense(input, MemoryFormat::ChannelsLast);
  const Tensor at = dense(offset);
  const std::optional<Tensor> m = dense(mask);
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::deform_conv2d_weight_gradient<T>(s, data<T>(g), data<T>(x), data<Accum<T>>(at), data<Accum<T>>(m),
                                                   mutable_data<T>(out), exec);
    });
  });
  return out;
}

}  // namespace

FV_OPS(m) {
  m.impl("deform_conv2d", TORCH_BOX(&deform_conv2d));
  m.impl("deform_conv2d_input_gradient", TORCH_BOX(&deform_conv2d_input_gradient));
  m.impl("deform_conv2d_weight_gradient", TORCH_BOX(&deform_conv2d_weight_gradient));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
