// Sorting by score on the host: descending, ties in order of index. Linear time, so that sorting never dominates.
#pragma once

#include <array>
#include <vector>

#include "common.h"

namespace fastvision {

// Unsigned keys that sort ascending as the values sort descending. -0.0 and 0.0 are one value.
inline uint32_t descending_key(float v) {
  const uint32_t u = bit_cast<uint32_t>(v == 0.0f ? 0.0f : v);
  return u & 0x80000000u ? u : ~u & 0x7fffffffu;
}
inline uint64_t descending_key(double v) {
  const uint64_t u = bit_cast<uint64_t>(v == 0.0 ? 0.0 : v);
  return u >> 63 ? u : ~u & 0x7fffffffffffffffull;
}

template <class Key>
struct Keyed {
  Key key;
  uint32_t index;
};

// Stable, least significant byte first; bytes that all keys share cost one pass of counting and no move.
template <class Key>
void sort_by_key(std::vector<Keyed<Key>>& items, std::vector<Keyed<Key>>& spare) {
  constexpr int kBytes = sizeof(Key);
  if (items.size() < 2) return;
  std::vector<std::array<uint32_t, 256>> counts(kBytes);
  for (auto& c : counts) c.fill(0);
  for (const auto& item : items)
    for (int b = 0; b < kBytes; ++b) ++counts[b][item.key >> 8 * b & 255];
  spare.resize(items.size());
  for (int b = 0; b < kBytes; ++b) {
    auto& count = counts[b];
    if (count[items[0].key >> 8 * b & 255] == items.size()) continue;
    uint32_t before = 0;
    for (auto& c : count) {
      const uint32_t here = c;
      c = before;
      before += here;
    }
    for (const auto& item : items) spare[count[item.key >> 8 * b & 255]++] = item;
    items.swap(spare);
  }
}

}  // namespace fastvision
