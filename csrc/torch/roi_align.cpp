#include "../kernels/roi_align.h"

#include "../kernels/roi_align_max.h"
#include "binding.h"
#include "regions.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

struct Sampling {
  double canonical_scale;
  int64_t canonical_level, out_h, out_w, sampling_ratio;
  bool aligned;
};

void check_sampling(const Check& check, const Sampling& p) {
  check.that(p.out_h >= 1 && p.out_w >= 1, "output_size: expected integers >= 1, got (", p.out_h, ", ", p.out_w, ")");
  check.that(p.sampling_ratio >= -1 && p.sampling_ratio <= 256,
             "sampling_ratio: expected -1, 0 or an integer in 1..256, got ", p.sampling_ratio);
}

// Sizes, scales and the rule that sends a region to its level.
RoiAlignShape shape_of_problem(const Check& check, OpId op, int64_t batch, int64_t channels, const Sizes& heights,
                               const Sizes& widths, const std::vector<double>& scales, const Tensor& rois,
                               const Sampling& p, bool channels_last) {
  RoiAlignShape s{};
  s.levels = int(heights.size());
  for (int l = 0; l < s.levels; ++l) {
    check.finite_positive(s.levels == 1 ? "spatial_scale" : "scales", scales[l]);
    // floor(canonical_level + log2(sqrt(area) / canonical_scale) + 1e-6) >= k, where level 0 is k = -log2(scale).
    const double k = std::round(-std::log2(scales[0])) + l;
    const double side = p.canonical_scale * std::exp2(k - double(p.canonical_level) - 1e-6);
    s.level[l] = {heights[l], widths[l], scales[l], side * side};
    check.that(rois.size(0) == 0 || (heights[l] > 0 && widths[l] > 0), s.levels == 1 ? "input" : "features",
               ": expected at least one pixel per map, got height ", heights[l], " and width ", widths[l]);
  }
  s.batch = batch;
  s.channels = channels;
  s.rois = rois.size(0);
  s.out_h = p.out_h;
  s.out_w = p.out_w;
  s.sampling_ratio = p.sampling_ratio;
  s.aligned = p.aligned;
  s.channels_last = channels_last;
  s.op = op;
  return s;
}

void check_levels(const Check& check, const std::optional<Tensor>& levels, const Tensor& rois, int64_t count) {
  if (!levels) return;
  check.dtype(levels->scalar_type() == ScalarType::Long, "levels", *levels, "int64");
  check.same_device("levels", *levels, "boxes", rois);
  check.shape(levels->dim() == 1 && levels->size(0) == rois.size(0), "levels", *levels, "(K,)");
  if (!validates_indices()) return;
  const Tensor host = on_cpu(dense(*levels));
  for (int64_t r = 0; r < host.size(0); ++r) {
    const int64_t v = data<int64_t>(host)[r];
    check.that(v >= 0 && v < count, "levels: expected an index in 0..", count - 1, " in row ", r, ", got ", v);
  }
}

Tensor forward(const Check& check, OpId op, const std::vector<Tensor>& features, const char* features_name,
               const Tensor& rois, const std::optional<Tensor>& levels, const std::vector<double>& scales,
               const Sampling& p) {
  const Tensor& first = features[0];
  check_rois(check, first, features_name, rois);
  check_sampling(check, p);
  Sizes heights, widths;
  for (const Tensor& f : features) {
    check.shape(f.dim() == 4, features_name, f, "(N, C, H, W)");
    check.same_dtype(features_name, f, "the first map", first);
    check.same_device(features_name, f, "the first map", first);
    check.shape(f.size(0) == first.size(0) && f.size(1) == first.size(1), features_name, f,
                "(N, C, H, W) with N and C of the first map");
    heights.push_back(f.size(2));
    widths.push_back(f.size(3));
  }
  const bool channels_last = is_channels_last(first);
  const RoiAlignShape s =
      shape_of_problem(check, op, first.size(0), first.size(1), heights, widths, scales, rois, p, channels_last);
  check_image_indices(check, "boxes", rois, s.batch);
  check_levels(check, levels, rois, s.levels);

  const Backend backend(first);
  const Tensor out =
      check.empty(first, {s.rois, s.channels, s.out_h, s.out_w}, first.scalar_type(), format_of(channels_last));
  if (out.numel() == 0) return out;
  const Tensor r = dense(rois);
  const std::optional<Tensor> level_of = dense(levels);
  std::vector<Tensor> maps;
  for (const Tensor& f : features) maps.push_back(dense(f, format_of(channels_last)));
  dispatch_all_floats(first, [&](auto t) {
    using T = decltype(t);
    LevelPointers<const T> pointers{};
    for (size_t l = 0; l < maps.size(); ++l) pointers.at[l] = data<T>(maps[l]);
    backend.run([&](const auto& exec) {
      fastvision::roi_align<T>(s, pointers, data<Accum<T>>(r), data<int64_t>(level_of), mutable_data<T>(out), exec);
    });
  });
  return out;
}

