#include "../kernels/max_pool2d.h"

#include "binding.h"
#include "pooling.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

int64_t out_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation, bool ceil_mode) {
  const int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
  if (room + (ceil_mode ? stride - 1 : 0) < 0) return 0;
  const int64_t out = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  return ceil_mode && (out - 1) * stride >= size + padding ? out - 1 : out;  // a window starts inside or before
}

MaxPoolShape shape_of_problem(const Check& check, int64_t n, int64_t c, int64_t h, int64_t w, const Sizes& window,
                              bool ceil_mode, bool compact, bool channels_last) {
  const PoolGeometry g = geometry_of(check, window);
  check.that(!compact || g.kernel_y <= 255 / g.kernel_x,
             "compact_indices: expected a kernel of at most 255 taps, got kernel_size (", g.kernel_y, ", ", g.kernel_x,
             ")");
  const int64_t out_h = out_size(h, g.kernel_y, g.stride_y, g.padding_y, g.dilation_y, ceil_mode);
  const int64_t out_w = out_size(w, g.kernel_x, g.stride_x, g.padding_x, g.dilation_x, ceil_mode);
  check.that(out_h >= 1 && out_w >= 1, "input: expected at least one window in padded maps, got height ", h,
             " and width ", w);
  return {channels_last ? n : n * c, channels_last ? c : 1, h, w, out_h, out_w, g};
}

std::tuple<Tensor, Tensor> max_pool2d(const Tensor& input, const Sizes& window, bool ceil_mode, bool compact) {
  const Check check{"max_pool2d"};
  check.all_floats("input", input);
  check.shape(input.dim() == 4, "input", input, "(N, C, H, W) or (C, H, W)");
  const bool channels_last = is_channels_last(input);
  const int64_t n = input.size(0), c = input.size(1);
  const MaxPoolShape s =
      shape_of_problem(check, n, c, input.size(2), input.size(3), window, ceil_mode, compact, channels_last);
  const Backend backend(input);
  const Sizes sizes{n, c, s.out_h, s.out_w};
  const Tensor out = check.empty(input, sizes, input.scalar_type(), format_of(channels_last));
  const Tensor index =
      check.empty(input, sizes, compact ? ScalarType::Byte : ScalarType::Long, format_of(channels_last));
  if (out.numel() == 0) return {out, index};
  const Tensor x = dense(input, format_of(channels_last));
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    dispatch_index(index, [&](auto i) {
      using Index = decltype(i);
      backend.run([&](const auto& exec) {
        fastvision::max_pool2d<T, Index>(s, data<T>(x), mutable_data<T>(out), mutable_data<Index>(index), exec);
      });
    });
  });
  return {out, index};
}

Tensor max_pool2d_backward(const Tensor& grad, const Tensor& index, const Sizes& window, int64_t h, int64_t w,
                           bool channels_last) {
  const Check check{"max_pool2d_backward"};
  check.all_floats("grad", grad);
  check.shape(grad.dim() == 4, "grad", grad, "(N, C, H, W)");
  check_index(check, "index", index, "grad", grad);
  check.that(h >= 1 && w >= 1, "input: expected at least one pixel per map, got height ", h, " and width ", w);
  MaxPoolShape s{grad.size(0), grad.size(1), h, w, grad.size(2), grad.size(3), geometry_of(check, window)};
  if (!channels_last) {
    s.planes *= s.channels;
    s.channels = 1;
  }
  const Backend backend(grad);
  const Tensor out =
      check.empty(grad, {grad.size(0), grad.size(1), h, w}, grad.scalar_type(), format_of(channels_last));
  if (out.numel() == 0) return out;
  const Tensor g = dense(grad, format_of(channels_last)), i = dense(index, format_of(channels_last));
  dispatch_all_floats(g, [&](auto t) {
    using T = decltype(t);
    dispatch_index(i, [&](auto k) {
      using Index = decltype(k);
      backend.run([&](const auto& exec) {
        fastvision::max_pool2d_backward<T, Index>(s, data<T>(g), data<Index>(i), mutable_data<T>(out), exec);
      });
    });
  });
  return out;
}

}  // namespace

FV_OPS(m) {
  m.impl("max_pool2d", TORCH_BOX(&max_pool2d));
  m.impl("max_pool2d_backward", TORCH_BOX(&max_pool2d_backward));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
