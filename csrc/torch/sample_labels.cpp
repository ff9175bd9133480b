#include "../kernels/sample_labels.h"

#include "binding.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

#if FV_IS != FV_IS_cpu
// The k largest of each row and where they are, largest first.
std::array<Tensor, 2> largest(const Tensor& keys, int64_t k) {
  return call_torch<2>("aten::topk", "", keys, k, int64_t(-1), true, true);
}
#endif

// positives, samples: how many of each row at most, and of both kinds together.
std::tuple<Tensor, Tensor> sample_labels(const Tensor& labels, const Tensor& seed, int64_t positives, int64_t samples) {
  const Check check{"sample_labels"};
  const ScalarType dtype = labels.scalar_type();
  check.dtype(dtype == ScalarType::Long || dtype == ScalarType::Float, "labels", labels, "int64 or float32");
  check.shape(labels.dim() >= 1, "labels", labels, "(..., N)");
  check.dtype(seed.scalar_type() == ScalarType::Long, "seed", seed, "int64");
  check.shape(seed.numel() == 1, "seed", seed, "()");
  check.same_device("seed", seed, "labels", labels);
  check.at_least("positives", positives, 0);
  check.at_least("batch_size", samples, positives);
  const Sizes sizes = labels.sizes().vec();
  const Tensor positive = check.empty(labels, sizes, ScalarType::Bool);
  const Tensor negative = check.empty(labels, sizes, ScalarType::Bool);
  if (labels.numel() == 0) return {positive, negative};
  const Backend backend(labels);
  const Tensor x = dense(labels), start = dense(seed);
  const int64_t n = sizes.back();
  const SampleShape s{x.numel() / n, n, min_of(positives, n), min_of(samples, n)};
  bool *is_positive = mutable_data<bool>(positive), *is_negative = mutable_data<bool>(negative);
  const auto dispatch = [&](auto&& f) { dtype == ScalarType::Long ? f(int64_t{}) : f(float{}); };
#if FV_IS == FV_IS_cpu
  dispatch([&](auto l) {
    using L = decltype(l);
    backend.run([&](const auto& exec) {
      fastvision::sample_labels<L>(s, data<L>(x), data<int64_t>(start), is_positive, is_negative, exec);
    });
  });
#else
  const Tensor keys = check.empty(x, {2, s.rows, n}, ScalarType::Long);
  dispatch([&](auto l) {
    using L = decltype(l);
    backend.run([&](const auto& exec) {
      sample_keys<L>(s, data<L>(x), data<int64_t>(start), mutable_data<int64_t>(keys), is_positive, is_negative, exec);
    });
  });
  const auto best = largest(torch::stable::select(keys, 0, 0), s.most_positive);
  const auto others = largest(torch::stable::select(keys, 0, 1), s.samples);
  backend.run([&](const auto& exec) {
    mark_samples(s, {data<int64_t>(best[0]), data<int64_t>(best[1])},
                 {data<int64_t>(others[0]), data<int64_t>(others[1])}, is_positive, is_negative, exec);
  });
#endif
  return {positive, negative};
}

}  // namespace

FV_OPS(m) { m.impl("sample_labels", TORCH_BOX(&sample_labels)); }

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
