#include "grid_anchors.h"

namespace fastvision {

template <class T, class Isa>
void grid_anchors(const AnchorLevels& levels, T* out, const Cpu<Isa>& exec) {
  // The anchors of one cell are worked out once per level; every other cell is a shift of it.
  for (int l = 0; l < levels.count; ++l) {
    const AnchorLevel& level = levels.level[l];
    Box<T> base[kMaxAnchorKinds * kMaxAnchorKinds];
    for (int64_t k = 0; k < level.per_cell(); ++k) base[k] = anchor_of_kind<T>(level, k);
    exec(level.rows, 1 + 2048 / (level.columns * level.per_cell() + 1), [&](int64_t begin, int64_t end) {
      T* to = out + 4 * (level.before + begin * level.columns * level.per_cell());
      for (int64_t row = begin; row < end; ++row)
        for (int64_t column = 0; column < level.columns; ++column)
          for (int64_t k = 0; k < level.per_cell(); ++k, to += 4)
            store_box(to, shift_to_cell(base[k], level, row, column, levels.offset));
    });
  }
}

#define INSTANTIATE(T) template void grid_anchors(const AnchorLevels&, T*, const CpuExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
