// Windows that lie side by side, in channels_last: a row of a window is contiguous, and all three maps are products of
// matrices with a row per window.
#pragma once

#include <algorithm>
#include <vector>

#include "convolution.h"
#include "panels.h"
#include "pixel_shuffle_product.h"

namespace fastvision {
namespace {

constexpr int64_t kMostWindows = 96;         // that are multiplied at a time
constexpr int64_t kWindowNumbers = 1 << 17;  // of them, unless that makes too few

inline bool is_pixel_shuffle_last(const ConvolutionShape& s) {
  return s.channels_last && s.groups == 1 && has_windows_side_by_side(s) && has_small_windows(s) && has_small_sums(s);
}

// For windows [begin, end) of all images calls f(window - begin, row of the window, its place in the large map).
template <class F>
void for_each_window_row(const ConvolutionShape& s, int64_t begin, int64_t end, F&& f) {
  for (int64_t p = begin; p < end; ++p) {
    const int64_t x = p % s.small_w, y = p / s.small_w % s.small_h, image = p / s.small_w / s.small_h;
    for (int64_t ky = 0; ky < s.kernel_y; ++ky)
      f(p - begin, ky, ((image * s.large_h + y * s.kernel_y + ky) * s.large_w + x * s.kernel_x) * s.large_channels);
  }
}

// Calls f(begin, end, scratch) for all windows, some at a time.
template <class A, class Isa, class F>
void for_windows(const ConvolutionShape& s, const Cpu<Isa>& exec, F&& f) {
  const int64_t numbers = max_of(s.large_channels * s.taps(), s.small_channels);
  const int64_t step = min_of(max_of(kWindowNumbers / numbers, int64_t(kProductRows)), kMostWindows);
  const int64_t windows = s.batch * s.small_h * s.small_w;
  exec(ceil_div(windows, step), 1 + 65536 / (step * s.weights()), [&](int64_t begin, int64_t end) {
    std::vector<A> scratch;
    for (int64_t k = begin; k < end; ++k) f(k * step, min_of((k + 1) * step, windows), scratch);
    finish_streaming();
  });
}

template <class T, class Isa>
void gather_windows_last(const ConvolutionShape& s, const T* large, const Accum<T>* weight, const Accum<T>* bias,
                         T* small, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t channels = s.small_channels, run = s.kernel_x * s.large_channels, depth = s.kernel_y * run;
  const int64_t stride = padded<A>(channels);
  std::vector<A> panels(size_t(depth * stride));
  exec(ceil_div(depth, kLanes<A>), 1 + 65536 / (kLanes<A> * channels), [&](int64_t begin, int64_t end) {
    std::vector<A> turned(size_t(kLanes<A> * channels));
    for (int64_t first = begin * kLanes<A>; first < min_of(end * kLanes<A>, depth); first += kLanes<A>) {
      const int64_t count = min_of(kLanes<A>, depth - first);
      transpose(weight + first, depth, channels, count, turned.data(), channels);
      for (int64_t i = 0; i < count; ++i) {  // (channel of the large map, tap) of the weights, the other way of windows
        const int64_t k = (first + i) % s.taps() * s.large_channels + (first + i) / s.taps();
        store_row(turned.data() + i * channels, 0, channels, k, depth, panels.data());
      }
    }
  });
  for_windows<A>(s, exec, [&](int64_t begin, int64_t end, std::vector<A>& scratch) {
    const int64_t rows = end - begin;
    scratch.resize(size_t(rows * (depth + stride)));
    A *const windows = scratch.data(), *const sums = windows + rows * depth;
    for_each_window_row(s, begin, end, [&](int64_t r, int64_t ky, int64_t place) {
      copy_numbers(large + place, run, windows + r * depth + ky * run);
    });
    for (int64_t r = 0; r < rows; ++r) {
      if (bias) std::copy_n(bias, channels, sums + r * stride);
      else std::fill_n(sums + r * stride, channels, A(0));
    }
    add_panels(rows, channels, depth, Factor<A>{windows, depth, 1}, panels.data(), sums);
    for (int64_t r = 0; r < rows; ++r) copy_numbers(sums + r * stride, channels, small + (begin + r) * channels);
  });
}

template <class T>
void store_run(const Accum<T>* from, int64_t count, bool past_caches, T* to) {
  using A = Accum<T>;
  if (past_caches && starts_line(to) && count % kLanes<A> == 0)
    for (int64_t i = 0; i < count; i += kLanes<A>) stream_line(to + i, load_vector(from + i));
  else copy_numbers(from, count, to);
}

template <class T, class Isa>
void scatter_windows_last(const ConvolutionShape& s, const T* small, const Accum<T>* weight, const Accum<T>* bias,
                          T* large, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t channels = s.small_channels, run = s.kernel_x * s.large_channels, columns = s.kernel_y * run;
  const int64_t stride = padded<A>(columns), numbers = s.batch * s.large_h * s.large_w * s.large_channels;
  if (has_rest(s))
    exec(s.batch * s.large_h * s.large_w, 1 + 65536 / s.large_channels, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k)
        for (int64_t d = 0; d < s.large_channels; ++d)
          large[k * s.large_channels + d] = from_accum<T>(bias ? bias[d] : A(0));
    });
  std::vector<A> panels(size_t(channels * stride));
  exec(channels, 1 + 65536 / columns, [&](int64_t begin, int64_t end) {
    std::vector<A> row(static_cast<size_t>(columns));
    for (int64_t c = begin; c < end; ++c) {
      transpose(weight + c * columns, s.taps(), s.large_channels, s.taps(), row.data(), s.large_channels);
      store_row(row.data(), 0, columns, c, channels, panels.data());
    }
  });
  const bool past_caches = numbers * int64_t(sizeof(T)) >= kStreamedBytes;
  for_windows<A>(s, exec, [&](int64_t begin, int64_t end, std::vector<A>& scratch) {
    const int64_t rows = end - begin;
    scratch.resize(size_t(rows * (channels + stride)));
    A *const pixels = scratch.data(), *const sums = pixels + rows * channels;
    copy_numbers(small + begin * channels, rows * channels, pixels);
    for (int64_t r = 0; r < rows * s.taps(); ++r) {
      A* const to = sums + r / s.taps() * stride + r % s.taps() * s.large_channels;
      if (bias) std::copy_n(bias, s.large_channels, to);
      else std::fill_n(to, s.large_channels, A(0));
    }
    add_panels(rows, columns, channels, Factor<A>{pixels, channels, 1}, panels.data(), sums);
    for_each_window_row(s, begin, end, [&](int64_t r, int64_t ky, int64_t place) {
      store_run(sums + r * stride + ky * run, run, past_caches, large + place);
    });
  });
}

