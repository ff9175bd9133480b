// Max unpooling (Zeiler et al., ICCV 2011; SegNet: Badrinarayanan et al., TPAMI 2017): values back to the places of
// their maxima, zeros elsewhere. Of values with the same place the one at the highest input position stays.
#pragma once

#include "max_pool2d.h"

namespace fastvision {

struct MaxUnpoolShape {
  int64_t planes, channels;             // channels of (planes, y, x, channels): 1 unless channels_last
  int64_t height, width, out_h, out_w;  // input (pooled), output
  PoolGeometry g;

  FV_HD int64_t in_row() const { return width * channels; }
  FV_HD int64_t in_plane() const { return height * in_row(); }
  FV_HD int64_t out_pixels() const { return out_h * out_w; }
  FV_HD int64_t out_plane() const { return out_pixels() * channels; }
};

// The place of an input element, or -1 for an index that is none.
FV_HD int64_t place_of(const MaxUnpoolShape& s, int64_t, int64_t, int64_t position) {
  return position >= 0 && position < s.out_pixels() ? position : -1;
}
FV_HD int64_t place_of(const MaxUnpoolShape& s, int64_t y, int64_t x, uint8_t tap) {
  const int64_t oy = y * s.g.stride_y - s.g.padding_y + tap / s.g.kernel_x;
  const int64_t ox = x * s.g.stride_x - s.g.padding_x + tap % s.g.kernel_x;
  const bool inside = tap < s.g.kernel_y * s.g.kernel_x && oy >= 0 && oy < s.out_h && ox >= 0 && ox < s.out_w;
  return inside ? oy * s.out_w + ox : -1;
}

// Twins. Index is uint8_t (a tap of the own window) or int64_t (y * out_w + x). The CPU returns false if an index is no
// place; CUDA counts it and leaves the value out. owners: planes * out_plane() numbers, for CUDA and int64_t alone.
template <class T, class Index, class Isa>
bool max_unpool2d(const MaxUnpoolShape&, const T* input, const Index* index, int64_t* owners, T* out, const Cpu<Isa>&);
template <class T, class Index, class Isa>
bool max_unpool2d_backward(const MaxUnpoolShape&, const T* grad, const Index* index, int64_t* owners, T* grad_input,
                           const Cpu<Isa>&);
template <class T, class Index>
bool max_unpool2d(const MaxUnpoolShape&, const T* input, const Index* index, int64_t* owners, T* out, const CudaExec&);
template <class T, class Index>
bool max_unpool2d_backward(const MaxUnpoolShape&, const T* grad, const Index* index, int64_t* owners, T* grad_input,
                           const CudaExec&);

}  // namespace fastvision
