// Deformable convolution (Dai et al., ICCV 2017; with a mask Zhu et al., CVPR 2019): each tap of the kernel reads the
// map at its place plus an offset, bilinearly, with zeros around the map.
#pragma once

#include "common.h"

namespace fastvision {

// Maps that are read are (batch, h, w, channels); the result, or the gradient by the input, is so if channels_last and
// (batch, channels, h, w) otherwise. offset: (batch, offset groups, taps, 2, out_h, out_w), mask: the same without
// the 2. weight: (out_channels, in_channels / groups, kernel_y, kernel_x).
struct DeformShape {
  int64_t batch, in_channels, out_channels, groups, offset_groups;
  int64_t in_h, in_w, out_h, out_w;
  int64_t kernel_y, kernel_x, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
  bool channels_last;

  FV_HD int64_t taps() const { return kernel_y * kernel_x; }
  FV_HD int64_t pixels() const { return out_h * out_w; }
  FV_HD int64_t in_pixels() const { return in_h * in_w; }
  FV_HD int64_t group_in() const { return in_channels / groups; }
  FV_HD int64_t group_out() const { return out_channels / groups; }
  FV_HD int64_t offset_channels() const { return in_channels / offset_groups; }
  FV_HD int64_t weights() const { return out_channels * group_in() * taps(); }
  FV_HD int64_t samples() const { return batch * offset_groups * taps() * pixels(); }
};

// Neighbouring channels that share their weights' group and their offsets.
struct ChannelSlice {
  int64_t first, count, group, offset_group;
};
// Slices of at most `width` channels, each within one group of either kind.
struct ChannelSlices {
  int64_t unit, per_unit, width, count;

  static ChannelSlices of(const DeformShape& s, int64_t width) {
    int64_t unit = s.group_in();
    for (int64_t rest = s.offset_channels(); rest != 0;) {  // the greatest common divisor
      const int64_t next = unit % rest;
      unit = rest;
      rest = next;
    }
    if (unit == 0) return {1, 1, width, 0};
    const int64_t per_unit = ceil_div(unit, width);
    return {unit, per_unit, width, s.in_channels / unit * per_unit};
  }
  // The same, but that a slice may hold channels of several groups of weights; its group is the first of them.
  static ChannelSlices by_offsets(const DeformShape& s, int64_t width) {
    const int64_t per_unit = ceil_div(s.offset_channels(), width);
    return {max_of(s.offset_channels(), int64_t(1)), max_of(per_unit, int64_t(1)), width, s.offset_groups * per_unit};
  }
  FV_HD ChannelSlice at(const DeformShape& s, int64_t i) const {
    const int64_t inside = i % per_unit * width, first = i / per_unit * unit + inside;
    return {first, min_of(width, unit - inside), first / s.group_in(), first / s.offset_channels()};
  }
  FV_HD int64_t per_offset_group(const DeformShape& s) const { return count / s.offset_groups; }
};

// Where one tap reads one map: between pixels (y, x) and (y + 1, x + 1), of which some may be outside.
template <class A>
struct DeformSample {
  int64_t y, x;
  A down, right;  // how far from (y, x)
  bool inside;    // otherwise the sample is zero, and so are its gradients

  // Corners 0 to 3 are upper left, upper right, lower left and lower right.
  FV_HD A weight(int corner) const { return (corner / 2 ? down : A(1) - down) * (corner % 2 ? right : A(1) - right); }
  FV_HD bool has(const DeformShape& s, int corner) const {
    const int64_t row = y + corner / 2, column = x + corner % 2;
    return inside && row >= 0 && row < s.in_h && column >= 0 && column < s.in_w;
  }
  FV_HD int64_t pixel(const DeformShape& s, int corner) const { return (y + corner / 2) * s.in_w + x + corner % 2; }

