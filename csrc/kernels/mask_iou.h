// Intersection over union of masks by counting bits. Masks come dense, a byte per pixel, or packed as paste_masks packs
// them: eight pixels to a byte, the first in the lowest bit, rows filled up to whole bytes. Both are first copied into
// words of packed bits, so that each pair costs an eighth of a byte per pixel.
#pragma once

#include "common.h"

namespace fastvision {

struct MaskShape {
  int64_t batch, masks, height, width;  // (batch, masks, height, width) bytes
  bool dense;                           // a byte is a pixel, set if it is not 0; else eight pixels

  FV_HD int64_t row_bytes() const { return dense ? ceil_div(width, int64_t(8)) : width; }
  // Words of a mask: whole cache lines, zeros at the end, so that no loop over words has a rest.
  FV_HD int64_t words() const { return ceil_div(height * row_bytes(), int64_t(64)) * 8; }
};

// Pairs of two sets of packed masks: set a is (batch, rows, words), set b (batch, cols, words); sets stand a_stride and
// b_stride masks apart. Pair (n, r, c) is at (n * rows + r) * stride + c of the counts.
struct MaskPairs {
  int64_t batch, rows, cols, words, a_stride, b_stride, stride;
  int64_t diagonal;  // only pairs with c < r + diagonal are wanted; the counts of others may be anything
};

FV_HD float mask_overlap(uint32_t inter, uint32_t area_a, uint32_t area_b, bool crowd) {
  const double total = crowd ? double(area_a) : double(area_a) + double(area_b) - double(inter);
  return total > 0 ? float(double(inter) / total) : 0.0f;
}

// Twins. order: (batch, masks), which mask of a set goes to each place, or null. words: (batch, masks, words());
// areas: (batch, masks), set pixels.
template <class Isa>
void pack_masks(const MaskShape&, const uint8_t* masks, const int64_t* order, uint64_t* words, uint32_t* areas,
                const Cpu<Isa>&);
void pack_masks(const MaskShape&, const uint8_t* masks, const int64_t* order, uint64_t* words, uint32_t* areas,
                const CudaExec&);
// Pixels that both masks of a pair have.
template <class Isa>
void count_intersections(const MaskPairs&, const uint64_t* a, const uint64_t* b, uint32_t* counts, const Cpu<Isa>&);
void count_intersections(const MaskPairs&, const uint64_t* a, const uint64_t* b, uint32_t* counts, const CudaExec&);
// counts (batch, rows, cols) become mask_overlap in place. crowd: (batch, cols) or null.
template <class Isa>
void mask_overlaps(const MaskPairs&, const uint32_t* areas_a, const uint32_t* areas_b, const bool* crowd, float* counts,
                   const Cpu<Isa>&);
void mask_overlaps(const MaskPairs&, const uint32_t* areas_a, const uint32_t* areas_b, const bool* crowd, float* counts,
                   const CudaExec&);

}  // namespace fastvision
