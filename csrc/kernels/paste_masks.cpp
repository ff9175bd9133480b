// Rows outside a box are cleared. Inside, the two rows of the mask are blended once per row of the image; then each pixel
// blends two samples of that row.
#include "paste_masks.h"

#include <vector>

#include "simd.h"

namespace fastvision {

template <class T, class Isa>
void paste_masks(const PasteShape& s, const T* masks, const Accum<T>* boxes, uint8_t* out, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t bytes = s.height * s.row_bytes();
  exec(s.masks, 1 + 65536 / (bytes + 1), [&](int64_t begin, int64_t end) {
    std::vector<A> row, weight;
    std::vector<int32_t> low, high;
    std::vector<uint8_t> pixels;
    for (int64_t n = begin; n < end; ++n) {
      const PasteBox<A> box = load_paste_box(boxes, s, n);
      uint8_t* to = out + n * bytes;
      memset(to, 0, size_t(bytes));
      const int64_t across = box.x.end - box.x.begin;
      if (across <= 0 || box.y.end <= box.y.begin) continue;
      for (auto* v : {&low, &high}) v->resize(size_t(across));
      weight.resize(size_t(across));
      pixels.resize(size_t(across));
      row.resize(size_t(box.x.size));
      for (int64_t i = 0; i < across; ++i) {
        const auto at = box.x.sample(box.x.begin + i);
        low[i] = int32_t(at.low), high[i] = int32_t(at.high), weight[i] = at.high_weight;
      }
      const T* mask = masks + n * s.mask_height * s.mask_width;
      for (int64_t y = box.y.begin; y < box.y.end; ++y) {
        const auto at = box.y.sample(y);
        for (int64_t x = 0; x < box.x.size; ++x)
          row[x] = blend(mask_at(mask, s, at.low, x), mask_at(mask, s, at.high, x), at.high_weight);
        uint8_t* line = s.packed ? pixels.data() : to + y * s.width + box.x.begin;
        for (int64_t i = 0; i < across; ++i)
          line[i] = blend(row[low[i]], row[high[i]], weight[i]) > A(s.threshold);
        if (s.packed)
          for (int64_t i = 0; i < across; ++i) {
            const int64_t x = box.x.begin + i;
            to[y * s.row_bytes() + x / 8] |= uint8_t(line[i] << x % 8);
          }
      }
    }
  });
}

#define INSTANTIATE(T) template void paste_masks(const PasteShape&, const T*, const Accum<T>*, uint8_t*, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
