// The gradient of the weights of a convolution: for each tap a product of matrices, of the pixels of the small map for
// which the tap meets the large one with those that it meets, some at a time, copied to lie together.
#pragma once

#include <vector>

#include "convolution.h"
#include "panels.h"

namespace fastvision {
namespace {

// Channels of both maps of a task: of the small one fewer where the taps alone are too few tasks.
struct ProductBlock {
  int64_t rows, columns;
  explicit ProductBlock(const ConvolutionShape& s)
      : rows(min_of(s.small_channels, int64_t(s.groups * s.taps() < 8 ? 48 : 192))),
        columns(min_of(s.large_channels, int64_t(512))) {}
};

// What a tap multiplies, and the products.
template <class T>
class TapProduct {
 public:
  using A = Accum<T>;

  TapProduct(const ConvolutionShape& s, const T* small, const T* large)
      : shape_(s),
        of_small_(small_layout(s)),
        of_large_(large_layout(s)),
        small_(small),
        large_(large),
        block_(s),
        pixels_(size_t(block_.rows * kPanelDepth)),
        planes_(s.channels_last ? 0 : size_t(block_.columns * kPanelDepth)),
        panels_(size_t(padded<A>(block_.columns) * kPanelDepth)) {}

  // Of some channels, counted from the first of all groups. Returns (row, padded column).
  const A* operator()(int64_t tap, int64_t small_channel, int64_t rows, int64_t large_channel, int64_t columns) {
    const ConvolutionShape& s = shape_;
    const MetPixels y(tap / s.kernel_x, s.stride_y, s.padding_y, s.dilation_y, s.small_h, s.large_h);
    const MetPixels x(tap % s.kernel_x, s.stride_x, s.padding_x, s.dilation_x, s.small_w, s.large_w);
    const int64_t pixels = y.count() * x.count();
    const Factor<A> factor{pixels_.data(), s.channels_last ? 1 : kPanelDepth, s.channels_last ? block_.rows : 1};
    sums_.assign(size_t(rows * padded<A>(columns)), A(0));
    span_.assign(sums_.size(), A(0));
    for (int64_t n = 0; n < s.batch; ++n)
      for (int64_t p = 0; p < pixels; p += kPanelDepth) {
        const int64_t depth = min_of(pixels - p, kPanelDepth);
        copy(y, x, n, p, depth, small_channel, rows, large_channel, columns);
        add_panels(rows, columns, depth, factor, panels_.data(), span_.data());
        if (p + depth == pixels || (p + depth) % kSpan == 0) add_span(span_, sums_.data());
      }
    return sums_.data();
  }

 private:
  // Pixels [first, first + depth) of those that are met, of both maps.
  void copy(const MetPixels& met_y, const MetPixels& met_x, int64_t image, int64_t first, int64_t depth,
            int64_t small_channel, int64_t rows, int64_t large_channel, int64_t columns) {
    const T* const small = small_ + image * of_small_.image + small_channel * of_small_.channel;
    const T* const large = large_ + image * of_large_.image + large_channel * of_large_.channel;
    for (int64_t k = 0, next; k < depth; k = next) {  // runs of a row
      const int64_t y = met_y.begin + (first + k) / met_x.count(), x = met_x.begin + (first + k) % met_x.count();
      next = min_of(k + met_x.end - x, depth);
      const T* const from_small = small + y * of_small_.row + x * of_small_.column;
      const T* const from_large = large + (y * shape_.stride_y + met_y.offset) * of_large_.row +
                                  (x * shape_.stride_x + met_x.offset) * of_large_.column;
      if (shape_.channels_last) {
        for (int64_t i = 0; i < next - k; ++i) {
          copy_numbers(from_small + i * of_small_.column, rows, pixels_.data() + (k + i) * block_.rows);
          store_row(from_large + i * shape_.stride_x * of_large_.column, 0, columns, k + i, depth, panels_.data());
        }
        continue;
      }
      for (int64_t c = 0; c < rows; ++c)
        copy_numbers(from_small + c * of_small_.channel, next - k, pixels_.data() + c * kPanelDepth + k);
      for (int64_t d = 0; d < columns; ++d)
        for_each_vector<A>(next - k, [&](int64_t i, int, auto n) {
          store_vector(planes_.data() + d * kPanelDepth + k + i,
                       load_strided(from_large + d * of_large_.channel + i * shape_.stride_x, shape_.stride_x, n), n);
        });
    }
    for (int64_t d = 0; d < columns && !shape_.channels_last; d += kPanel<A>)
      transpose(planes_.data() + d * kPanelDepth, kPanelDepth, min_of(kPanel<A>, columns - d), depth,
                panels_.data() + d * depth, kPanel<A>);
  }

  const ConvolutionShape& shape_;
  const MapLayout of_small_, of_large_;
  const T *small_, *large_;
  const ProductBlock block_;
  std::vector<A> pixels_, planes_, panels_, sums_, span_;
};

template <class T, class Isa>
void product_by_tap(const ConvolutionShape& s, const T* small, const T* large, T* weight, const Cpu<Isa>& exec) {
  const ProductBlock block(s);
  const int64_t down = ceil_div(s.small_channels, block.rows), across = ceil_div(s.large_channels, block.columns);
  const int64_t work = s.batch * s.small_h * s.small_w * block.rows * block.columns;
  exec(s.groups * s.taps() * down * across, 1 + 65536 / (work + 1), [&](int64_t begin, int64_t end) {
    TapProduct<T> product(s, small, large);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t d = task % across * block.columns, c = task / across % down * block.rows;
      const int64_t tap = task / across / down % s.taps(), group = task / across / down / s.taps();
      const int64_t rows = min_of(block.rows, s.small_channels - c),
                    columns = min_of(block.columns, s.large_channels - d);
      const Accum<T>* const sums =
          product(tap, group * s.small_channels + c, rows, group * s.large_channels + d, columns);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j)
          weight[s.weight(group, c + i, d + j) + tap] = from_accum<T>(sums[i * padded<Accum<T>>(columns) + j]);
    }
  });
}

}  // namespace
}  // namespace fastvision
