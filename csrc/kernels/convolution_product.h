// The gradient of the weights of a convolution: for each tap a product of matrices, of the pixels of the small map for
// which the tap meets the large one with those that it meets, some at a time, copied to lie together.
#pragma once

#include <algorithm>
#include <vector>

#include "convolution.h"
#include "convolution_rows.h"
#include "panels.h"
#include "product.h"

namespace fastvision {
namespace {

constexpr int64_t kProductPixels = kPanelDepth;  // that are multiplied at a time
constexpr int64_t kProductSpan = 4096;  // pixels whose products are added up by themselves: bounds rounding errors
constexpr int64_t kSmallBlock = 192, kLargeBlock = 512;  // channels of both maps of a task

// What a tap multiplies for some channels of a group: of the small map [first, first + rows), of the large one
// [first, first + columns), counted from the first of all groups.
template <class T>
class TapProduct {
 public:
  using A = Accum<T>;

  TapProduct(const ConvolutionShape& s, int64_t tap, const T* small, const T* large)
      : shape_(s),
        y_(tap / s.kernel_x, s.stride_y, s.padding_y, s.dilation_y, s.small_h, s.large_h),
        x_(tap % s.kernel_x, s.stride_x, s.padding_x, s.dilation_x, s.small_w, s.large_w),
        of_small_(small_layout(s)),
        of_large_(large_layout(s)),
        small_(small),
        large_(large) {}

  // sums: (row, padded column)
  void add(int64_t small_channel, int64_t rows, int64_t large_channel, int64_t columns, A* sums) {
    const int64_t size = rows * padded<A>(columns), pixels = y_.count() * x_.count();
    pixels_.resize(size_t(kSmallBlock * kProductPixels));
    planes_.resize(size_t(kLargeBlock * kProductPixels));
    panels_.resize(size_t(padded<A>(kLargeBlock) * kProductPixels));
    std::vector<A> span(static_cast<size_t>(size));
    for (int64_t n = 0; n < shape_.batch; ++n)
      for (int64_t first = 0; first < pixels; first += kProductSpan) {
        std::fill(span.begin(), span.end(), A(0));
        for (int64_t p = first; p < min_of(first + kProductSpan, pixels); p += kProductPixels) {
          const int64_t depth = min_of(min_of(first + kProductSpan, pixels) - p, kProductPixels);
          copy(n, p, depth, small_channel, rows, large_channel, columns);
          const bool last = shape_.channels_last;
          add_panels(rows, columns, depth, Factor<A>{pixels_.data(), last ? 1 : kProductPixels, last ? kSmallBlock : 1},
                     panels_.data(), span.data());
        }
        for (int64_t i = 0; i < size; ++i) sums[i] += span[i];
      }
  }

 private:
  // Pixels [first, first + depth) of those that are met, of both maps.
  void copy(int64_t image, int64_t first, int64_t depth, int64_t small_channel, int64_t rows, int64_t large_channel,
            int64_t columns) {
    const T* const small = small_ + image * of_small_.image + small_channel * of_small_.channel;
    const T* const large = large_ + image * of_large_.image + large_channel * of_large_.channel;
    for (int64_t k = 0, next; k < depth; k = next) {  // runs of a row
      const int64_t y = y_.begin + (first + k) / x_.count(), x = x_.begin + (first + k) % x_.count();
      next = min_of(k + x_.end - x, depth);
      const T* const from_small = small + y * of_small_.row + x * of_small_.column;
      const T* const from_large = large + (y * shape_.stride_y + y_.offset) * of_large_.row +
                                  (x * shape_.stride_x + x_.offset) * of_large_.column;
      if (shape_.channels_last) {
        for (int64_t i = 0; i < next - k; ++i) {
          copy_numbers(from_small + i * of_small_.column, rows, pixels_.data() + (k + i) * kSmallBlock);
          store_row(from_large + i * shape_.stride_x * of_large_.column, 0, columns, k + i, depth, panels_.data());
        }
        continue;
      }
      for (int64_t c = 0; c < rows; ++c)
        copy_numbers(from_small + c * of_small_.channel, next - k, pixels_.data() + c * kProductPixels + k);
      for (int64_t d = 0; d < columns; ++d)
        for_each_vector<A>(next - k, [&](int64_t i, int, auto n) {
          store_vector(planes_.data() + d * kProductPixels + k + i,
                       load_strided(from_large + d * of_large_.channel + i * shape_.stride_x, shape_.stride_x, n), n);
        });
    }
    for (int64_t d = 0; d < columns && !shape_.channels_last; d += kPanel<A>)
      transpose(planes_.data() + d * kProductPixels, kProductPixels, min_of(kPanel<A>, columns - d), depth,
                panels_.data() + d * depth, kPanel<A>);
  }

  const ConvolutionShape& shape_;
  const MetPixels y_, x_;
  const MapLayout of_small_, of_large_;
  const T *small_, *large_;
  std::vector<A> pixels_, planes_, panels_;
};

template <class T, class Isa>
void product_by_tap(const ConvolutionShape& s, const T* small, const T* large, T* weight, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t down = ceil_div(s.small_channels, kSmallBlock), across = ceil_div(s.large_channels, kLargeBlock);
  const int64_t work =
      s.batch * s.small_h * s.small_w * min_of(s.small_channels, kSmallBlock) * min_of(s.large_channels, kLargeBlock);
  exec(s.groups * s.taps() * down * across, 1 + 65536 / (work + 1), [&](int64_t begin, int64_t end) {
    std::vector<A> sums;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t d = task % across * kLargeBlock, c = task / across % down * kSmallBlock;
      const int64_t tap = task / across / down % s.taps(), group = task / across / down / s.taps();
      const int64_t rows = min_of(kSmallBlock, s.small_channels - c),
                    columns = min_of(kLargeBlock, s.large_channels - d);
      sums.assign(size_t(rows * padded<A>(columns)), A(0));
      TapProduct<T>(s, tap, small, large)
          .add(group * s.small_channels + c, rows, group * s.large_channels + d, columns, sums.data());
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j)
          weight[s.weight(group, c + i, d + j) + tap] = from_accum<T>(sums[size_t(i * padded<A>(columns) + j)]);
    }
  });
}

}  // namespace
}  // namespace fastvision
