// Gram matrices of feature maps (Gatys et al., CVPR 2016): inner products of channels over all pixels.
#pragma once

#include "common.h"

namespace fastvision {

struct GramShape {
  int64_t batch, rows, columns, pixels;  // rows: channels of x; columns: channels of y
  bool symmetric;                        // y is x: only tiles on and above the diagonal are computed
  bool channels_last;                    // x and y: (batch, pixels, channels) instead of (batch, channels, pixels)
  bool tf32;                             // CUDA: float32 factors may be rounded to tf32
  double scale;                          // of the result

  static constexpr int kTile = 64;
  FV_HD int64_t tiles(int64_t tile = kTile) const {
    const int64_t down = ceil_div(rows, tile);
    return down * (symmetric ? down + 1 : 2 * ceil_div(columns, tile)) / 2;
  }
  // The pixels are summed in parts, and the parts then in order. Their number is a matter of the shape alone, so that
  // results do not depend on the machine: at most 4096 pixels to a part, which bounds the rounding errors, and less
  // where the tiles alone are too few to keep many cores busy.
  FV_HD int64_t parts() const {
    const int64_t wanted = ceil_div(int64_t(256), max_of(batch * tiles(), int64_t(1)));
    return max_of(max_of(ceil_div(pixels, int64_t(4096)), min_of(wanted, ceil_div(pixels, int64_t(2048)))), int64_t(1));
  }
  FV_HD int64_t pixels_per_part() const { return ceil_div(ceil_div(pixels, int64_t(128)), parts()) * 128; }
  FV_HD int64_t results() const { return batch * rows * columns; }
};

// What one piece of the work is about. The tiles of a symmetric product are numbered row by row.
struct GramPiece {
  int64_t image, part, row, column;  // the first row and column of the tile
};
template <int64_t kSize = GramShape::kTile>
FV_HD GramPiece gram_piece(const GramShape& s, int64_t piece, int64_t parts) {
  const int64_t tiles = s.tiles(kSize), across = ceil_div(s.columns, kSize);
  const int64_t image = piece / parts / tiles, part = piece % parts;
  int64_t tile = piece / parts % tiles, row = 0;
  if (!s.symmetric) return {image, part, tile / across * kSize, tile % across * kSize};
  for (int64_t left = across; tile >= left; --left, ++row) tile -= left;
  return {image, part, row * kSize, (row + tile) * kSize};
}

// The mean squared difference of each image's Gram matrix from a target; of symmetric products.
template <class A>
struct GramLoss {
  const A* target;  // (batch, rows, rows), or one for all images
  bool one_target;
  double* row_sums;    // scratch: (batch, rows)
  A *losses, *slopes;  // (batch); (batch, rows, rows): what the features are multiplied by for their gradient
};

// Twins. partial: parts() times results() numbers; out: (batch, rows, columns).
template <class T, class Isa>
void gram_matrix(const GramShape&, const T* x, const T* y, Accum<T>* partial, Accum<T>* out, const Cpu<Isa>&);
template <class T, class Isa>
void gram_loss(const GramShape&, const T* x, Accum<T>* partial, const GramLoss<Accum<T>>&, const Cpu<Isa>&);
template <class T>
void gram_matrix(const GramShape&, const T* x, const T* y, Accum<T>* partial, Accum<T>* out, const CudaExec&);
template <class T>
void gram_loss(const GramShape&, const T* x, Accum<T>* partial, const GramLoss<Accum<T>>&, const CudaExec&);

}  // namespace fastvision
