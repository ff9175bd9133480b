#include "../kernels/top_scores.h"

#include "binding.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

Tensor top_scores(const Tensor& scores, int64_t k, double threshold) {
  const Check check{"top_scores"};
  check.all_floats("scores", scores);
  check.shape(scores.dim() >= 1, "scores", scores, "(..., N)");
  Sizes sizes = scores.sizes().vec();
  const int64_t n = sizes.back();
  check.that(k >= 0 && k <= n, "k: expected an integer in 0..", n, ", got ", k);
  check.that(n < int64_t(1) << 32, "scores: expected fewer than 2**32 in a row, got ", n);
  if (threshold != -INFINITY) check.finite("threshold", threshold);
  sizes.back() = k;
  const Tensor top = check.empty(scores, sizes, ScalarType::Long);
  if (top.numel() == 0) return top;
  const Backend backend(scores);
  const Tensor x = dense(scores);
  const TopScoresShape s{x.numel() / n, n, k, threshold};
#if FV_IS == FV_IS_cpu
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) { fastvision::top_scores<T>(s, data<T>(x), mutable_data<int64_t>(top), exec); });
  });
  return top;
#else
  const bool wide = x.scalar_type() == ScalarType::Double;
  const Tensor keys = check.empty(x, x.sizes().vec(), wide ? ScalarType::Double : ScalarType::Long);
  dispatch_all_floats(x, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) { score_keys<T>(s, data<T>(x), mutable_data<ScoreKey<T>>(keys), exec); });
  });
  if (wide) return dense(torch::stable::narrow(sort(keys, true)[1], -1, 0, k));
  return call_torch<2>("aten::topk", "", keys, k, int64_t(-1), true, true)[1];
#endif
}

}  // namespace

FV_OPS(m) { m.impl("top_scores", TORCH_BOX(&top_scores)); }

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
