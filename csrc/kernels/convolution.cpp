// Which kernel a convolution takes. One channel per group: depthwise.h, depthwise_product.h and depthwise_runs.h in
// channels_last, depthwise_planes.h and depthwise_wide.h in NCHW. Dense with stride 1: winograd.h and of weights
// winograd_product.h, convolution_by_tap.h. Windows side by side, 1 x 1 among them: pixel_shuffle.h in NCHW,
// pixel_shuffle_last.h in channels_last. Taps far apart: convolution_direct.h. All others: convolution_rows.h, of
// weights convolution_product.h.
#include "convolution.h"

#include <type_traits>
#include <vector>

#include "convolution_by_tap.h"
#include "convolution_direct.h"
#include "convolution_product.h"
#include "convolution_rows.h"
#include "depthwise.h"
#include "depthwise_planes.h"
#include "depthwise_product.h"
#include "depthwise_runs.h"
#include "depthwise_wide.h"
#include "factors.h"
#include "pixel_shuffle.h"
#include "pixel_shuffle_last.h"
#include "pixel_shuffle_product.h"
#include "simd.h"
#include "winograd.h"
#include "winograd_product.h"

namespace fastvision {
namespace {

bool is_depthwise_last(const ConvolutionShape& s) {
  return s.channels_last && s.small_channels == 1 && s.large_channels == 1;
}
// Rows of all images of a depthwise result in channels_last.
template <class T, class Isa>
void depthwise_rows(const ConvolutionShape& s, const MapLayout& from, const MapLayout& to, const DepthwiseAxes& axes,
                    const T* source, const Accum<T>* weight, const Accum<T>* bias, T* result, const Cpu<Isa>& exec) {
  const std::vector<Accum<T>> weights = by_tap(s, weight);
  exec(s.batch * to.height, 1 + 65536 / (to.row * s.taps() + 1), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const DepthwiseRow<T, T> row{source + k / to.height * from.image, weights.data(), bias, result + k * to.row,
                                   to.column};
      depthwise_row(axes, k % to.height, 0, to.width, s.groups, row);
    }
  });
}

}  // namespace

template <class T, class Isa>
void convolution_gather(const ConvolutionShape& s, const T* large, const T* weight, const T* bias, T* small,
                        const Cpu<Isa>& exec) {
  if (is_dense_with_unit_stride(s)) {
    const UnitStrideShape dense = unit_stride_gather(s);
    if constexpr (std::is_same_v<Accum<T>, float>)
      if (winograd_applies<T>(dense)) return Winograd<T, Isa>(dense, large, weight, bias, small)(exec);
    if constexpr (std::is_same_v<T, Accum<T>>)
      if (has_products_by_tap(dense)) return ConvolutionByTap<T, Isa>(dense, weight, bias)(large, small, exec);
  }
  const Factors<T> wide(weight, s.weights()), wide_bias(bias, bias ? s.groups * s.small_channels : 0);
  const Accum<T>* of_bias = bias ? wide_bias.at : nullptr;
  if (is_depthwise_last(s))
    return depthwise_rows(s, large_layout(s), small_layout(s), gathered_axes(s), large, wide.at, of_bias, small, exec);
  if (is_depthwise_planes(s) && wide.finite)
    return correlate_planes(gathered_plane(s), s.batch, s.groups, large, wide.at, of_bias, small, exec);
  if (is_pixel_shuffle(s) && has_small_windows(s)) return gather_windows(s, large, wide.at, of_bias, small, exec);
  if (is_pixel_shuffle_last(s)) return gather_windows_last(s, large, wide.at, of_bias, small, exec);
  if (is_far_apart(s)) return convolve_directly<true>(s, large, wide.at, of_bias, small, exec);
  const int64_t step = rows_at_once(s), blocks = ceil_div(s.small_h, step);
  const int64_t work = step * s.small_w * s.small_channels * s.large_channels * s.taps();
  exec(s.batch * s.groups * blocks, 1 + 65536 / (work + 1), [&](int64_t begin, int64_t end) {
    std::vector<Accum<T>> scratch;
    for (int64_t k = begin; k < end; ++k) {
      const int64_t y0 = k % blocks * step, plane = k / blocks, group = plane % s.groups;
      if (has_wide_stride<Accum<T>>(s)) {
        gather_wide(s, y0, min_of(y0 + step, s.small_h), large + plane * s.large_h * s.large_w,
                    wide.at + group * s.taps(), of_bias ? of_bias[group] : Accum<T>(0),
                    small + plane * s.small_h * s.small_w);
        continue;
      }
      gather_rows(s, plane / s.groups, group, y0, min_of(y0 + step, s.small_h), large, wide, of_bias, small, scratch);
    }
  });
}

