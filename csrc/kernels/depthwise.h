// CPU: one channel per group in channels_last, vectors of channels. A pixel of the result is the sum of some pixels of
// the source, each times the weights of a tap, which lie as (taps, channels).
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "convolution.h"
#include "simd.h"
#include "unrolled.h"

namespace fastvision {
namespace {

// Which places along an axis of the source, by which taps, make each place of the result.
struct AxisTaps {
  struct Tap {
    int64_t source, tap;
  };
  std::vector<Tap> taps;
  std::vector<int64_t> begin{0};  // one more than there are places
  std::vector<int64_t> run_end;   // up to which place the taps are the same, and their sources `step` further each time
  int64_t step = 1;

  const Tap* first(int64_t place) const { return taps.data() + begin[size_t(place)]; }
  const Tap* last(int64_t place) const { return taps.data() + begin[size_t(place) + 1]; }
  int64_t places() const { return int64_t(begin.size()) - 1; }

  bool goes_on(int64_t place) const {  // in the run of the place before
    return std::equal(first(place - 1), last(place - 1), first(place), last(place),
                      [this](Tap a, Tap b) { return a.tap == b.tap && a.source + step == b.source; });
  }
  void find_runs() {
    run_end.resize(size_t(places()));
    for (int64_t i = places(); i-- > 0;)
      run_end[size_t(i)] = i + 1 < places() && goes_on(i + 1) ? run_end[size_t(i) + 1] : i + 1;
  }
  void place(int64_t source_stride, int64_t tap_stride) {  // in memory
    for (Tap& t : taps) t = {t.source * source_stride, t.tap * tap_stride};
    step *= source_stride;
  }
};
inline AxisTaps gathered_taps(int64_t small, int64_t large, int64_t kernel, int64_t stride, int64_t padding,
                              int64_t dilation) {
  AxisTaps axis;
  axis.step = stride;
  for (int64_t y = 0; y < small; ++y) {
    for (int64_t k = 0; k < kernel; ++k) {
      const int64_t source = y * stride - padding + k * dilation;
      if (source >= 0 && source < large) axis.taps.push_back({source, k});
    }
    axis.begin.push_back(int64_t(axis.taps.size()));
  }
  axis.find_runs();
  return axis;
}
inline AxisTaps scattered_taps(int64_t small, int64_t large, int64_t kernel, int64_t stride, int64_t padding,
                               int64_t dilation) {
  AxisTaps axis;
  for (int64_t y = 0; y < large; ++y) {
    const Taps taps = taps_at(y + padding, stride, dilation, kernel);
    for (int64_t k = taps.first; k < kernel && k * dilation <= y + padding; k += taps.step) {
      const int64_t source = (y + padding - k * dilation) / stride;
      if (source < small) axis.taps.push_back({source, k});
    }
    axis.begin.push_back(int64_t(axis.taps.size()));
  }
  axis.find_runs();
  return axis;
}

// Sources as offsets in the image, taps as offsets in weights (taps, channels).
struct DepthwiseAxes {
  AxisTaps rows, columns;

  DepthwiseAxes(const ConvolutionShape& s, const MapLayout& from, AxisTaps of_rows, AxisTaps of_columns)
      : rows(std::move(of_rows)), columns(std::move(of_columns)) {
    rows.place(from.row, s.kernel_x * s.groups);
    columns.place(from.column, s.groups);
  }
};
inline DepthwiseAxes gathered_axes(const ConvolutionShape& s) {
  return {s, large_layout(s), gathered_taps(s.small_h, s.large_h, s.kernel_y, s.stride_y, s.padding_y, s.dilation_y),
          gathered_taps(s.small_w, s.large_w, s.kernel_x, s.stride_x, s.padding_x, s.dilation_x)};
}
inline DepthwiseAxes scattered_axes(const ConvolutionShape& s) {
  return {s, small_layout(s), scattered_taps(s.small_h, s.large_h, s.kernel_y, s.stride_y, s.padding_y, s.dilation_y),
          scattered_taps(s.small_w, s.large_w, s.kernel_x, s.stride_x, s.padding_x, s.dilation_x)};
}

// Pixels of a row of the result.
template <class T, class Out>
struct DepthwiseRow {
  const T* source;               // the image
  const Accum<T>*weight, *bias;  // (taps, channels); a number per channel, or null
  Out* out;                      // the first of the pixels
  int64_t out_stride;            // of pixels

