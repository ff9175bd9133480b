// Boxes put together by group, on the host.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace fastvision {

// Group k has the members offsets[k] to offsets[k + 1]: places in [0, n), ascending within a group. index_at(place) is
// where groups holds the name of its group; without groups there is one.
struct Grouping {
  std::vector<uint32_t> offsets, members;

  template <class F>
  Grouping(size_t n, F&& index_at, const int64_t* groups) {
    members.resize(n);
    std::vector<uint32_t> group_of(n);
    uint32_t group_count = groups ? 0 : 1;
    if (groups) {
      std::unordered_map<int64_t, uint32_t> seen;
      int64_t previous = 0;
      uint32_t previous_id = 0;
      for (size_t p = 0; p < n; ++p) {
        const int64_t name = groups[index_at(p)];
        if (p == 0 || name != previous) {
          previous = name;
          previous_id = seen.emplace(name, uint32_t(seen.size())).first->second;
        }
        group_of[p] = previous_id;
      }
      group_count = uint32_t(seen.size());
    }
    offsets.assign(group_count + 1, 0);
    for (const uint32_t id : group_of) ++offsets[id + 1];
    for (uint32_t id = 0; id < group_count; ++id) offsets[id + 1] += offsets[id];
    std::vector<uint32_t> next(offsets.begin(), offsets.end() - 1);
    for (size_t p = 0; p < n; ++p) members[next[group_of[p]]++] = uint32_t(p);
  }
};

}  // namespace fastvision