template <class T, class Isa>
void convolution_scatter(const ConvolutionShape& s, const T* small, const T* weight, const T* bias, T* large,
                         const Cpu<Isa>& exec) {
  if (is_dense_with_unit_stride(s)) {
    const UnitStrideShape dense = unit_stride_scatter(s);
    if constexpr (std::is_same_v<Accum<T>, float>)
      if (winograd_applies<T>(dense)) return Winograd<T, Isa>(dense, small, weight, bias, large)(exec);
    if constexpr (std::is_same_v<T, Accum<T>>)
      if (has_products_by_tap(dense)) return ConvolutionByTap<T, Isa>(dense, weight, bias)(small, large, exec);
  }
  const Factors<T> wide(weight, s.weights()), wide_bias(bias, bias ? s.groups * s.large_channels : 0);
  const Accum<T>* of_bias = bias ? wide_bias.at : nullptr;
  if (has_runs(s)) return scatter_runs(s, small, by_tap(s, wide.at).data(), of_bias, large, exec);
  if (is_depthwise_last(s))
    return depthwise_rows(s, small_layout(s), large_layout(s), scattered_axes(s), small, wide.at, of_bias, large, exec);
  if (is_depthwise_planes(s) && wide.finite)
    return correlate_planes(scattered_plane(s), s.batch, s.groups, small, wide.at, of_bias, large, exec);
  if (is_pixel_shuffle(s)) return scatter_windows(s, small, wide.at, of_bias, large, exec);
  if (is_pixel_shuffle_last(s)) return scatter_windows_last(s, small, wide.at, of_bias, large, exec);
  if (is_far_apart(s)) return convolve_directly<false>(s, small, wide.at, of_bias, large, exec);
  const int64_t step = rows_at_once(s), blocks = ceil_div(s.large_h, step);
  const int64_t work = step * s.large_w * s.small_channels * s.large_channels * (s.taps() / s.stride_x + 1);
  exec(s.batch * s.groups * blocks, 1 + 65536 / (work + 1), [&](int64_t begin, int64_t end) {
    std::vector<Accum<T>> scratch;
    for (int64_t k = begin; k < end; ++k) {
      const int64_t y0 = k % blocks * step, plane = k / blocks, group = plane % s.groups;
      if (has_wide_stride<Accum<T>>(s)) {
        scatter_wide(s, y0, min_of(y0 + step, s.large_h), small + plane * s.small_h * s.small_w,
                     wide.at + group * s.taps(), of_bias ? of_bias[group] : Accum<T>(0),
                     large + plane * s.large_h * s.large_w);
        continue;
      }
      scatter_rows(s, plane / s.groups, group, y0, min_of(y0 + step, s.large_h), small, wide, of_bias, large, scratch);
    }
  });
}

template <class T, class Isa>
void convolution_product(const ConvolutionShape& s, const T* small, const T* large, T* weight, const Cpu<Isa>& exec) {
  if constexpr (std::is_same_v<Accum<T>, float>)
    if (is_dense_with_unit_stride(s) && winograd_applies<T>(unit_stride_gather(s)))
      return WinogradProduct<T, Isa>(s, small, large, weight)(exec);
  const int64_t work = s.batch * s.small_h * s.small_w * s.taps();  // of one channel
  if (is_depthwise_last(s)) {
    using A = Accum<T>;
    const AxisTaps rows = gathered_taps(s.small_h, s.large_h, s.kernel_y, s.stride_y, s.padding_y, s.dilation_y);
    const int64_t vectors = max_of(min_of(ceil_div(s.groups, exec.threads * kLanes<A>), int64_t(4)), int64_t(1));
    const int64_t channels = vectors * kLanes<A>;  // of a task
    return exec(ceil_div(s.groups, channels), 1 + 65536 / (work * channels + 1), [&](int64_t begin, int64_t end) {
      RowProducts<A> products;
      with_constant(vectors, [&](auto count) {
        for (int64_t k = begin; k < end; ++k)
          depthwise_product<count()>(s, rows, k * channels, min_of(channels, s.groups - k * channels), small, large,
                                     weight, products);
      });
    });
  }
  if (is_pixel_shuffle(s) && has_small_windows(s) && has_small_sums(s))
    return product_of_windows(s, small, large, weight, exec);
  if (is_pixel_shuffle_last(s)) return product_of_windows_last(s, small, large, weight, exec);
  if (s.small_channels * s.large_channels > 1) return product_by_tap(s, small, large, weight, exec);
  exec(s.groups, 1 + 65536 / (work + 1), [&](int64_t begin, int64_t end) {
    std::vector<Accum<T>> sums;
    for (int64_t k = begin; k < end; ++k) {
      if (is_depthwise_planes(s)) {
        product_of_planes(s, k, small, large, weight, sums);
        continue;
      }
      if (!has_wide_stride<Accum<T>>(s)) {
        product_of_rows(s, k, small, large, weight, sums);
        continue;
      }
      sums.assign(size_t(s.taps()), Accum<T>(0));
      for (int64_t n = 0; n < s.batch; ++n)
        product_wide(s, small + (n * s.groups + k) * s.small_h * s.small_w,
                     large + (n * s.groups + k) * s.large_h * s.large_w, sums.data());
      for (int64_t i = 0; i < s.taps(); ++i) weight[k * s.taps() + i] = from_accum<T>(sums[i]);
    }
  });
}

#define INSTANTIATE(T)                                                                                          \
  template void convolution_gather(const ConvolutionShape&, const T*, const T*, const T*, T*, const CpuExec&);  \
  template void convolution_scatter(const ConvolutionShape&, const T*, const T*, const T*, T*, const CpuExec&); \
  template void convolution_product(const ConvolutionShape&, const T*, const T*, T*, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
