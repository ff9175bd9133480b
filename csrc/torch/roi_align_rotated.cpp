#include "../kernels/roi_align_rotated.h"

#include "binding.h"
#include "regions.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

RotatedRoiAlignShape checked_shape(const Check& check, const Tensor& features, const char* features_name,
                                   const Tensor& rois, double spatial_scale, int64_t out_h, int64_t out_w,
                                   int64_t sampling_ratio, bool aligned, AngleUnit unit) {
  check_rois(check, features, features_name, rois, "rois", 6);
  check.shape(features.dim() == 4, features_name, features, "(N, C, H, W)");
  check.that(out_h >= 1 && out_w >= 1, "output_size: expected integers >= 1, got (", out_h, ", ", out_w, ")");
  check.that(sampling_ratio >= -1 && sampling_ratio <= 256,
             "sampling_ratio: expected -1, 0 or an integer in 1..256, got ", sampling_ratio);
  check.finite_positive("spatial_scale", spatial_scale);
  RotatedRoiAlignShape s{};
  s.channels = features.size(1);
  s.rois = rois.size(0);
  s.out_h = out_h;
  s.out_w = out_w;
  s.sampling_ratio = sampling_ratio;
  s.spatial_scale = spatial_scale;
  s.unit = unit;
  s.aligned = aligned;
  return s;
}

// The part that the forward reads from its input, and the backward from its arguments.
void set_map(const Check& check, RotatedRoiAlignShape& s, const Tensor& rois, int64_t batch, int64_t height,
             int64_t width, bool channels_last) {
  s.batch = batch;
  s.height = height;
  s.width = width;
  s.channels_last = channels_last;
  check.that(s.rois == 0 || (height > 0 && width > 0), "input: expected at least one pixel per map, got height ",
             height, " and width ", width);
  check_image_indices(check, "rois", rois, batch);
}

Tensor roi_align_rotated(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t out_h, int64_t out_w,
                         int64_t sampling_ratio, bool aligned, bool degrees, bool clockwise) {
  const Check check{"roi_align_rotated"};
  RotatedRoiAlignShape s = checked_shape(check, input, "input", rois, spatial_scale, out_h, out_w, sampling_ratio,
                                         aligned, {degrees, clockwise});
  const bool channels_last = is_channels_last(input);
  set_map(check, s, rois, input.size(0), input.size(2), input.size(3), channels_last);
  const Backend backend(input);
  const Tensor out =
      check.empty(input, {s.rois, s.channels, s.out_h, s.out_w}, input.scalar_type(), format_of(channels_last));
  if (out.numel() == 0) return out;
  const Tensor map = dense(input, format_of(channels_last)), r = dense(rois);
  dispatch_all_floats(input, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::roi_align_rotated<T>(s, data<T>(map), data<Accum<T>>(r), mutable_data<T>(out), exec);
    });
  });
  return out;
}

Tensor roi_align_rotated_backward(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t sampling_ratio,
                                  bool aligned, bool degrees, bool clockwise, int64_t n, int64_t h, int64_t w,
                                  bool channels_last) {
  const Check check{"roi_align_rotated_backward"};
  check.shape(grad.dim() == 4 && grad.size(0) == rois.size(0), "grad", grad, "(K, C, height, width)");
  RotatedRoiAlignShape s = checked_shape(check, grad, "grad", rois, spatial_scale, grad.size(2), grad.size(3),
                                         sampling_ratio, aligned, {degrees, clockwise});
  check.at_least("n", n, 0);
  check.at_least("h", h, 0);
  check.at_least("w", w, 0);
  set_map(check, s, rois, n, h, w, channels_last);
  const Backend backend(grad);
  const Tensor map = check.empty(grad, {n, s.channels, h, w}, grad.scalar_type(), format_of(channels_last));
  const Tensor g = dense(grad, format_of(channels_last)), r = dense(rois);
  dispatch_all_floats(grad, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::roi_align_rotated_backward<T>(s, data<T>(g), data<Accum<T>>(r), mutable_data<T>(map), exec);
    });
  });
  return map;
}

}  // namespace

FV_OPS(m) {
  m.impl("roi_align_rotated", TORCH_BOX(&roi_align_rotated));
  m.impl("roi_align_rotated_backward", TORCH_BOX(&roi_align_rotated_backward));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
