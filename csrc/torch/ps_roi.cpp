#include "../kernels/ps_roi.h"

#include "binding.h"
#include "regions.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

// What the ops have beside a map and regions.
struct Pooling {
  OpId op;
  double spatial_scale;
  int64_t out_h, out_w;
  int64_t sampling_ratio;  // of bilinear samples
  bool whole_pixels, legacy_border;
};

PsRoiShape shape_of_problem(const Check& check, const Pooling& p, int64_t batch, int64_t channels, int64_t height,
                            int64_t width, const Tensor& rois, bool channels_last) {
  check.finite_positive("spatial_scale", p.spatial_scale);
  check.that(p.out_h >= 1 && p.out_w >= 1, "output_size: expected integers >= 1, got (", p.out_h, ", ", p.out_w, ")");
  check.that(p.sampling_ratio >= -1 && p.sampling_ratio <= 256,
             "sampling_ratio: expected -1, 0 or an integer in 1..256, got ", p.sampling_ratio);
  check.that(rois.size(0) == 0 || (height > 0 && width > 0), "input: expected at least one pixel per map, got height ",
             height, " and width ", width);
  PsRoiShape s{};
  s.map.level[0] = {height, width, p.spatial_scale, 0};
  s.map.levels = 1;
  s.map.batch = batch;
  s.map.channels = channels;
  s.map.rois = rois.size(0);
  s.map.out_h = p.out_h;
  s.map.out_w = p.out_w;
  s.map.sampling_ratio = p.sampling_ratio;
  s.map.aligned = true;
  s.map.channels_last = channels_last;
  s.map.op = p.op;
  s.legacy_border = p.legacy_border;
  return s;
}

template <class T, class F>
void with_bins(const Pooling& p, F&& f) {
  if (p.whole_pixels) f(PixelBins<Accum<T>>{});
  else f(SampledBins<Accum<T>>{});
}

Tensor forward(const Check& check, const Pooling& p, const Tensor& input, const Tensor& rois) {
  check_rois(check, input, "input", rois);
  check.shape(input.dim() == 4, "input", input, "(N, C, H, W)");
  const bool channels_last = is_channels_last(input);
  const PsRoiShape s =
      shape_of_problem(check, p, input.size(0), input.size(1), input.size(2), input.size(3), rois, channels_last);
  int64_t bins = 0;
  check.that(!__builtin_mul_overflow(p.out_h, p.out_w, &bins) && s.map.channels % bins == 0,
             "input: expected a multiple of ", p.out_h, " * ", p.out_w, " channels, got ", s.map.channels);
  check_image_indices(check, "boxes", rois, s.map.batch);
  const Backend backend(input);
  const Tensor out = check.empty(input, {s.map.rois, s.channels_out(), p.out_h, p.out_w}, input.scalar_type(),
                                 format_of(channels_last));
  if (out.numel() == 0) return out;
  const Tensor x = dense(input, format_of(channels_last)), r = dense(rois);
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    with_bins<T>(p, [&](auto kind) {
      backend.run([&](const auto& exec) {
        fastvision::ps_roi<T>(s, kind, data<T>(x), data<Accum<T>>(r), mutable_data<T>(out), exec);
      });
    });
  });
  return out;
}

Tensor backward(const Check& check, Pooling p, const Tensor& grad, const Tensor& rois, int64_t n, int64_t h, int64_t w,
                bool channels_last) {
  check_rois(check, grad, "grad", rois);
  check.shape(grad.dim() == 4 && grad.size(0) == rois.size(0), "grad", grad, "(K, C, height, width)");
  for (const auto& [name, value] : {std::pair("n", n), std::pair("h", h), std::pair("w", w)})
    check.at_least(name, value, 0);
  p.out_h = grad.size(2);
  p.out_w = grad.size(3);
  int64_t channels = 0;
  check.that(!__builtin_mul_overflow(grad.size(1), p.out_h, &channels) &&
                 !__builtin_mul_overflow(channels, p.out_w, &channels),
             "grad: expected at most 2**63 channels, got shape ", shape_of(grad));
  const PsRoiShape s = shape_of_problem(check, p, n, channels, h, w, rois, channels_last);
  check_image_indices(check, "boxes", rois, n);
  const Backend backend(grad);
  const Tensor out = check.empty(grad, {n, channels, h, w}, grad.scalar_type(), format_of(channels_last));
  const Tensor g = dense(grad, format_of(channels_last)), r = dense(rois);
  dispatch_all_floats(grad, [&](auto t) {
    using T = decltype(t);
    with_bins<T>(p, [&](auto kind) {
      backend.run([&](const auto& exec) {
        fastvision::ps_roi_backward<T>(s, kind, data<T>(g), data<Accum<T>>(r), mutable_data<T>(out), exec);
      });
    });
  });
  return out;
}

Tensor ps_roi_align(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t out_h, int64_t out_w,
                    int64_t sampling_ratio) {
  return forward({"ps_roi_align"}, {OpId::ps_roi_align, spatial_scale, out_h, out_w, sampling_ratio, false, false},
                 input, rois);
}

Tensor ps_roi_align_backward(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t sampling_ratio,
                             int64_t n, int64_t h, int64_t w, bool channels_last) {
  return backward({"ps_roi_align_backward"}, {OpId::ps_roi_align, spatial_scale, 0, 0, sampling_ratio, false, false},
                  grad, rois, n, h, w, channels_last);
}

Tensor ps_roi_pool(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t out_h, int64_t out_w,
                   bool legacy_border) {
  return forward({"ps_roi_pool"}, {OpId::ps_roi_pool, spatial_scale, out_h, out_w, 0, true, legacy_border}, input,
                 rois);
}

Tensor ps_roi_pool_backward(const Tensor& grad, const Tensor& rois, double spatial_scale, bool legacy_border, int64_t n,
                            int64_t h, int64_t w, bool channels_last) {
  return backward({"ps_roi_pool_backward"}, {OpId::ps_roi_pool, spatial_scale, 0, 0, 0, true, legacy_border}, grad,
                  rois, n, h, w, channels_last);
}

}  // namespace

FV_OPS(m) {
  m.impl("ps_roi_align", TORCH_BOX(&ps_roi_align));
  m.impl("ps_roi_align_backward", TORCH_BOX(&ps_roi_align_backward));
  m.impl("ps_roi_pool", TORCH_BOX(&ps_roi_pool));
  m.impl("ps_roi_pool_backward", TORCH_BOX(&ps_roi_pool_backward));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
