#include "../kernels/max_unpool2d.h"

#include "binding.h"
#include "pooling.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

struct Problem {
  MaxUnpoolShape shape;
  bool channels_last;
};

Problem problem_of(const Check& check, const Tensor& index, const Sizes& window, int64_t out_h, int64_t out_w) {
  const bool channels_last = is_channels_last(index);
  const int64_t n = index.size(0), c = index.size(1);
  check.that(out_h >= 1 && out_w >= 1, "output_size: expected integers >= 1, got (", out_h, ", ", out_w, ")");
  check.that(n * c == 0 || (index.size(2) > 0 && index.size(3) > 0),
             "input: expected at least one pixel per map, got height ", index.size(2), " and width ", index.size(3));
  const PoolGeometry g = geometry_of(check, window);
  check.that(g.dilation_y == 1 && g.dilation_x == 1, "dilation: expected 1, got (", g.dilation_y, ", ", g.dilation_x,
             ")");
  return {{channels_last ? n : n * c, channels_last ? c : 1, index.size(2), index.size(3), out_h, out_w, g},
          channels_last};
}

// The error for the first index that is no place.
[[noreturn]] void fail_at_first_bad(const Check& check, const Tensor& index, MaxUnpoolShape s) {
  const Tensor host = on_cpu(dense(index));
  const int64_t taps = s.g.kernel_y * s.g.kernel_x;
  dispatch_index(host, [&](auto k) {
    using Index = decltype(k);
    const Index* p = data<Index>(host);
    for (int64_t i = 0; i < host.numel(); ++i)
      check.that(place_of(s, i / s.width % s.height, i % s.width, p[i]) >= 0, "indices: expected an integer in 0..",
                 (sizeof(Index) == 1 ? taps : s.out_pixels()) - 1, " that lies in the output, in row ", i, ", got ",
                 int64_t(p[i]));
  });
  fail(check.op, ": indices: expected places in the output");
}

bool all_places(const Tensor& index, const MaxUnpoolShape& s) {
  const Tensor host = on_cpu(dense(index));
  bool good = true;
  dispatch_index(host, [&](auto k) {
    const auto* p = data<decltype(k)>(host);
    for (int64_t i = 0; i < host.numel(); ++i) good &= place_of(s, i / s.width % s.height, i % s.width, p[i]) >= 0;
  });
  return good;
}

Tensor owners_for(const Check& check, const Tensor& index, const MaxUnpoolShape& s) {
  const bool needed = FV_IS != FV_IS_cpu && index.scalar_type() == ScalarType::Long;
  return check.empty(index, {needed ? s.planes * s.out_plane() : 0}, ScalarType::Long);
}

Tensor max_unpool2d(const Tensor& input, const Tensor& index, const Sizes& window, int64_t out_h, int64_t out_w) {
  const Check check{"max_unpool2d"};
  check.all_floats("input", input);
  check.shape(input.dim() == 4, "input", input, "(N, C, H, W) or (C, H, W)");
  check_index(check, "indices", index, "input", input);
  const auto [s, channels_last] = problem_of(check, input, window, out_h, out_w);
  if (FV_IS != FV_IS_cpu && validates_indices() && !all_places(index, s)) fail_at_first_bad(check, index, s);
  const Backend backend(input);
  const Tensor out =
      check.empty(input, {input.size(0), input.size(1), out_h, out_w}, input.scalar_type(), format_of(channels_last));
  if (out.numel() == 0) return out;
  const Tensor x = dense(input, format_of(channels_last)), i = dense(index, format_of(channels_last));
  const Tensor owners = owners_for(check, i, s);
  bool good = true;
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    dispatch_index(i, [&](auto k) {
      using Index = decltype(k);
      backend.run([&](const auto& exec) {
        good = fastvision::max_unpool2d<T, Index>(s, data<T>(x), data<Index>(i), mutable_data<int64_t>(owners),
                                                  mutable_data<T>(out), exec);
      });
    });
  });
  if (!good) fail_at_first_bad(check, index, s);
  return out;
}

Tensor max_unpool2d_backward(const Tensor& grad, const Tensor& index, const Sizes& window, bool channels_last) {
  const Check check{"max_unpool2d_backward"};
  check.all_floats("grad", grad);
  check.shape(grad.dim() == 4, "grad", grad, "(N, C, H, W)");
  check.shape(index.dim() == 4 && index.size(0) == grad.size(0) && index.size(1) == grad.size(1), "indices", index,
              "(N, C, h, w) with N and C of grad");
  check_index(check, "indices", index, "itself", index);
  check.same_device("indices", index, "grad", grad);
  Problem p = problem_of(check, index, window, grad.size(2), grad.size(3));
  MaxUnpoolShape& s = p.shape;
  s.planes = grad.size(0) * (channels_last ? 1 : grad.size(1));
  s.channels = channels_last ? grad.size(1) : 1;
  const Backend backend(grad);
  const Tensor out = check.empty(grad, index.sizes().vec(), grad.scalar_type(), format_of(channels_last));
  if (out.numel() == 0) return out;
  const Tensor g = dense(grad, format_of(channels_last)), i = dense(index, format_of(channels_last));
  const Tensor owners = owners_for(check, i, s);
  bool good = true;
  dispatch_all_floats(g, [&](auto t) {
    using T = decltype(t);
    dispatch_index(i, [&](auto k) {
      using Index = decltype(k);
      backend.run([&](const auto& exec) {
        good = fastvision::max_unpool2d_backward<T, Index>(s, data<T>(g), data<Index>(i), mutable_data<int64_t>(owners),
                                                           mutable_data<T>(out), exec);
      });
    });
  });
  if (!good) fail_at_first_bad(check, index, s);
  return out;
}

}  // namespace

FV_OPS(m) {
  m.impl("max_unpool2d", TORCH_BOX(&max_unpool2d));
  m.impl("max_unpool2d_backward", TORCH_BOX(&max_unpool2d_backward));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
