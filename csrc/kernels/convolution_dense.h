// CUDA: convolution with many channels per group as products of matrices. Gather, and each residue of the pixels of
// scatter by the stride, is one: rows are pixels of the result, depth is channels of the source for one tap after the
// other. What a row reads is worked out here.
#pragma once

#include "convolution.h"

namespace fastvision {

constexpr int64_t kDenseChannels = 16;  // fewer would leave most of a product's depth or columns empty
FV_HD bool is_dense(const ConvolutionShape& s) {
  return s.small_channels >= kDenseChannels && s.large_channels >= kDenseChannels;
}

struct Range {
  int64_t begin, end;
  FV_HD int64_t size() const { return end - begin; }
};

// Along one axis, position i of the result is pixel first + i * step, and tap j of its `taps` reads pixel
// base + i * base_step + j * offset_step of the source. It has the weights of tap first_tap + j * tap_step.
struct DenseAxis {
  int64_t count, first, step, base, base_step, taps, first_tap, tap_step, offset_step, source_size;

  FV_HD int64_t least_offset() const { return offset_step < 0 ? (taps - 1) * offset_step : 0; }
  FV_HD int64_t greatest_offset() const { return offset_step > 0 ? (taps - 1) * offset_step : 0; }
  FV_HD bool inside(int64_t pixel) const { return pixel >= 0 && pixel < source_size; }

  // The positions in three classes: for up to three taps (3 x 3 with any dilation) those of a class have the same taps
  // inside the source, so that a tile of one class leaves out all others.
  FV_HD Range positions(int k) const {
    const int64_t enters = clamped(ceil_div(-base - least_offset(), base_step));
    const int64_t leaves = clamped(ceil_div(source_size - base - greatest_offset(), base_step));
    const int64_t low = min_of(enters, leaves), high = max_of(enters, leaves);
    return k == 0 ? Range{0, low} : k == 1 ? Range{low, high} : Range{high, count};
  }
  // The taps that may be inside for some of these positions.
  FV_HD Range taps_of(Range at) const {
    const int64_t low = base + at.begin * base_step, high = base + (at.end - 1) * base_step;
    Range live{0, taps};
    const auto misses = [&](int64_t j) { return low + j * offset_step >= source_size || high + j * offset_step < 0; };
    while (live.begin < live.end && misses(live.begin)) ++live.begin;
    while (live.begin < live.end && misses(live.end - 1)) --live.end;
    return live;
  }
  // Whether each of the positions has all of these taps inside.
  FV_HD bool all_inside(Range at, Range live) const {
    const int64_t low = base + at.begin * base_step, high = base + (at.end - 1) * base_step;
    const int64_t a = live.begin * offset_step, b = (live.end - 1) * offset_step;
    return inside(low + min_of(a, b)) && inside(high + max_of(a, b));
  }

