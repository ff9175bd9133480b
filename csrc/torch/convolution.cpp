#include "../kernels/convolution_dense.h"
#include "binding.h"
#include "regions.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

// geometry: stride, padding and dilation, two numbers each. All checks that do not concern the sizes of the maps.
ConvolutionShape shape_of_weight(const Check& check, const Tensor& input, const char* input_name, const Tensor& weight,
                                 const Sizes& geometry, int64_t groups, bool tf32) {
  check.all_floats(input_name, input);
  check.shape(input.dim() == 4, input_name, input, "(N, C, H, W) or (C, H, W)");
  check.same_dtype("weight", weight, input_name, input);
  check.same_device("weight", weight, input_name, input);
  check.shape(weight.dim() == 4 && weight.size(2) >= 1 && weight.size(3) >= 1, "weight", weight,
              "of 4 dimensions, the last two at least 1");
  check.that(geometry.size() == 6, "geometry: expected 6 integers, got ", geometry.size());
  check.steps("stride", geometry[0], geometry[1], 1);
  check.steps("padding", geometry[2], geometry[3], 0);
  check.steps("dilation", geometry[4], geometry[5], 1);
  check.steps("groups", groups, groups, 1);
  check.that(weight.size(0) % groups == 0, "weight: expected shape with channels divisible by groups=", groups,
             ", got ", shape_of(weight));
  ConvolutionShape s{};
  s.batch = input.size(0);
  s.groups = groups;
  s.small_channels = weight.size(0) / groups;
  s.large_channels = weight.size(1);
  s.kernel_y = weight.size(2), s.kernel_x = weight.size(3);
  s.stride_y = geometry[0], s.stride_x = geometry[1];
  s.padding_y = geometry[2], s.padding_x = geometry[3];
  s.dilation_y = geometry[4], s.dilation_x = geometry[5];
  s.channels_last = is_channels_last(input);
  s.weight_last = FV_IS != FV_IS_cpu && s.channels_last && is_dense(s);
  s.tf32 = tf32;
  check.that(input.size(2) >= 1 && input.size(3) >= 1, input_name, ": expected at least one pixel per map, got ",
             shape_of(input));
  return s;
}

// The sizes of the maps. A step beyond the map and its padding leads outside, however long it is.
void set_sizes(ConvolutionShape& s, int64_t small_h, int64_t small_w, int64_t large_h, int64_t large_w) {
  s.small_h = small_h, s.small_w = small_w;
  s.large_h = large_h, s.large_w = large_w;
  s.stride_y = min_of(s.stride_y, large_h + s.padding_y);
  s.stride_x = min_of(s.stride_x, large_w + s.padding_x);
}

void check_out(const Check& check, int64_t out_h, int64_t out_w) {
  check.that(out_h >= 1 && out_w >= 1, "output_size: expected integers >= 1, got ", out_h, "x", out_w);
}

void check_channels(const Check& check, const Tensor& input, const char* input_name, int64_t channels, int64_t groups) {
  check.that(input.size(1) == channels, input_name, ": expected shape with ", channels,
             " channels as weight and groups=", groups, ", got ", shape_of(input));
}

void check_bias(const Check& check, const std::optional<Tensor>& bias, const Tensor& input, int64_t channels) {
  if (!bias) return;
  check.same_dtype("bias", *bias, "input", input);
  check.same_device("bias", *bias, "input", input);
  check.that(bias->dim() == 1 && bias->size(0) == channels, "bias: expected shape (", channels, ",), got ",
             shape_of(*bias));
}

Tensor conv2d(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, const Sizes& geometry,
              int64_t groups, int64_t out_h, int64_t out_w, bool, bool tf32) {
  const Check check{"conv2d"};
  ConvolutionShape s = shape_of_weight(check, input, "input", weight, geometry, groups, tf32);
  check_channels(check, input, "input", s.groups * s.large_channels, groups);
  check_bias(check, bias, input, weight.size(0));
  check_out(check, out_h, out_w);
  set_sizes(s, out_h, out_w, input.size(2), input.size(3));
  const Backend backend(input);
  const MemoryFormat format = format_of(s.channels_last);
  const Tensor out = check.empty(input, {s.batch, weight.size(0), out_h, out_w}, input.scalar_type(), format);
  if (out.numel() == 0) return out;
  const Tensor x = dense(input, format), w = dense(weight, format_of(s.weight_last));
  const std::optional<Tensor> b = dense(bias);
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      convolution_gather<T>(s, data<T>(x), data<T>(w), data<T>(b), mutable_data<T>(out), exec);
    });
  });
  return out;
}

Tensor conv_transpose2d(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                        const Sizes& geometry, int64_t groups, int64_t out_h, int64_t out_w, bool, bool tf32) {
  const Check check{"conv_transpose2d"};
  ConvolutionShape s = shape_of_weight(check, input, "input", weight, geometry, groups, tf32);
  check_channels(check, input, "input", weight.size(0), groups);
  check_bias(check, bias, input, s.groups * s.large_channels);
  check_out(check, out_h, out_w);
  set_sizes(s, input.size(2), input.size(3), out_h, out_w);
  const Backend backend(input);
  const MemoryFormat format = format_of(s.channels_last);
  const Tensor out =
      check.empty(input, {s.batch, s.groups * s.large_channels, out_h, out_w}, input.scalar_type(), format);
  if (out.numel() == 0) return out;
  const Tensor x = dense(input, format), w = dense(weight, format_of(s.weight_last));
  const std::optional<Tensor> b = dense(bias);
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      convolution_scatter<T>(s, data<T>(x), data<T>(w), data<T>(b), mutable_data<T>(out), exec);
    });
  });
  return out;
}

// The gradient of both ops by their weight, (channels of small, channels of a group of large, kernel_h, kernel_w).
Tensor conv2d_weight_gradient(const Tensor& small, const Tensor& large, const Sizes& geometry, int64_t groups,
                              int64_t kernel_h, int64_t kernel_w, bool tf32) {
  const Check check{"conv2d_weight_gradient"};
  check.all_floats("small", small);
  check.shape(small.dim() == 4, "small", small, "(N, C, H, W)");
  check.shape(large.dim() == 4 && large.size(0) == small.size(0), "large", large, "(N, C, H, W) with N of small");
  check.steps("groups", groups, groups, 1);
  check.that(large.size(1) % groups == 0, "large: expected shape with channels divisible by groups=", groups, ", got ",
             shape_of(large));
  check.at_least("kernel_size", min_of(kernel_h, kernel_w), 1);
  const Tensor out = check.empty(small, {small.size(1), large.size(1) / groups, kernel_h, kernel_w});
  ConvolutionShape s = shape_of_weight(check, large, "large", out, geometry, groups, tf32);
  set_sizes(s, small.size(2), small.size(3), large.size(2), large.size(3));
  const Backend backend(small);
  if (out.numel() == 0) return out;
  const MemoryFormat format = format_of(s.channels_last);
  const Tensor of_small = dense(small, format), of_large = dense(large, format);
  dispatch_all_floats(small, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      convolution_product<T>(s, data<T>(of_small), data<T>(of_large), mutable_data<T>(out), exec);
    });
  });
  return out;
}

}  // namespace

FV_OPS(m) {
  m.impl("conv2d", TORCH_BOX(&conv2d));
  m.impl("conv_transpose2d", TORCH_BOX(&conv_transpose2d));
  m.impl("conv2d_weight_gradient", TORCH_BOX(&conv2d_weight_gradient));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