  DepthwiseRow from_channel(int64_t c) const {
    return {source + c, weight + c, bias ? bias + c : nullptr, out + c, out_stride};
  }
  DepthwiseRow from_pixel(int64_t i) const { return {source, weight, bias, out + i * out_stride, out_stride}; }
};

constexpr int kRunPixels = kVectorBytes == 64 ? 6 : 3;  // pixels of a run that are computed together

// kPixels pixels of a run from column x on, kVectors vectors of channels of which the last has `lanes` lanes: a number,
// or a constant where it is whole.
template <int kPixels, int kVectors, class T, class Out, class Lanes>
FV_HD void depthwise_pixels(const DepthwiseAxes& axes, int64_t y, int64_t x, const DepthwiseRow<T, Out>& at,
                            Lanes lanes) {
  using V = Vec<Accum<T>>;
  const auto load = [&](const auto* p, auto v) FV_INLINE {
    if constexpr (v + 1 < kVectors) return load_vector(p + v * V::kLanes);
    else return load_vector(p + v * V::kLanes, lanes);
  };
  V sum[kPixels][kVectors];
  unrolled<kVectors>([&](auto v) FV_INLINE {
    const V first = at.bias ? load(at.bias, v) : V(Accum<T>(0));
    unrolled<kPixels>([&](auto p) FV_INLINE { sum[p][v] = first; });
  });
  const int64_t step = axes.columns.step;
  const AxisTaps::Tap *const first = axes.columns.first(x), *const last = axes.columns.last(x);
  for (const AxisTaps::Tap* row = axes.rows.first(y); row != axes.rows.last(y); ++row)
    for (const AxisTaps::Tap* column = first; column != last; ++column) {
      const T* const source = at.source + row->source + column->source;
      const Accum<T>* const weights = at.weight + row->tap + column->tap;
      unrolled<kVectors>([&](auto v) FV_INLINE {
        const V weight = load(weights, v);
        unrolled<kPixels>([&](auto p)
                              FV_INLINE { sum[p][v] = multiply_add(load(source + p * step, v), weight, sum[p][v]); });
      });
    }
  unrolled<kPixels>([&](auto p) FV_INLINE {
    Out* const to = at.out + p * at.out_stride;
    unrolled<kVectors - 1>([&](auto v) FV_INLINE { store_vector(to + v * V::kLanes, sum[p][v]); });
    store_vector(to + (kVectors - 1) * V::kLanes, sum[p][kVectors - 1], lanes);
  });
}

// Channels [0, channels) of pixels of a run.
template <int kPixels, class T, class Out>
void depthwise_channels(const DepthwiseAxes& axes, int64_t y, int64_t x, int64_t channels,
                        const DepthwiseRow<T, Out>& row) {
  constexpr int64_t kLanes = fastvision::kLanes<Accum<T>>;
  for (int64_t c = 0; c < channels; c += 4 * kLanes) {
    const int64_t left = min_of(channels - c, 4 * kLanes), vectors = ceil_div(left, kLanes);
    const int64_t lanes = left - (vectors - 1) * kLanes;
    const DepthwiseRow<T, Out> at = row.from_channel(c);
    with_constant(vectors, [&](auto count) {
      if (lanes == kLanes)
        depthwise_pixels<kPixels, count()>(axes, y, x, at, std::integral_constant<int64_t, kLanes>());
      else depthwise_pixels<kPixels, count()>(axes, y, x, at, lanes);
    });
  }
}

// Few taps are bound by memory, which is read more quickly from one pixel after the other.
constexpr int64_t kFewTaps = 6;

// Pixels [begin, end) of row y of the result.
template <class T, class Out>
void depthwise_row(const DepthwiseAxes& axes, int64_t y, int64_t begin, int64_t end, int64_t channels,
                   const DepthwiseRow<T, Out>& row) {
  const int64_t taps_down = axes.rows.last(y) - axes.rows.first(y);
  for (int64_t x = begin; x < end;) {
    const bool few = taps_down * (axes.columns.last(x) - axes.columns.first(x)) <= kFewTaps;
    const int64_t alike = few ? 1 : min_of(axes.columns.run_end[size_t(x)], end) - x;
    const auto pixels = [&](auto count) {
      depthwise_channels<count()>(axes, y, x, channels, row.from_pixel(x - begin));
      x += count;
    };
    if (alike >= kRunPixels) pixels(std::integral_constant<int, kRunPixels>());
    else if (alike >= 2) pixels(std::integral_constant<int, 2>());
    else pixels(std::integral_constant<int, 1>());
  }
}

template <class A>
std::vector<A> by_tap(const ConvolutionShape& s, const A* weight) {  // (taps, channels) from (channels, taps)
  std::vector<A> to(static_cast<size_t>(s.weights()));
  for (int64_t c = 0; c < s.groups; ++c)
    for (int64_t i = 0; i < s.taps(); ++i) to[size_t(i * s.groups + c)] = *weight++;
  return to;
}

}  // namespace
}  // namespace fastvision
