#include "../kernels/roi_pool.h"

#include "binding.h"
#include "regions.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

RoiPoolShape shape_of_problem(const Check& check, int64_t batch, int64_t channels, int64_t height, int64_t width,
                              const Tensor& rois, double spatial_scale, int64_t out_h, int64_t out_w,
                              bool channels_last) {
  check.finite_positive("spatial_scale", spatial_scale);
  check.that(out_h >= 1 && out_w >= 1, "output_size: expected integers >= 1, got (", out_h, ", ", out_w, ")");
  check.that(rois.size(0) == 0 || (height > 0 && width > 0), "input: expected at least one pixel per map, got height ",
             height, " and width ", width);
  check.that(height == 0 || width < (int64_t(1) << 31) / height,
             "input: expected fewer than 2**31 pixels per map, got ", "height ", height, " and width ", width);
  return {batch, channels, height, width, rois.size(0), out_h, out_w, spatial_scale, channels_last};
}

std::tuple<Tensor, Tensor> roi_pool(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t out_h,
                                    int64_t out_w, bool with_argmax) {
  const Check check{"roi_pool"};
  check_rois(check, input, "input", rois);
  check.shape(input.dim() == 4, "input", input, "(N, C, H, W)");
  const bool channels_last = is_channels_last(input);
  const RoiPoolShape s = shape_of_problem(check, input.size(0), input.size(1), input.size(2), input.size(3), rois,
                                          spatial_scale, out_h, out_w, channels_last);
  check_image_indices(check, "boxes", rois, s.batch);
  const Backend backend(input);
  const MemoryFormat format = format_of(channels_last);
  const Tensor out = check.empty(input, {s.rois, s.channels, out_h, out_w}, input.scalar_type(), format);
  const Sizes places{with_argmax ? s.rois : 0, s.channels, out_h, out_w};
  const Tensor argmax = check.empty(input, places, ScalarType::Int, format);
  if (out.numel() == 0) return {out, argmax};
  const Tensor x = dense(input, format), r = dense(rois);
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::roi_pool<T>(s, data<T>(x), data<Accum<T>>(r), mutable_data<T>(out),
                              with_argmax ? mutable_data<int32_t>(argmax) : nullptr, exec);
    });
  });
  return {out, argmax};
}

Tensor roi_pool_backward(const Tensor& grad, const Tensor& rois, const Tensor& argmax, double spatial_scale, int64_t n,
                         int64_t h, int64_t w, bool channels_last) {
  const Check check{"roi_pool_backward"};
  check_rois(check, grad, "grad", rois);
  check.shape(grad.dim() == 4 && grad.size(0) == rois.size(0), "grad", grad, "(K, C, height, width)");
  check.dtype(argmax.scalar_type() == ScalarType::Int, "argmax", argmax, "int32");
  check.same_device("argmax", argmax, "grad", grad);
  check.shape(argmax.sizes().vec() == grad.sizes().vec(), "argmax", argmax, "the shape of grad");
  for (const auto& [name, value] : {std::pair("n", n), std::pair("h", h), std::pair("w", w)})
    check.at_least(name, value, 0);
  const RoiPoolShape s =
      shape_of_problem(check, n, grad.size(1), h, w, rois, spatial_scale, grad.size(2), grad.size(3), channels_last);
  check_image_indices(check, "boxes", rois, n);
  const Backend backend(grad);
  const Tensor out = check.empty(grad, {n, s.channels, h, w}, grad.scalar_type(), format_of(channels_last));
  const Tensor g = dense(grad, format_of(channels_last)), r = dense(rois);
  const Tensor a = dense(argmax, format_of(channels_last));
  dispatch_all_floats(grad, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::roi_pool_backward<T>(s, data<T>(g), data<Accum<T>>(r), data<int32_t>(a), mutable_data<T>(out), exec);
    });
  });
  return out;
}

}  // namespace

FV_OPS(m) {
  m.impl("roi_pool", TORCH_BOX(&roi_pool));
  m.impl("roi_pool_backward", TORCH_BOX(&roi_pool_backward));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
