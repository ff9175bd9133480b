#include "../kernels/grid_anchors.h"

#include "binding.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

constexpr size_t kPerLevel = 6;  // rows, columns, vertical and horizontal stride, number of sizes and of ratios

Tensor grid_anchors(const Tensor& like, const std::vector<int64_t>& layout, const std::vector<double>& sizes,
                    const std::vector<double>& ratios, double offset) {
  const Check check{"grid_anchors"};
  check.floats("dtype", like);
  check.finite("offset", offset);
  check.that(layout.size() % kPerLevel == 0 && layout.size() / kPerLevel <= kMaxAnchorLevels,
             "grid_sizes: expected at most ", kMaxAnchorLevels, " levels, got ", layout.size() / kPerLevel);
  AnchorLevels levels{};
  levels.count = int(layout.size() / kPerLevel);
  levels.offset = offset;
  size_t next_size = 0, next_ratio = 0;
  int64_t total = 0;
  for (int l = 0; l < levels.count; ++l) {
    AnchorLevel& level = levels.level[l];
    const int64_t* p = &layout[size_t(l) * kPerLevel];
    level.rows = p[0], level.columns = p[1], level.stride_y = p[2], level.stride_x = p[3], level.before = total;
    level.sizes = p[4], level.ratios = p[5];
    check.at_least("grid_sizes", min_of(level.rows, level.columns), 0);
    check.at_least("strides", min_of(level.stride_y, level.stride_x), 1);
    const auto take = [&](const char* name, int64_t count, const std::vector<double>& from, size_t& next, double* to) {
      check.that(count >= 1 && count <= kMaxAnchorKinds && next + size_t(count) <= from.size(), name,
                 ": expected 1 to ", kMaxAnchorKinds, " per level, got ", count);
      for (int64_t k = 0; k < count; ++k) {
        check.finite_positive(name, from[next]);
        to[k] = from[next++];
      }
    };
    take("sizes", level.sizes, sizes, next_size, level.side);
    take("aspect_ratios", level.ratios, ratios, next_ratio, level.ratio);
    int64_t count = level.per_cell();
    const bool overflow = __builtin_mul_overflow(count, level.rows, &count) ||
                          __builtin_mul_overflow(count, level.columns, &count) ||
                          __builtin_add_overflow(total, count, &total);
    check.that(!overflow, "grid_sizes: expected fewer than 2**63 anchors, got more");
  }
  const Backend backend(like);
  const Tensor out = check.empty(like, {total, 4});
  dispatch_floats(like, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) { fastvision::grid_anchors<T>(levels, mutable_data<T>(out), exec); });
  });
  return out;
}

}  // namespace

FV_OPS(m) { m.impl("grid_anchors", TORCH_BOX(&grid_anchors)); }

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
