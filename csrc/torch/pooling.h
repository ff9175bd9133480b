// What the bindings of pooling and unpooling share.
#pragma once

#include "../kernels/max_pool2d.h"
#include "binding.h"
#include "regions.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {

// window: kernel, stride, padding and dilation, two numbers each.
inline PoolGeometry geometry_of(const Check& check, const Sizes& window) {
  check.that(window.size() == 8, "window: expected 8 integers, got ", window.size());
  const PoolGeometry g{window[0], window[1], window[2], window[3], window[4], window[5], window[6], window[7]};
  check.steps("kernel_size", g.kernel_y, g.kernel_x, 1);
  check.steps("stride", g.stride_y, g.stride_x, 1);
  check.steps("padding", g.padding_y, g.padding_x, 0);
  check.steps("dilation", g.dilation_y, g.dilation_x, 1);
  check.that(g.padding_y <= ((g.kernel_y - 1) * g.dilation_y + 1) / 2 &&
                 g.padding_x <= ((g.kernel_x - 1) * g.dilation_x + 1) / 2,
             "padding: expected at most half of the effective kernel size, got (", g.padding_y, ", ", g.padding_x, ")");
  return g;
}

inline void check_index(const Check& check, const char* argument, const Tensor& index, const char* other,
                        const Tensor& like) {
  check.dtype(index.scalar_type() == ScalarType::Long || index.scalar_type() == ScalarType::Byte, argument, index,
              "int64, or uint8 from compact_indices=True");
  check.same_device(argument, index, other, like);
  if (index.sizes().vec() != like.sizes().vec())
    fail(check.op, ": ", argument, ": expected shape ", shape_of(like), " as ", other, ", got ", shape_of(index));
}

template <class F>
void dispatch_index(const Tensor& index, F&& f) {
  if (index.scalar_type() == ScalarType::Byte) return f(uint8_t{});
  f(int64_t{});
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