// The gradient of the weights: parts of the windows have sums of their own, added up in order.
template <class T, class Isa>
void product_of_windows_last(const ConvolutionShape& s, const T* small, const T* large, T* weight,
                             const Cpu<Isa>& exec) {
  using A = Accum<T>;
  constexpr int64_t kRows = 96;  // channels of the small map of a task
  const int64_t channels = s.small_channels, run = s.kernel_x * s.large_channels, columns = s.kernel_y * run;
  const int64_t stride = padded<A>(columns), size = channels * stride, windows = s.batch * s.small_h * s.small_w;
  const int64_t step = min_of(max_of(kWindowNumbers / columns, int64_t(16)), kPanelDepth);
  const int64_t all = ceil_div(windows, step), parts = parts_of_windows(s, all), blocks = ceil_div(channels, kRows);
  std::vector<A> sums(size_t(parts * size));
  exec(parts * blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<A> panels(size_t(step * stride)), pixels(size_t(step * kRows)), span;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t part = task / blocks, first = task % blocks * kRows, rows = min_of(kRows, channels - first);
      const int64_t last = (part + 1) * all / parts - 1;
      span.assign(size_t(rows * stride), A(0));
      for (int64_t i = part * all / parts; i <= last; ++i) {
        const int64_t from = i * step, depth = min_of(step, windows - from);
        for_each_window_row(s, from, from + depth, [&](int64_t r, int64_t ky, int64_t place) {
          store_row(large + place, ky * run, run, r, depth, panels.data());
        });
        for (int64_t r = 0; r < depth; ++r)
          copy_numbers(small + (from + r) * channels + first, rows, pixels.data() + r * kRows);
        add_panels(rows, columns, depth, Factor<A>{pixels.data(), 1, kRows}, panels.data(), span.data());
        if (i == last || i % (kSpan / step) == 0) add_span(span, &sums[size_t(part * size + first * stride)]);
      }
    }
  });
  exec(channels, 1 + 65536 / (parts * columns), [&](int64_t begin, int64_t end) {
    std::vector<A> row(static_cast<size_t>(columns));
    for (int64_t c = begin; c < end; ++c) {
      add_parts(&sums[size_t(c * stride)], parts, size, columns, row.data());
      transpose(row.data(), s.large_channels, s.taps(), s.large_channels, weight + c * columns, s.taps());
    }
  });
}

}  // namespace
}  // namespace fastvision
