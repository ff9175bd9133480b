// A thread makes 16 neighbouring bytes of the output, whatever rows they lie in, and stores them at once; masks are
// read through the caches. Bound by the bytes written: one per pixel, or an eighth of that packed.
#include "cuda.cuh"
#include "paste_masks.h"

namespace fastvision {
namespace {

constexpr int kBytes = 16;

template <class T>
__device__ bool pixel_of(const PasteShape& s, const T* mask, const PasteBox<Accum<T>>& box,
                         const typename PasteAxis<Accum<T>>::Sample& row, int64_t x) {
  using A = Accum<T>;
  if (x < box.x.begin || x >= box.x.end) return false;
  const auto column = box.x.sample(x);
  const A low = blend(mask_at(mask, s, row.low, column.low), mask_at(mask, s, row.high, column.low), row.high_weight);
  const A high =
      blend(mask_at(mask, s, row.low, column.high), mask_at(mask, s, row.high, column.high), row.high_weight);
  return blend(low, high, column.high_weight) > A(s.threshold);
}

template <class T>
__global__ void __launch_bounds__(kThreads, 2)
    paste_kernel(PasteShape s, const T* __restrict__ masks, const Accum<T>* __restrict__ boxes,
                 uint8_t* __restrict__ out) {
  using A = Accum<T>;
  const int64_t row_bytes = s.row_bytes(), total = s.masks * s.height * row_bytes;
  FV_FOR(group, ceil_div(total, int64_t(kBytes))) {
    const int64_t at = group * kBytes;
    int64_t line = at / row_bytes, column = at % row_bytes;
    PasteBox<A> box = load_paste_box(boxes, s, line / s.height);
    auto row = box.y.sample(line % s.height);
    Pack<uint64_t, 2> words{};
    FV_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int64_t left = total - at - 8 * half;
      for (int k = 0; k < 8 && k < left; ++k) {
        const int64_t y = line % s.height;
        if (y >= box.y.begin && y < box.y.end) {
          const T* mask = masks + line / s.height * s.mask_height * s.mask_width;
          uint64_t byte = 0;
          if (!s.packed) byte = pixel_of(s, mask, box, row, column);
          else
            for (int bit = 0; bit < 8; ++bit) byte |= uint64_t(pixel_of(s, mask, box, row, column * 8 + bit)) << bit;
          words.at[half] |= byte << 8 * k;
        }
        if (++column == row_bytes && k + 1 < left) {
          column = 0;
          ++line;
          box = load_paste_box(boxes, s, line / s.height);
          row = box.y.sample(line % s.height);
        }
      }
    }
    if (at + kBytes <= total) {
      store_pack(reinterpret_cast<uint64_t*>(out + at), words);
      continue;
    }
    FV_UNROLL
    for (int half = 0; half < 2; ++half)
      for (int64_t k = at + 8 * half; k < min_of(total, at + 8 * half + 8); ++k, words.at[half] >>= 8)
        out[k] = uint8_t(words.at[half]);
  }
}

}  // namespace

template <class T>
void paste_masks(const PasteShape& s, const T* masks, const Accum<T>* boxes, uint8_t* out, const CudaExec& exec) {
  const int64_t total = s.masks * s.height * s.row_bytes();
  if (total > 0)
    launch(exec, paste_kernel<T>, grid_for(ceil_div(total, int64_t(kBytes))), kThreads, 0, s, masks, boxes, out);
}

#define INSTANTIATE(T) \
  template void paste_masks(const PasteShape&, const T*, const Accum<T>*, uint8_t*, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
