// CPU: one channel per group in NCHW with stride 1. Rows of the source are copied to a buffer with zeros beside them;
// then up to four vectors of neighbouring pixels are summed over the taps that meet the map.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "convolution.h"
#include "simd.h"
#include "unrolled.h"

namespace fastvision {
namespace {

inline bool is_depthwise_planes(const ConvolutionShape& s) {
  return !s.channels_last && s.small_channels * s.large_channels == 1 && s.stride_y == 1 && s.stride_x == 1;
}

// out(y, x) is the sum of weight(i, j) source(y - padding + i dilation, x - padding + j dilation). A padding may be
// negative.
struct PlaneShape {
  int64_t source_h, source_w, out_h, out_w, kernel_y, kernel_x, padding_y, padding_x, dilation_y, dilation_x;
  bool flipped;  // the first weight belongs to the last tap
};
inline PlaneShape gathered_plane(const ConvolutionShape& s) {
  return {s.large_h,   s.large_w,   s.small_h,    s.small_w,    s.kernel_y, s.kernel_x,
          s.padding_y, s.padding_x, s.dilation_y, s.dilation_x, false};
}
inline PlaneShape scattered_plane(const ConvolutionShape& s) {
  PlaneShape p = gathered_plane(s);
  std::swap(p.source_h, p.out_h);
  std::swap(p.source_w, p.out_w);
  p.padding_y = (p.kernel_y - 1) * p.dilation_y - p.padding_y;
  p.padding_x = (p.kernel_x - 1) * p.dilation_x - p.padding_x;
  p.flipped = true;
  return p;
}

constexpr int kSums = 4;  // vectors that are added up at a time, at most: those of with_constant

// The taps along one axis that meet the map for some pixel of the result: all others are left out, so that no number
// here is larger than the maps are.
struct AxisShifts {
  struct Shift {
    int64_t tap, shift;  // pixel p of the result reads p + shift
  };
  std::vector<Shift> shifts;  // ascending
  int64_t lowest = 0, highest = 0;

  AxisShifts(int64_t kernel, int64_t dilation, int64_t padding, int64_t source, int64_t out) {
    for (int64_t k = 0; k < kernel; ++k)
      if (const int64_t shift = k * dilation - padding; shift > -out && shift < source) shifts.push_back({k, shift});
    if (!shifts.empty()) lowest = shifts.front().shift, highest = shifts.back().shift;
  }
};

// Where taps read, the same for all planes: rows of a buffer, `width` apart, with the map's first pixel at column
// `left`.
struct PlaneTaps {
  struct Range {
    int64_t begin, end;
    bool operator==(const Range&) const = default;
  };
  AxisShifts down, right;
  int64_t left, width;
  std::vector<int64_t> weights, offsets;  // of each tap: its number, and where it reads from a pixel of the result
  std::vector<Range> rows;                // the taps of each row of the result

