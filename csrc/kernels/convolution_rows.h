// Convolutions of any shape, by rows. Rows of the source map are copied to a buffer with zeros where they end, so that
// every load is a whole vector; then the sums of two vectors of neighbouring pixels for up to four channels of the
// result stay in registers over all taps. Transposed convolution does this for each residue of the columns by the
// stride, where it is an ordinary convolution, and interleaves the residues in a row buffer. A weight that is not
// finite would turn the zeros around a map into NaN; then lanes outside the map are masked.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "convolution.h"
#include "factors.h"
#include "simd_integers.h"

namespace fastvision {
namespace {

constexpr int kChannels = 4;

inline int64_t round_up(int64_t n, int64_t step) { return ceil_div(n, step) * step; }

// Those of the rows [first, first + rows) of a plane that exist, after `left` zeros and before as many as make `width`.
template <class T>
void copy_rows(const T* plane, const MapLayout& m, int64_t first, int64_t rows, int64_t left, int64_t width,
               Accum<T>* to) {
  for (int64_t r = 0; r < rows; ++r, to += width) {
    if (first + r < 0 || first + r >= m.height) continue;
    const T* from = plane + (first + r) * m.row;
    // Padding may be so wide, or kernels so small, that not all of a row is needed, or none.
    const int64_t begin = max_of(-left, int64_t(0)), end = max_of(min_of(m.width, width - left), begin);
    std::fill(to, to + min_of(left + begin, width), Accum<T>(0));
    std::fill(to + min_of(left + end, width), to + width, Accum<T>(0));
    for (int64_t x = begin; x < end; x += kLanes<Accum<T>>) {
      const int64_t n = min_of(kLanes<Accum<T>>, end - x);
      const Vec<Accum<T>> v = load_strided(from + x * m.column, m.column, n);
      if (n == kLanes<Accum<T>>) store_vector(to + left + x, v);
      else store_vector(to + left + x, v, n);
    }
  }
}

// sum[c][v] += w[c] * the vectors at p; with a mask only for lanes i (of all vectors) with low <= i * stride < high.
template <bool kMasked, class A, size_t kCount, size_t kVectors>
FV_HD void add_tap(Vec<A> (&sum)[kCount][kVectors], const A* p, int64_t stride, const A* w, int64_t w_stride,
                   int64_t low, int64_t high) {
  for (size_t v = 0; v < kVectors; ++v) {
    const Vec<A> x = load_strided(p + int64_t(v) * kLanes<A> * stride, stride, kLanes<A>);
    for (size_t c = 0; c < kCount; ++c) {
      const Vec<A> next = multiply_add(x, Vec<A>(w[int64_t(c) * w_stride]), sum[c][v]);
      if constexpr (kMasked) {
        for (int64_t i = 0; i < kLanes<A>; ++i) {
          const int64_t place = (int64_t(v) * kLanes<A> + i) * stride;
          if (place >= low && place < high) sum[c][v].raw[i] = next[int(i)];
        }
      } else {
        sum[c][v] = next;
      }
    }
  }
}

// Calls f(i, vectors) along n elements with 2 vectors at a time as long as more than one is needed, a constant.
template <class F>
void for_vectors(int64_t n, int64_t lanes, F&& f) {
  int64_t i = 0;
  for (; i + lanes < n; i += 2 * lanes) f(i, std::integral_constant<int, 2>{});
  if (i < n) f(i, std::integral_constant<int, 1>{});
}

// Rows of the result that are computed from one copy of source rows: enough that copying is cheaper than computing.
inline int64_t rows_at_once(const ConvolutionShape& s) {
  const int64_t few = s.small_channels * s.large_channels == 1 ? 64 : 8;
  return max_of(max_of(few, s.stride_y), (s.kernel_y - 1) * s.dilation_y);
}

// For rows [y0, y1) of channels kChannels at a time, the last ones one by one: calls f(first channel, row, whether to
// mask, how many channels), the last two as constants.
template <class F>
void for_rows_of_channels(int64_t channels, int64_t y0, int64_t y1, bool masked, F&& f) {
  const auto rows = [&](int64_t first, auto count) {
    for (int64_t y = y0; y < y1; ++y) {
      if (masked) f(first, y, std::true_type{}, count);
      else f(first, y, std::false_type{}, count);
    }
  };
  int64_t first = 0;
  for (; first + kChannels <= channels; first += kChannels) rows(first, std::integral_constant<int, kChannels>{});
  for (; first < channels; ++first) rows(first, std::integral_constant<int, 1>{});
}

// Rows [y0, y1) of a group's small map.
template <class T>
void gather_rows(const ConvolutionShape& s, int64_t n, int64_t group, int64_t y0, int64_t y1, const T* large,
                 const Factors<T>& weight, const Accum<T>* bias, T* small, std::vector<Accum<T>>& scratch) {
  using A = Accum<T>;
  const MapLayout from = large_layout(s), to = small_layout(s);
  const int64_t first = y0 * s.stride_y - s.padding_y;
  const int64_t rows = (y1 - 1 - y0) * s.stride_y + (s.kernel_y - 1) * s.dilation_y + 1;
  const int64_t width = (round_up(s.small_w, 2 * kLanes<A>) - 1) * s.stride_x + (s.kernel_x - 1) * s.dilation_x + 1;
  scratch.resize(size_t(s.large_channels * rows * width));
  for (int64_t b = 0; b < s.large_channels; ++b)
    copy_rows(large + n * from.image + (group * s.large_channels + b) * from.channel, from, first, rows, s.padding_x,
              width, scratch.data() + b * rows * width);

  const auto channels = [&](int64_t a, int64_t y, auto masked, auto count) {
    const int64_t channel = group * s.small_channels + a, w_stride = s.large_channels * s.taps();
    const A* w = weight.at + s.weight(group, a, 0);
    for_vectors(s.small_w, kLanes<A>, [&](int64_t x, auto vectors) {
      Vec<A> sum[count()][vectors()];
      for (int c = 0; c < count; ++c)
        for (int v = 0; v < vectors; ++v) sum[c][v] = Vec<A>(bias ? bias[channel + c] : A(0));
      for (int64_t b = 0; b < s.large_channels; ++b)
        for (int64_t ky = 0; ky < s.kernel_y; ++ky) {
          const int64_t row = (y - y0) * s.stride_y + ky * s.dilation_y;
          if (first + row < 0 || first + row >= s.large_h) continue;
          const A* p = scratch.data() + (b * rows + row) * width + x * s.stride_x;
          for (int64_t kx = 0; kx < s.kernel_x; ++kx) {
            const int64_t inside = s.padding_x - x * s.stride_x - kx * s.dilation_x;  // where the map begins
            add_tap<masked()>(sum, p + kx * s.dilation_x, s.stride_x, w + b * s.taps() + ky * s.kernel_x + kx, w_stride,
                              inside, inside + s.large_w);
          }
        }
      for (int c = 0; c < count; ++c)
        for (int v = 0; v < vectors; ++v) {
          const int64_t begin = x + v * kLanes<A>, lanes = min_of(kLanes<A>, s.small_w - begin);
          T* out = small + n * to.image + (channel + c) * to.channel + y * to.row + begin * to.column;
          if (lanes > 0) store_strided(out, to.column, sum[c][v], lanes);
        }
    });
  };
  for_rows_of_channels(s.small_channels, y0, y1, !weight.finite, channels);
}

// Rows [y0, y1) of a group's large map.
template <class T>
void scatter_rows(const ConvolutionShape& s, int64_t n, int64_t group, int64_t y0, int64_t y1, const T* small,
                  const Factors<T>& weight, const Accum<T>* bias, T* large, std::vector<Accum<T>>& scratch) {
  using A = Accum<T>;
  const MapLayout from = small_layout(s), to = large_layout(s);
  const int64_t reach = (s.kernel_y - 1) * s.dilation_y, left = (s.kernel_x - 1) * s.dilation_x / s.stride_x;
  const int64_t first = max_of(floor_div(y0 + s.padding_y - reach, s.stride_y), int64_t(0));
  const int64_t rows = max_of(min_of((y1 - 1 + s.padding_y) / s.stride_y + 1, s.small_h) - first, int64_t(0));
  // Column x of the result is number j of the columns with its residue: x + padding = j * stride + residue.
  const int64_t begin = s.padding_x / s.stride_x;
  const int64_t columns = round_up((s.large_w - 1 + s.padding_x) / s.stride_x + 1 - begin, kLanes<A>);
  const int64_t width = left + columns, row_width = columns * s.stride_x;
  scratch.resize(size_t(s.small_channels * rows * width + kChannels * row_width));
  for (int64_t a = 0; a < s.small_channels; ++a)
    copy_rows(small + n * from.image + (group * s.small_channels + a) * from.channel, from, first, rows, left - begin,
              width, scratch.data() + a * rows * width);
  A* const row_buffer = scratch.data() + s.small_channels * rows * width;  // by channel, residue and number

  struct ColumnTaps {
    int64_t first, shift;  // shift: how far left of the result the pixel is that the first tap reads
  };
  std::vector<ColumnTaps> of_residue(static_cast<size_t>(s.stride_x));
  int64_t step = 1;
  for (int64_t r = 0; r < s.stride_x; ++r) {
    const Taps taps = taps_at(r, s.stride_x, s.dilation_x, s.kernel_x);
    of_residue[r] = {taps.first, floor_div(taps.first * s.dilation_x - r, s.stride_x)};
    step = taps.step;
  }
  const int64_t shift_step = step * s.dilation_x / s.stride_x;
  std::vector<int32_t> in_buffer(static_cast<size_t>(round_up(s.large_w, kLanes<A>)));
  for (int64_t x = 0; x < s.large_w; ++x) {
    const int64_t position = x + s.padding_x - begin * s.stride_x;
    in_buffer[x] = int32_t(position % s.stride_x * columns + position / s.stride_x);
  }

  const auto row_of_channels = [&](int64_t b, int64_t y, auto masked, auto count) {
    const int64_t channel = group * s.large_channels + b, py = y + s.padding_y;
    const Taps ty = taps_at(py, s.stride_y, s.dilation_y, s.kernel_y);
    const int64_t row_step = ty.step * s.dilation_y / s.stride_y;
    const int64_t first_row = ty.first < s.kernel_y ? floor_div(py - ty.first * s.dilation_y, s.stride_y) : -1;
    for (int64_t residue = 0; residue < s.stride_x; ++residue) {
      const ColumnTaps tx = of_residue[residue];
      const auto at_columns = [&](int64_t j, auto vectors) {
        Vec<A> sum[count()][vectors()];
        for (int c = 0; c < count; ++c)
          for (int v = 0; v < vectors; ++v) sum[c][v] = Vec<A>(bias ? bias[channel + c] : A(0));
        for (int64_t a = 0; a < s.small_channels; ++a) {
          const A* w = weight.at + s.weight(group, a, b);
          int64_t row = first_row;
          for (int64_t ky = ty.first; ky < s.kernel_y && row >= 0; ky += ty.step, row -= row_step) {
            if (row >= s.small_h) continue;
            const A* p = scratch.data() + (a * rows + row - first) * width + j + left;
            int64_t shift = tx.shift;
            for (int64_t kx = tx.first; kx < s.kernel_x; kx += step, shift += shift_step) {
              const int64_t inside = shift - begin - j;
              add_tap<masked()>(sum, p - shift, 1, w + ky * s.kernel_x + kx, s.taps(), inside, inside + s.small_w);
            }
          }
        }
        for (int c = 0; c < count; ++c)
          for (int v = 0; v < vectors; ++v)
            store_vector(row_buffer + c * row_width + residue * columns + j + v * kLanes<A>, sum[c][v]);
      };
      for_vectors(columns, kLanes<A>, at_columns);
    }
    for (int c = 0; c < count; ++c) {
      T* out = large + n * to.image + (channel + c) * to.channel + y * to.row;
      for (int64_t x = 0; x < s.large_w; x += kLanes<A>)
        store_strided(out + x * to.column, to.column, gather(row_buffer + c * row_width, in_buffer.data() + x),
                      min_of(kLanes<A>, s.large_w - x));
    }
  };
  for_rows_of_channels(s.large_channels, y0, y1, !weight.finite, row_of_channels);
}

// The gradient of the weights of a plane with one channel per group: dot products of rows, lane by lane, added up at
// the end.
template <class T>
void product_of_rows(const ConvolutionShape& s, int64_t channel, const T* small, const T* large, T* weight,
                     std::vector<Accum<T>>& sums) {
  using A = Accum<T>;
  const MapLayout of_small = small_layout(s), of_large = large_layout(s);
  sums.assign(size_t(s.taps() * kLanes<A>), A(0));
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t y = 0; y < s.small_h; ++y) {
      const T* const from_small = small + n * of_small.image + channel * of_small.channel + y * of_small.row;
      for (int64_t tap = 0; tap < s.taps(); ++tap) {
        const int64_t row = y * s.stride_y - s.padding_y + tap / s.kernel_x * s.dilation_y;
        if (row < 0 || row >= s.large_h) continue;
        const T* const from_large = large + n * of_large.image + channel * of_large.channel + row * of_large.row;
        const MetPixels met(tap % s.kernel_x, s.stride_x, s.padding_x, s.dilation_x, s.small_w, s.large_w);
        Vec<A> sum = load_vector(sums.data() + tap * kLanes<A>);
        for (int64_t x = met.begin; x < met.end; x += kLanes<A>) {
          const int64_t lanes = min_of(kLanes<A>, met.end - x);
          sum = multiply_add(load_strided(from_small + x * of_small.column, of_small.column, lanes),
                             load_strided(from_large + (x * s.stride_x + met.offset) * of_large.column,
                                          s.stride_x * of_large.column, lanes),
                             sum);
        }
        store_vector(sums.data() + tap * kLanes<A>, sum);
      }
    }
  for (int64_t tap = 0; tap < s.taps(); ++tap)
    weight[channel * s.taps() + tap] = from_accum<T>(sum_of(load_vector(sums.data() + tap * kLanes<A>)));
}

}  // namespace
}  // namespace fastvision
