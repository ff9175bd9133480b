// Rows outside a box are cleared. Inside, two rows of the padded mask are blended once per row of the image; then each
// pixel blends two samples of that row.
#include "paste_masks.h"

#include <algorithm>
#include <vector>

#include "simd_integers.h"

namespace fastvision {

template <class T, class Isa>
void paste_masks(const PasteShape& s, const T* masks, const Accum<T>* boxes, uint8_t* out, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t bytes = s.height * s.row_bytes();
  exec(s.masks, 1 + 65536 / (bytes + 1), [&](int64_t begin, int64_t end) {
    std::vector<A> padded, row, weight;
    std::vector<int32_t> low, high;
    std::vector<uint8_t> pixels;
    for (int64_t n = begin; n < end; ++n) {
      const PasteBox<A> box = load_paste_box(boxes, s, n);
      uint8_t* to = out + n * bytes;
      std::fill_n(to, bytes, uint8_t(0));
      const int64_t across = box.x.end - box.x.begin;
      if (across <= 0 || box.y.end <= box.y.begin) continue;
      for (auto* v : {&low, &high}) v->resize(size_t(across));
      weight.resize(size_t(across));
      // Packed, a row of the box starts and ends within a byte, whose other pixels are 0.
      const int64_t lead = box.x.begin % 8, packed_bytes = ceil_div(lead + across, int64_t(8));
      if (s.packed) pixels.assign(size_t(ceil_div(packed_bytes, int64_t(8)) * 64), 0);
      row.resize(size_t(box.x.size));
      for (int64_t i = 0; i < across; ++i) {
        const auto at = box.x.sample(box.x.begin + i);
        low[i] = int32_t(at.low), high[i] = int32_t(at.high), weight[i] = at.high_weight;
      }
      const T* mask = masks + n * s.mask_height * s.mask_width;
      padded.resize(size_t(box.y.size * box.x.size));
      for (int64_t y = 0; y < box.y.size; ++y)
        for (int64_t x = 0; x < box.x.size; ++x) padded[y * box.x.size + x] = mask_at(mask, s, y, x);
      for (int64_t y = box.y.begin; y < box.y.end; ++y) {
        const auto at = box.y.sample(y);
        const A* above = &padded[at.low * box.x.size];
        const A* below = &padded[at.high * box.x.size];
        for (int64_t x = 0; x < box.x.size; ++x) row[x] = blend(above[x], below[x], at.high_weight);
        uint8_t* line = s.packed ? pixels.data() + lead : to + y * s.width + box.x.begin;
        int64_t i = 0;
        for (; i + kLanes<A> <= across; i += kLanes<A>) {
          const Vec<A> w = Vec<A>::load(&weight[i]);
          const Vec<A> v = blend(gather(row.data(), &low[i]), gather(row.data(), &high[i]), w);
          store_bytes<A>(line + i, (v > Vec<A>(A(s.threshold))).raw & 1, kLanes<A>);
        }
        for (; i < across; ++i) line[i] = blend(row[low[i]], row[high[i]], weight[i]) > A(s.threshold);
        if (!s.packed) continue;
        uint8_t* bytes = to + y * s.row_bytes() + box.x.begin / 8;
        for (int64_t k = 0; k < packed_bytes; k += 8) {
          const uint64_t bits = nonzero_bits(&pixels[8 * k]);
          memcpy(bytes + k, &bits, size_t(min_of(packed_bytes - k, int64_t(8))));
        }
      }
    }
  });
}

#define INSTANTIATE(T) \
  template void paste_masks(const PasteShape&, const T*, const Accum<T>*, uint8_t*, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
