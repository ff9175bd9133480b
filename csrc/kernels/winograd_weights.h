// CPU: what Winograd's algorithm multiplies tiles by (see winograd.h).
#pragma once

#include <algorithm>
#include <vector>

#include "product.h"
#include "winograd_shape.h"

namespace fastvision {
namespace {

template <class T>
class WinogradWeights {
  using V = Vec<float>;
  using Tile = WinogradTileOf<T>;
  static constexpr int64_t kLanes = V::kLanes, kColumns = kPanel<float>, kTaps = 9;
  static constexpr int64_t kTogether = 16;  // channels of the source: their taps stay in the first cache

 public:
  WinogradWeights(const UnitStrideShape& shape, const T* weight) : s(shape), weight(weight) {}

  // Of channels [begin, end) of the source and a panel of channels of the result: to[part][channel][column]. `by_part`
  // numbers from one part to the next.
  void transform(int64_t panel, int64_t begin, int64_t end, float* to, int64_t by_part) const {
    float turned[kTogether * kTaps * kLanes];
    for (int64_t first = begin; first < end; first += kTogether) {
      const int64_t channels = min_of(kTogether, end - first);
      for (int64_t v = 0; v < min_of(kColumns, s.to.channels - panel * kColumns); v += kLanes) {
        turn(panel * kColumns + v, first, channels, turned);
        for (int64_t c = 0; c < channels; ++c)
          transform_taps(turned + c * kTaps * kLanes, to + (first - begin + c) * kColumns + v, by_part);
      }
    }
  }

  // As they are: [tap][panel][channel of the source][column].
  std::vector<float> direct() const {
    const int64_t depth = s.from.channels, panels = ceil_div(s.to.channels, kColumns);
    std::vector<float> to(size_t(kTaps * panels * depth * kColumns));
    float turned[kTaps * kLanes];
    for (int64_t k = 0; k < panels * depth; ++k)
      for (int64_t v = 0; v < min_of(kColumns, s.to.channels - k / depth * kColumns); v += kLanes) {
        turn(k / depth * kColumns + v, k % depth, 1, turned);
        for (int64_t i = 0; i < kTaps; ++i)
          std::copy_n(turned + tap(i) * kLanes, kLanes, to.data() + (i * panels * depth + k) * kColumns + v);
      }
    return to;
  }

 private:
  int64_t tap(int64_t i) const { return s.flipped ? kTaps - 1 - i : i; }

  // Taps of kLanes channels of the result from channel o, and `channels` of the source from channel c: [channel][tap]
  // [channel of the result], 0 where there are no more.
  void turn(int64_t o, int64_t c, int64_t channels, float* to) const {
    const int64_t lanes = min_of(kLanes, s.to.channels - o), step = s.weight_by_source == kTaps ? channels : 1;
    if (lanes < kLanes) std::fill_n(to, channels * kTaps * kLanes, 0.0f);
    for (int64_t k = 0; k < channels; k += step)
      transpose(weight + o * s.weight_by_result + (c + k) * s.weight_by_source, s.weight_by_result, lanes, kTaps * step,
                to + k * kTaps * kLanes, kLanes);
  }
  FV_HD void transform_taps(const float* turned, float* to, int64_t by_part) const {
    V taps[kTaps], middle[Tile::kSource * 3], parts[Tile::kParts];
    for (int i = 0; i < kTaps; ++i) taps[i] = load_vector(turned + tap(i) * kLanes);
    for (int i = 0; i < 3; ++i) Tile::of_weight(taps[i], taps[3 + i], taps[6 + i], middle + i, 3);
    for (int i = 0; i < Tile::kSource; ++i)
      Tile::of_weight(middle[3 * i], middle[3 * i + 1], middle[3 * i + 2], parts + Tile::kSource * i, 1);
    for (int i = 0; i < Tile::kParts; ++i) store_vector(to + i * by_part, parts[i]);
  }

  const UnitStrideShape s;
  const T* const weight;
};

}  // namespace
}  // namespace fastvision