  PlaneTaps(const PlaneShape& s, int64_t lanes)
      : down(s.kernel_y, s.dilation_y, s.padding_y, s.source_h, s.out_h),
        right(s.kernel_x, s.dilation_x, s.padding_x, s.source_w, s.out_w),
        left(max_of(-right.lowest, int64_t(0))),
        width(left + max_of(s.source_w, right.highest + ceil_div(s.out_w, lanes) * lanes)) {
    const int64_t across = int64_t(right.shifts.size());
    for (const auto& y : down.shifts)
      for (const auto& x : right.shifts) {
        const int64_t k = y.tap * s.kernel_x + x.tap;
        weights.push_back(s.flipped ? s.kernel_y * s.kernel_x - 1 - k : k);
        offsets.push_back(y.shift * width + x.shift + left);
      }
    for (int64_t y = 0; y < s.out_h; ++y) {
      Range range{0, 0};
      for (int64_t k = 0; k < int64_t(down.shifts.size()); ++k)
        if (const int64_t row = y + down.shifts[size_t(k)].shift; row >= 0 && row < s.source_h)
          range = {range.end ? range.begin : k * across, (k + 1) * across};
      rows.push_back(range);
    }
  }
  // The first row of the source that rows [y0, y1) of the result may read, and the one after the last.
  Range sources(const PlaneShape& s, int64_t y0, int64_t y1) const {
    const int64_t begin = min_of(max_of(y0 + down.lowest, int64_t(0)), s.source_h);
    return {begin, max_of(min_of(y1 + down.highest, s.source_h), begin)};
  }
};

// Rows [y0, y1) of a plane of the result. The buffer is zero beside the map. weight: by taps.
template <class T>
void correlate_rows(const PlaneShape& s, const PlaneTaps& taps, int64_t y0, int64_t y1, const T* source,
                    const Accum<T>* weight, Accum<T> bias, T* out, Accum<T>* buffer) {
  using A = Accum<T>;
  const PlaneTaps::Range sources = taps.sources(s, y0, y1);
  for (int64_t row = sources.begin; row < sources.end; ++row)
    for (int64_t x = 0; x < s.source_w; x += kLanes<A>) {
      const int64_t n = min_of(kLanes<A>, s.source_w - x);
      store_vector(buffer + (row - sources.begin) * taps.width + taps.left + x,
                   load_vector(source + row * s.source_w + x, n), n);
    }
  // Sums that are `step` apart in the buffer.
  const auto add = [&](auto& sums, int64_t y, int64_t x, int64_t step) {
    const int64_t at = (y - sources.begin) * taps.width + x;
    for (auto& sum : sums) sum = Vec<A>(bias);
    for (int64_t k = taps.rows[size_t(y)].begin; k < taps.rows[size_t(y)].end; ++k) {
      const A* p = buffer + (at + taps.offsets[size_t(k)]);
      for (auto& sum : sums) sum = multiply_add(load_vector(p), Vec<A>(weight[k]), sum), p += step;
    }
  };
  const bool narrow = s.out_w <= kLanes<A>;
  for (int64_t y = y0, count; narrow && y < y1; y += count) {  // some rows with the same taps
    for (count = 1; count < kSums && y + count < y1 && taps.rows[size_t(y + count)] == taps.rows[size_t(y)];) ++count;
    with_constant(count, [&](auto rows) {
      Vec<A> sums[rows()];
      add(sums, y, 0, taps.width);
      for (int i = 0; i < rows; ++i) store_vector(out + (y + i) * s.out_w, sums[i], s.out_w);
    });
  }
  for (int64_t y = y0; !narrow && y < y1; ++y)
    for (int64_t x = 0; x < s.out_w; x += kSums * kLanes<A>)
      with_constant(ceil_div(s.out_w - x, kLanes<A>), [&](auto vectors) {
        Vec<A> sums[vectors()];
        add(sums, y, x, kLanes<A>);
        T* to = out + y * s.out_w + x;
        for (int i = 0; i + 1 < vectors; ++i, to += kLanes<A>) store_vector(to, sums[i]);
        store_vector(to, sums[vectors - 1], min_of(kLanes<A>, s.out_w - x - (vectors - 1) * kLanes<A>));
      });
}

template <class T, class Isa>
void correlate_planes(const PlaneShape& s, int64_t batch, int64_t channels, const T* source, const Accum<T>* weight,
                      const Accum<T>* bias, T* out, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const PlaneTaps taps(s, kLanes<A>);
  const int64_t step = min_of(max_of(int64_t(64), taps.down.highest - taps.down.lowest), s.out_h);
  const int64_t blocks = ceil_div(s.out_h, step), of_channel = s.kernel_y * s.kernel_x;
  const int64_t rows = min_of(step + taps.down.highest - taps.down.lowest, s.source_h);
  exec(batch * channels * blocks, 1 + 65536 / (step * s.out_w * of_channel + 1), [&](int64_t begin, int64_t end) {
    std::vector<A> buffer(size_t(rows * taps.width)), weights(taps.weights.size());
    for (int64_t k = begin; k < end; ++k) {
      const int64_t y0 = k % blocks * step, plane = k / blocks, channel = plane % channels;
      for (size_t i = 0; i < weights.size(); ++i) weights[i] = weight[channel * of_channel + taps.weights[i]];
      correlate_rows(s, taps, y0, min_of(y0 + step, s.out_h), source + plane * s.source_h * s.source_w, weights.data(),
                     bias ? bias[channel] : A(0), out + plane * s.out_h * s.out_w, buffer.data());
    }
  });
}

// Adds the product of rows [y0, y1) of small and, `down` and `right` of them, large to kSums vectors.
template <class T>
void add_product_of_tap(const ConvolutionShape& s, int64_t y0, int64_t y1, int64_t down, int64_t right, const T* small,
                        const T* large, Accum<T>* sums) {
  using A = Accum<T>;
  const int64_t x0 = max_of(-right, int64_t(0)), x1 = min_of(s.large_w - right, s.small_w);
  y0 = max_of(y0, -down), y1 = min_of(s.large_h - down, y1);
  // sum[i] += the vectors that are i steps after small(y, x) and its partner; the last one has `lanes` lanes.
  const auto add = [&](auto& sum, int64_t y, int64_t x, int64_t step, int64_t large_step, auto all_but_last,
                       int64_t lanes) {
    const T *p = small + y * s.small_w + x, *q = large + (y + down) * s.large_w + x + right;
    constexpr int kCount = int(std::extent_v<std::remove_reference_t<decltype(sum)>>);
    for (int i = 0; i < kCount; ++i, p += step, q += large_step) {
      if (i + 1 < kCount) sum[i] = multiply_add(load_vector(p, all_but_last), load_vector(q, all_but_last), sum[i]);
      else sum[i] = multiply_add(load_vector(p, lanes), load_vector(q, lanes), sum[i]);
    }
  };
  const auto with_loaded = [&](auto count, auto&& f) {
    Vec<A> sum[count()];
    for (int i = 0; i < count; ++i) sum[i] = load_vector(sums + i * kLanes<A>);
    f(sum);
    for (int i = 0; i < count; ++i) store_vector(sums + i * kLanes<A>, sum[i]);
  };
  if (x1 <= x0) return;
  if (const int64_t lanes = x1 - x0; lanes <= kLanes<A>) {  // some rows at a time
    int64_t y = y0;
    with_loaded(std::integral_constant<int, kSums>(), [&](auto& sum) {
      for (; y + kSums <= y1; y += kSums) add(sum, y, x0, s.small_w, s.large_w, lanes, lanes);
    });
    for (; y < y1; ++y)
      with_loaded(std::integral_constant<int, 1>(), [&](auto& sum) { add(sum, y, x0, 0, 0, lanes, lanes); });
    return;
  }
  for (int64_t x = x0; x < x1; x += kSums * kLanes<A>)
    with_constant(ceil_div(x1 - x, kLanes<A>), [&](auto vectors) {
      const int64_t lanes = min_of(kLanes<A>, x1 - x - (vectors - 1) * kLanes<A>);
      with_loaded(vectors, [&](auto& sum) {
        for (int64_t y = y0; y < y1; ++y)
          add(sum, y, x, kLanes<A>, kLanes<A>, std::integral_constant<int64_t, kLanes<A>>(), lanes);
      });
    });
}

// The weights of one channel, a few rows at a time for all taps.
template <class T>
void product_of_planes(const ConvolutionShape& s, int64_t channel, const T* small, const T* large, T* weight,
                       std::vector<Accum<T>>& sums) {
  using A = Accum<T>;
  constexpr int64_t kRows = 64, kOfTap = kSums * kLanes<A>;
  sums.assign(size_t(s.taps() * kOfTap), A(0));
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t y0 = 0; y0 < s.small_h; y0 += kRows)
      for (int64_t i = 0; i < s.kernel_y; ++i)
        for (int64_t j = 0; j < s.kernel_x; ++j) {
          const int64_t plane = n * s.groups + channel;
          add_product_of_tap(s, y0, min_of(y0 + kRows, s.small_h), i * s.dilation_y - s.padding_y,
                             j * s.dilation_x - s.padding_x, small + plane * s.small_h * s.small_w,
                             large + plane * s.large_h * s.large_w, &sums[size_t((i * s.kernel_x + j) * kOfTap)]);
        }
  for (int64_t i = 0; i < s.taps(); ++i) {
    Vec<A> sum(A(0));
    for (int64_t k = 0; k < kOfTap; k += kLanes<A>) sum = sum + load_vector(&sums[size_t(i * kOfTap + k)]);
    weight[channel * s.taps() + i] = from_accum<T>(sum_of(sum));
  }
}

}  // namespace
}  // namespace fastvision