 private:
  FV_HD int64_t clamped(int64_t i) const { return max_of(min_of(i, count), int64_t(0)); }
};

FV_HD DenseAxis gather_axis(int64_t small, int64_t large, int64_t kernel, int64_t stride, int64_t padding,
                            int64_t dilation) {
  return {small, 0, 1, -padding, stride, kernel, 0, 1, dilation, large};
}
// The pixels whose distance from the start of the padding leaves this residue when divided by the stride.
FV_HD DenseAxis scatter_axis(int64_t residue, int64_t small, int64_t large, int64_t kernel, int64_t stride,
                             int64_t padding, int64_t dilation) {
  const int64_t shift = (residue - padding) % stride, first = shift < 0 ? shift + stride : shift;
  const Taps t = taps_at(residue, stride, dilation, kernel);
  const int64_t taps = t.first < kernel ? ceil_div(kernel - t.first, t.step) : 0;
  const int64_t count = first < large ? ceil_div(large - first, stride) : 0;
  const int64_t base = (first + padding - t.first * dilation) / stride;  // exact where there is a tap
  return {count, first, stride, base, 1, taps, t.first, t.step, -(t.step * dilation / stride), small};
}

// Rows of the product are pixels of all images: class by class of y, then of x, so that tiles seldom mix classes.
struct DensePlace {
  int64_t image, y, x;  // positions
  int class_y, class_x;
};
FV_HD DensePlace dense_place(int64_t batch, const DenseAxis& ys, const DenseAxis& xs, int64_t row) {
  int class_y = 0, class_x = 0;
  Range y = ys.positions(0), x = xs.positions(0);
  while (class_y < 2 && row >= batch * y.size() * xs.count) {
    row -= batch * y.size() * xs.count;
    y = ys.positions(++class_y);
  }
  while (class_x < 2 && row >= batch * y.size() * x.size()) {
    row -= batch * y.size() * x.size();
    x = xs.positions(++class_x);
  }
  const int64_t line = row / x.size();
  return {line / y.size(), y.begin + line % y.size(), x.begin + row % x.size(), class_y, class_x};
}

// What `count` rows from this one on have in common; of those that exist.
struct DenseTile {
  Range taps_y, taps_x;
  bool all_inside;  // for every row
};
FV_HD DenseTile dense_tile(int64_t batch, const DenseAxis& ys, const DenseAxis& xs, int64_t first, int64_t count) {
  const int64_t rows = batch * ys.count * xs.count;
  if (first >= rows) return {{0, 0}, {0, 0}, true};
  const DensePlace from = dense_place(batch, ys, xs, first);
  const DensePlace to = dense_place(batch, ys, xs, min_of(first + count, rows) - 1);
  Range y{0, ys.count}, x{0, xs.count};
  if (from.class_y == to.class_y) {
    y = ys.positions(from.class_y);
    if (from.class_x == to.class_x) x = xs.positions(from.class_x);
  }
  const Range taps_y = ys.taps_of(y), taps_x = xs.taps_of(x);
  return {taps_y, taps_x, ys.all_inside(y, taps_y) && xs.all_inside(x, taps_x)};
}

// Gather or scatter as the kernel wants it. Strides of the weights: by channel of the result and of the source.
struct DenseProblem {
  ConvolutionShape shape;
  MapLayout source, result;
  int64_t source_channels, result_channels;  // of a group
  int64_t weight_result, weight_source, weight_tap;
  int64_t panels, tiles, residues, blocks;  // of columns, of rows of a residue, of the stride, of all
  bool packs;                               // whether channels lie in whole packs of 16 bytes
};
inline DenseProblem dense_problem(const ConvolutionShape& s, bool scatter, int64_t rows, int64_t columns,
                                  int64_t pack) {
  const MapLayout small = small_layout(s), large = large_layout(s);
  const int64_t small_stride = s.large_channels * s.taps(), large_stride = s.weight_last ? 1 : s.taps();
  DenseProblem p{};
  p.shape = s;
  p.source = scatter ? small : large, p.result = scatter ? large : small;
  p.source_channels = scatter ? s.small_channels : s.large_channels;
  p.result_channels = scatter ? s.large_channels : s.small_channels;
  p.weight_result = scatter ? large_stride : small_stride, p.weight_source = scatter ? small_stride : large_stride;
  p.weight_tap = s.weight_last ? s.large_channels : 1;
  const int64_t step_y = scatter ? s.stride_y : 1, step_x = scatter ? s.stride_x : 1;
  p.panels = ceil_div(p.result_channels, columns);
  p.tiles = ceil_div(s.batch * ceil_div(p.result.height, step_y) * ceil_div(p.result.width, step_x), rows);
  p.residues = step_y * step_x;
  p.blocks = p.panels * p.tiles * p.residues * s.groups;
  p.packs = s.channels_last && s.small_channels % pack == 0 && s.large_channels % pack == 0;
  return p;
}

// What one block works on: some columns for some rows of a residue.
struct DensePlan {
  DenseAxis ys, xs;
  DenseTile tile;
  int64_t first, rows;              // of the tile, of the residue
  int64_t source, weight, channel;  // the group's first source element; the first weight and channel of the result
  int columns;
};
template <bool kScatter>
FV_HD DensePlan dense_plan(const DenseProblem& p, int64_t block, int64_t rows, int64_t columns) {
  const ConvolutionShape& s = p.shape;
  const int64_t first_column = block % p.panels * columns, group = block / p.panels / p.tiles / p.residues;
  DensePlan plan;
  if constexpr (kScatter) {
    const int64_t residue = block / p.panels / p.tiles % p.residues, y = residue / s.stride_x, x = residue % s.stride_x;
    plan.ys = scatter_axis(y, s.small_h, s.large_h, s.kernel_y, s.stride_y, s.padding_y, s.dilation_y);
    plan.xs = scatter_axis(x, s.small_w, s.large_w, s.kernel_x, s.stride_x, s.padding_x, s.dilation_x);
  } else {
    plan.ys = gather_axis(s.small_h, s.large_h, s.kernel_y, s.stride_y, s.padding_y, s.dilation_y);
    plan.xs = gather_axis(s.small_w, s.large_w, s.kernel_x, s.stride_x, s.padding_x, s.dilation_x);
  }
  plan.first = block / p.panels % p.tiles * rows;
  plan.rows = s.batch * plan.ys.count * plan.xs.count;
  plan.tile = dense_tile(s.batch, plan.ys, plan.xs, plan.first, rows);
  plan.source = group * p.source_channels * p.source.channel;
  plan.weight = group * s.small_channels * s.large_channels * s.taps() + first_column * p.weight_result;
  plan.channel = group * p.result_channels + first_column;
  plan.columns = int(min_of(columns, p.result_channels - first_column));
  return plan;
}

// As the functions of convolution.h; for is_dense.
template <class T>
void dense_gather(const ConvolutionShape&, const T* large, const T* weight, const T* bias, T* small, const CudaExec&);
template <class T>
void dense_scatter(const ConvolutionShape&, const T* small, const T* weight, const T* bias, T* large, const CudaExec&);
template <class T>
void dense_product(const ConvolutionShape&, const T* small, const T* large, T* weight, const CudaExec&);

}  // namespace fastvision