std::vector<Tensor> backward(const Check& check, OpId op, const Tensor& grad, const Tensor& rois,
                             const std::optional<Tensor>& levels, const std::vector<double>& scales, Sampling p,
                             int64_t n, const Sizes& heights, const Sizes& widths, bool channels_last) {
  check_rois(check, grad, "grad", rois);
  check.shape(grad.dim() == 4 && grad.size(0) == rois.size(0), "grad", grad, "(K, C, height, width)");
  p.out_h = grad.size(2);
  p.out_w = grad.size(3);
  check_sampling(check, p);
  check.at_least("n", n, 0);
  for (size_t l = 0; l < heights.size(); ++l) {
    check.at_least("h", heights[l], 0);
    check.at_least("w", widths[l], 0);
  }
  const RoiAlignShape s = shape_of_problem(check, op, n, grad.size(1), heights, widths, scales, rois, p, channels_last);
  check_image_indices(check, "boxes", rois, n);
  check_levels(check, levels, rois, s.levels);

  const Backend backend(grad);
  std::vector<Tensor> maps;
  for (int l = 0; l < s.levels; ++l)
    maps.push_back(
        check.empty(grad, {n, s.channels, heights[l], widths[l]}, grad.scalar_type(), format_of(channels_last)));
  const Tensor g = dense(grad, format_of(channels_last)), r = dense(rois);
  const std::optional<Tensor> level_of = dense(levels);
  dispatch_all_floats(grad, [&](auto t) {
    using T = decltype(t);
    LevelPointers<T> pointers{};
    for (size_t l = 0; l < maps.size(); ++l) pointers.at[l] = mutable_data<T>(maps[l]);
    backend.run([&](const auto& exec) {
      fastvision::roi_align_backward<T>(s, data<T>(g), data<Accum<T>>(r), data<int64_t>(level_of), pointers, exec);
    });
  });
  return maps;
}

void check_level_count(const Check& check, size_t features, size_t scales) {
  check.that(features >= 1 && features <= kMaxLevels, "features: expected 1 to ", kMaxLevels, " maps, got ", features);
  check.that(scales == features, "scales: expected one per map (", features, "), got ", scales);
}

Tensor roi_align(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t out_h, int64_t out_w,
                 int64_t sampling_ratio, bool aligned) {
  return forward({"roi_align"}, OpId::roi_align, {input}, "input", rois, std::nullopt, {spatial_scale},
                 {1, 0, out_h, out_w, sampling_ratio, aligned});
}

Tensor roi_align_backward(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t sampling_ratio,
                          bool aligned, int64_t n, int64_t h, int64_t w, bool channels_last) {
  return backward({"roi_align_backward"}, OpId::roi_align, grad, rois, std::nullopt, {spatial_scale},
                  {1, 0, 0, 0, sampling_ratio, aligned}, n, {h}, {w}, channels_last)[0];
}

std::tuple<Tensor, Tensor> roi_align_max(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t out_h,
                                         int64_t out_w, int64_t sampling_ratio, bool aligned, bool with_argmax) {
  const Check check{"roi_align"};
  const Sampling p{1, 0, out_h, out_w, sampling_ratio, aligned};
  check_rois(check, input, "input", rois);
  check_sampling(check, p);
  check.shape(input.dim() == 4, "input", input, "(N, C, H, W)");
  const bool channels_last = is_channels_last(input);
  const RoiAlignShape s = shape_of_problem(check, OpId::roi_align, input.size(0), input.size(1), {input.size(2)},
                                           {input.size(3)}, {spatial_scale}, rois, p, channels_last);
  check_image_indices(check, "boxes", rois, s.batch);
  const Backend backend(input);
  const MemoryFormat format = format_of(channels_last);
  const Tensor out = check.empty(input, {s.rois, s.channels, out_h, out_w}, input.scalar_type(), format);
  const Sizes places{with_argmax ? s.rois : 0, s.channels, out_h, out_w};
  const Tensor argmax = check.empty(input, places, ScalarType::Long, format);
  if (out.numel() == 0) return {out, argmax};
  const Tensor x = dense(input, format), r = dense(rois);
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::roi_align_max<T>(s, data<T>(x), data<Accum<T>>(r), mutable_data<T>(out),
                                   with_argmax ? mutable_data<int64_t>(argmax) : nullptr, exec);
    });
  });
  return {out, argmax};
}

