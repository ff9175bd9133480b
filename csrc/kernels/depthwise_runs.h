// CPU: transposed convolution with one channel per group in channels_last, as in bilinear upsampling. The stride is at
// least half the kernel: the pixels of the large map from one pixel of the small one to the next have the same sources
// (or two kinds of sources, where the last taps lack), and lie in memory as one run of (pixels, channels), as do the
// weights of their taps.
#pragma once

#include <vector>

#include "convolution.h"
#include "simd.h"
#include "unrolled.h"

namespace fastvision {
namespace {

inline bool has_runs(const ConvolutionShape& s) {
  return s.channels_last && s.small_channels * s.large_channels == 1 && max_of(s.dilation_y, s.dilation_x) == 1 &&
         min_of(s.stride_y, s.stride_x) > 1 && s.kernel_y <= 2 * s.stride_y && s.kernel_x <= 2 * s.stride_x;
}

// Vectors may begin at each channel of a pixel, and go on with the first one after the last: pixels are kept with
// copies of their first channels behind the last ones.
template <class A>
int64_t repeated(int64_t channels) {
  return channels % kLanes<A> == 0 ? channels : channels + kLanes<A> - 1;
}
template <class T>
void repeat(const T* pixel, int64_t channels, Accum<T>* to) {
  const int64_t size = repeated<Accum<T>>(channels);
  for (int64_t i = 0; i < size; i += channels) copy_numbers(pixel, min_of(channels, size - i), to + i);
}

// Pixels [left, right) of each of the columns [begin, end) of strides: they have the same taps of the same neighbours.
struct Columns {
  int64_t begin, end, left, right;
};
inline std::vector<Columns> columns_of(const ConvolutionShape& s) {
  std::vector<Columns> all;
  const int64_t first = s.padding_x / s.stride_x, last = (s.large_w - 1 + s.padding_x) / s.stride_x;
  const int64_t cut = s.kernel_x > s.stride_x ? s.kernel_x - s.stride_x : s.kernel_x;  // where taps begin to lack
  for (int64_t j = first; j <= last;) {
    const bool at_border = j == first || j >= min_of(s.small_w, last);
    const int64_t end = at_border ? j + 1 : min_of(s.small_w, last);
    const int64_t left = max_of(s.padding_x - j * s.stride_x, int64_t(0));
    const int64_t right = min_of(s.large_w + s.padding_x - j * s.stride_x, s.stride_x);
    if (left < cut) all.push_back({j, end, left, min_of(cut, right)});
    if (right > cut) all.push_back({j, end, max_of(cut, left), right});
    j = end;
  }
  return all;
}

template <class A>
struct RunSource {
  const A *pixels, *weight;  // repeated channels, of one column after the other, and (pixels, channels)
};

// Runs of `count` numbers, the first of channel 0, for columns [begin, end): the bias and the products of all sources.
template <int kSources, class T>
void write_runs(const RunSource<Accum<T>>* from, const Accum<T>* bias, int64_t channels, int64_t begin, int64_t end,
                int64_t count, int64_t stride, T* to) {
  using V = Vec<Accum<T>>;
  const int64_t size = repeated<Accum<T>>(channels);
  int64_t channel = 0;
  for_each_vector<Accum<T>>(count, [&](int64_t i, int, auto n) {
    const V first = load_vector(bias + channel);
    V weight[kSources + 1];
    unrolled<kSources>([&](auto k) FV_INLINE { weight[k] = load_vector(from[k].weight + i, n); });
    for (int64_t j = begin; j < end; ++j) {
      V sum = first;
      unrolled<kSources>([&](auto k) FV_INLINE {
        sum = multiply_add(load_vector(from[k].pixels + j * size + channel), weight[k], sum);
      });
      store_vector(to + j * stride + i, sum, n);
    }
    channel += V::kLanes;
    while (channel >= channels) channel -= channels;
  });
}

constexpr int64_t kNear = 2048;  // numbers of the result that the nearest cache holds beside their sources

// weight: (taps, channels); bias: a number per channel, or null.
template <class T, class Isa>
void scatter_runs(const ConvolutionShape& s, const T* small, const Accum<T>* weight, const Accum<T>* bias, T* large,
                  const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t channels = s.groups, size = repeated<A>(channels), row = s.small_w * size;
  std::vector<A> of_bias(size_t(size), A(0));
  if (bias) repeat(bias, channels, of_bias.data());
  const std::vector<Columns> all = columns_of(s);
  const int64_t stride = s.stride_x * channels;             // of columns
  const int64_t step = max_of(kNear / stride, int64_t(4));  // columns at a time
  const int64_t blocks = ceil_div(s.large_h + s.padding_y, s.stride_y);
  exec(s.batch * blocks, 1 + 16384 / (s.stride_y * s.large_w * channels + 1), [&](int64_t begin, int64_t end) {
    std::vector<A> pixels(size_t(2 * row));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / blocks, block = task % blocks, top = block * s.stride_y - s.padding_y;
      for (int64_t k = task > begin ? block : max_of(block - 1, int64_t(0)); k < min_of(block + 1, s.small_h); ++k)
        for (int64_t x = 0; x < s.small_w; ++x)
          repeat(small + ((n * s.small_h + k) * s.small_w + x) * channels, channels,
                 &pixels[size_t(k % 2 * row + x * size)]);
      for (int64_t y = max_of(top, int64_t(0)); y < min_of(top + s.stride_y, s.large_h); ++y)
        for (const Columns& c : all) {
          RunSource<A> from[4];
          int count = 0;
          for (int64_t k = block, ky = y - top; k >= 0 && ky < s.kernel_y; --k, ky += s.stride_y)
            for (int64_t j = c.begin, kx = c.left; j >= 0 && kx < s.kernel_x; --j, kx += s.stride_x)
              if (k < s.small_h && j < s.small_w)
                from[count++] = {&pixels[size_t(k % 2 * row + j * size)], weight + (ky * s.kernel_x + kx) * channels};
          const int64_t x = c.begin * s.stride_x - s.padding_x + c.left, columns = c.end - c.begin;
          T* const to = large + ((n * s.large_h + y) * s.large_w + x) * channels;
          const auto write = [&](auto sources) {
            for (int64_t j = 0; j < columns; j += step)
              write_runs<sources()>(from, of_bias.data(), channels, j, min_of(j + step, columns),
                                    (c.right - c.left) * channels, stride, to);
          };
          if (count == 0) write(std::integral_constant<int, 0>());
          else with_constant(count, write);
        }
    }
  });
}

}  // namespace
}  // namespace fastvision