  // Slopes of the sample along y and x, from the values (or sums of products with them) of the corners.
  FV_HD A slope_down(const A (&corner)[4]) const {
    return (A(1) - right) * (corner[2] - corner[0]) + right * (corner[3] - corner[1]);
  }
  FV_HD A slope_right(const A (&corner)[4]) const {
    return (A(1) - down) * (corner[1] - corner[0]) + down * (corner[3] - corner[2]);
  }
};

// group: image * offset groups + offset group.
template <class A>
FV_HD DeformSample<A> deform_sample(const DeformShape& s, const A* offset, int64_t group, int64_t tap, int64_t pixel) {
  const A* at = offset + (group * s.taps() + tap) * 2 * s.pixels() + pixel;
  const A y = A(pixel / s.out_w * s.stride_y - s.padding_y + tap / s.kernel_x * s.dilation_y) + at[0];
  const A x = A(pixel % s.out_w * s.stride_x - s.padding_x + tap % s.kernel_x * s.dilation_x) + at[s.pixels()];
  // Written so that a NaN, for which every comparison is false, is outside.
  if (!(y >= A(-1) && y < A(s.in_h) && x >= A(-1) && x < A(s.in_w))) return {0, 0, A(0), A(0), false};
  const int64_t row = int64_t(y) - (y < A(int64_t(y))), column = int64_t(x) - (x < A(int64_t(x)));  // rounded down
  return {row, column, y - A(row), x - A(column), true};
}
template <class A>
FV_HD A deform_mask(const DeformShape& s, const A* mask, int64_t group, int64_t tap, int64_t pixel) {
  return mask ? mask[(group * s.taps() + tap) * s.pixels() + pixel] : A(1);
}

// Numbers of scratch for the input gradient. CPU: what each slice of channels adds to the gradients by offsets and
// mask. CUDA: the box that holds the samples of each run of pixels.
constexpr int64_t kDeformSlice = 64, kDeformRun = 256;
template <class Isa>
int64_t deform_scratch(const DeformShape& s, const Cpu<Isa>&) {
  return ChannelSlices::of(s, kDeformSlice).per_offset_group(s) * 3 * s.samples();
}
inline int64_t deform_scratch(const DeformShape& s, const CudaExec&) {
  return s.batch * s.offset_groups * s.taps() * ceil_div(s.pixels(), kDeformRun) * 4;
}

// Twins. mask and bias may be null. Offsets, mask and their gradients: in the type of the sums.
// Forward: out[d] = bias[d] + sum over taps and channels of weight[d][c](tap) mask(tap) input[c](place of tap).
// Input gradient: by input, offset and mask (null without a mask); scratch: see deform_scratch.
template <class T, class Isa>
void deform_conv2d(const DeformShape&, const T* input, const Accum<T>* offset, const Accum<T>* mask, const T* weight,
                   const T* bias, T* out, const Cpu<Isa>&);
template <class T, class Isa>
void deform_conv2d_input_gradient(const DeformShape&, const T* grad, const T* input, const Accum<T>* offset,
                                  const Accum<T>* mask, const T* weight, Accum<T>* scratch, T* by_input,
                                  Accum<T>* by_offset, Accum<T>* by_mask, const Cpu<Isa>&);
template <class T, class Isa>
void deform_conv2d_weight_gradient(const DeformShape&, const T* grad, const T* input, const Accum<T>* offset,
                                   const Accum<T>* mask, T* by_weight, const Cpu<Isa>&);
template <class T>
void deform_conv2d(const DeformShape&, const T* input, const Accum<T>* offset, const Accum<T>* mask, const T* weight,
                   const T* bias, T* out, const CudaExec&);
template <class T>
void deform_conv2d_input_gradient(const DeformShape&, const T* grad, const T* input, const Accum<T>* offset,
                                  const Accum<T>* mask, const T* weight, Accum<T>* scratch, T* by_input,
                                  Accum<T>* by_offset, Accum<T>* by_mask, const CudaExec&);
template <class T>
void deform_conv2d_weight_gradient(const DeformShape&, const T* grad, const T* input, const Accum<T>* offset,
                                   const Accum<T>* mask, T* by_weight, const CudaExec&);

}  // namespace fastvision