Tensor roi_align_max_backward(const Tensor& grad, const Tensor& rois, const Tensor& argmax, double spatial_scale,
                              int64_t sampling_ratio, bool aligned, int64_t n, int64_t h, int64_t w,
                              bool channels_last) {
  const Check check{"roi_align_max_backward"};
  check_rois(check, grad, "grad", rois);
  check.shape(grad.dim() == 4 && grad.size(0) == rois.size(0), "grad", grad, "(K, C, height, width)");
  check.dtype(argmax.scalar_type() == ScalarType::Long, "argmax", argmax, "int64");
  check.same_device("argmax", argmax, "grad", grad);
  check.shape(argmax.dim() == 4 && argmax.size(0) == grad.size(0) && argmax.size(1) == grad.size(1) &&
                  argmax.size(2) == grad.size(2) && argmax.size(3) == grad.size(3),
              "argmax", argmax, "that of grad");
  const Sampling p{1, 0, grad.size(2), grad.size(3), sampling_ratio, aligned};
  check_sampling(check, p);
  for (const auto& [name, value] : {std::pair("n", n), std::pair("h", h), std::pair("w", w)})
    check.at_least(name, value, 0);
  const RoiAlignShape s =
      shape_of_problem(check, OpId::roi_align, n, grad.size(1), {h}, {w}, {spatial_scale}, rois, p, channels_last);
  check_image_indices(check, "boxes", rois, n);
  const Backend backend(grad);
  const Tensor out = check.empty(grad, {n, s.channels, h, w}, grad.scalar_type(), format_of(channels_last));
  const Tensor g = dense(grad, format_of(channels_last)), r = dense(rois);
  const Tensor a = dense(argmax, format_of(channels_last));
  dispatch_all_floats(grad, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      fastvision::roi_align_max_backward<T>(s, data<T>(g), data<Accum<T>>(r), data<int64_t>(a), mutable_data<T>(out),
                                            exec);
    });
  });
  return out;
}

Tensor multiscale_roi_align(const std::vector<Tensor>& features, const Tensor& rois,
                            const std::optional<Tensor>& levels, const std::vector<double>& scales,
                            double canonical_scale, int64_t canonical_level, int64_t out_h, int64_t out_w,
                            int64_t sampling_ratio, bool aligned) {
  const Check check{"multiscale_roi_align"};
  check_level_count(check, features.size(), scales.size());
  check.finite_positive("canonical_scale", canonical_scale);
  return forward(check, OpId::multiscale_roi_align, features, "features", rois, levels, scales,
                 {canonical_scale, canonical_level, out_h, out_w, sampling_ratio, aligned});
}

std::vector<Tensor> multiscale_roi_align_backward(const Tensor& grad, const Tensor& rois,
                                                  const std::optional<Tensor>& levels,
                                                  const std::vector<double>& scales, double canonical_scale,
                                                  int64_t canonical_level, int64_t sampling_ratio, bool aligned,
                                                  int64_t n, const std::vector<int64_t>& heights,
                                                  const std::vector<int64_t>& widths, bool channels_last) {
  const Check check{"multiscale_roi_align_backward"};
  check_level_count(check, heights.size(), scales.size());
  check.that(heights.size() == widths.size(), "widths: expected one per map (", heights.size(), "), got ",
             widths.size());
  check.finite_positive("canonical_scale", canonical_scale);
  return backward(check, OpId::multiscale_roi_align, grad, rois, levels, scales,
                  {canonical_scale, canonical_level, 0, 0, sampling_ratio, aligned}, n, heights, widths, channels_last);
}

}  // namespace

FV_OPS(m) {
  m.impl("roi_align", TORCH_BOX(&roi_align));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward));
  m.impl("roi_align_max", TORCH_BOX(&roi_align_max));
  m.impl("roi_align_max_backward", TORCH_BOX(&roi_align_max_backward));
  m.impl("multiscale_roi_align", TORCH_BOX(&multiscale_roi_align));
  m.impl("multiscale_roi_align_backward", TORCH_BOX(&multiscale_roi_align_backward));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
