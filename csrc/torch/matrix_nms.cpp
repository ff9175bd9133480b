#include "../kernels/matrix_nms.h"

#include "mask_bits.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

Tensor matrix_nms(const Tensor& items, const Tensor& scores_in, const std::optional<Tensor>& groups_in, int64_t kernel,
                  double sigma) {
  const Check check{"matrix_nms"};
  const bool are_masks = items.scalar_type() == ScalarType::Bool || items.scalar_type() == ScalarType::Byte;
  MaskShape masks{};
  check.floats("scores", scores_in);
  if (are_masks) {
    masks = checked_masks(check, "masks", items);
  } else {
    check.floats("boxes", items);
    check.shape(items.dim() >= 2 && items.size(-1) == 4, "boxes", items, "(..., N, 4)");
    check.same_dtype("scores", scores_in, "boxes", items);
  }
  const Sizes sizes(items.sizes().begin(), items.sizes().end() - (are_masks ? 2 : 1));
  const auto of_items = [&](const char* name, const Tensor& t) {
    check.that(t.sizes().vec() == sizes, name, ": expected one per box or mask, got shape ", shape_of(t), " for ",
               shape_of(items));
    check.same_device(name, t, are_masks ? "masks" : "boxes", items);
  };
  of_items("scores", scores_in);
  if (groups_in) {
    check.dtype(groups_in->scalar_type() == ScalarType::Long, "idxs", *groups_in, "int64");
    of_items("idxs", *groups_in);
  }
  check.that(kernel == 0 || kernel == 1, "kernel: expected 0 or 1, got ", kernel);
  check.finite_positive("sigma", sigma);
  int64_t batch = 1;
  for (size_t d = 0; d + 1 < sizes.size(); ++d) batch *= sizes[d];
  const MatrixNmsShape s{batch, sizes.back(), MatrixNmsKernel(kernel), sigma};

  const Backend backend(items);
  const Tensor scores = dense(scores_in), out = check.empty(scores, sizes);
  Tensor order = sort(scores, true)[1];
  std::optional<Tensor> groups;
  if (groups_in) {
    const auto [names, ranks] = sort(gather_last(*groups_in, order), false);
    groups = names;
    order = gather_last(order, ranks);
  }
  std::optional<PackedMasks> packed;
  std::optional<Tensor> boxes;
  if (are_masks) packed.emplace(check, backend, masks, items, data<int64_t>(order));
  else boxes = dense(items);
  dispatch_floats(scores, [&](auto t) {
    using T = decltype(t);
    const MatrixNmsArguments<T> a{data<T>(boxes),
                                  packed ? data<uint64_t>(packed->words) : nullptr,
                                  packed ? data<uint32_t>(packed->areas) : nullptr,
                                  packed ? masks.words() : 0,
                                  data<T>(scores),
                                  data<int64_t>(order),
                                  data<int64_t>(groups),
                                  mutable_data<T>(out)};
#if FV_IS == FV_IS_cpu
    backend.run([&](const auto& exec) { matrix_nms<T>(s, a, exec); });
#else
    constexpr int64_t kOverlaps = int64_t(1) << 22;
    const int64_t chunk = max_of(min_of(kOverlaps / (batch * s.items + 1), s.items), min_of(s.items, int64_t(32)));
    const Tensor overlaps = check.empty(scores, {batch, chunk, s.items}), compensation = check.empty(scores, sizes);
    std::optional<Tensor> intersections;
    if (are_masks) intersections = check.empty(scores, {batch, chunk, s.items}, ScalarType::Int);
    const MatrixNmsScratch<T> scratch{chunk, intersections ? mutable_data<uint32_t>(*intersections) : nullptr,
                                      mutable_data<T>(overlaps), mutable_data<T>(compensation)};
    backend.run([&](const auto& exec) { matrix_nms<T>(s, a, scratch, exec); });
#endif
  });
  return out;
}

}  // namespace

FV_OPS(m) { m.impl("matrix_nms", TORCH_BOX(&matrix_nms)); }

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
