#include "../kernels/box_coder.h"

#include "binding.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {
namespace {

BoxCoderShape checked_shape(const Check& check, const Tensor& reference, const Tensor& boxes,
                            const std::vector<double>& weights, double clip,
                            const std::optional<std::vector<double>>& image_size) {
  const char* expected = "that of reference, or (..., C, 4) with C boxes for each reference";
  check.floats("reference", reference);
  check.same_dtype("boxes", boxes, "reference", reference);
  check.same_device("boxes", boxes, "reference", reference);
  check.shape(reference.dim() >= 1 && reference.size(-1) == 4, "reference", reference, "(..., 4)");
  const int64_t extra = boxes.dim() - reference.dim();
  check.shape((extra == 0 || extra == 1) && boxes.size(-1) == 4, "boxes", boxes, expected);
  BoxCoderShape s{1, extra ? boxes.size(-2) : 1, {}, clip, image_size.has_value(), 0, 0};
  for (int64_t d = 0; d < reference.dim() - 1; ++d) {
    check.shape(boxes.size(d) == reference.size(d), "boxes", boxes, expected);
    s.references *= reference.size(d);
  }
  check.that(weights.size() == 4, "weights: expected 4 numbers, got ", weights.size());
  for (int i = 0; i < 4; ++i) {
    check.finite_positive("weights", weights[i]);
    s.weight[i] = weights[i];
  }
  check.that(!std::isnan(clip), "clip: expected a number, got ", clip);
  if (image_size) {
    check.that(image_size->size() == 2, "image_size: expected (height, width), got ", image_size->size(), " numbers");
    s.image_height = (*image_size)[0];
    s.image_width = (*image_size)[1];
    check.that(s.image_height >= 0 && s.image_width >= 0, "image_size: expected numbers >= 0, got (", s.image_height,
               ", ", s.image_width, ")");
  }
  return s;
}

template <Coding kCoding>
Tensor forward(const Check& check, const BoxCoderShape& s, const Tensor& reference, const Tensor& boxes) {
  const Backend backend(reference);
  const Tensor r = dense(reference), b = dense(boxes), out = check.empty(boxes, boxes.sizes().vec());
  dispatch_floats(r, [&](auto t) {
    using T = decltype(t);
    backend.run(
        [&](const auto& exec) { code_boxes<kCoding, T>(s, data<T>(r), data<T>(b), mutable_data<T>(out), exec); });
  });
  return out;
}

template <Coding kCoding>
std::tuple<Tensor, Tensor> backward(const Check& check, const BoxCoderShape& s, const Tensor& grad,
                                    const Tensor& reference, const Tensor& boxes) {
  check.same_dtype("grad", grad, "reference", reference);
  check.same_device("grad", grad, "reference", reference);
  check.shape(grad.sizes().vec() == boxes.sizes().vec(), "grad", grad, "the shape of boxes");
  const Backend backend(reference);
  const Tensor g = dense(grad), r = dense(reference), b = dense(boxes);
  const Tensor grad_reference = check.empty(reference, reference.sizes().vec());
  const Tensor grad_boxes = check.empty(boxes, boxes.sizes().vec());
  dispatch_floats(r, [&](auto t) {
    using T = decltype(t);
    backend.run([&](const auto& exec) {
      code_boxes_backward<kCoding, T>(s, data<T>(g), data<T>(r), data<T>(b), mutable_data<T>(grad_reference),
                                      mutable_data<T>(grad_boxes), exec);
    });
  });
  return {grad_reference, grad_boxes};
}

Tensor encode_boxes(const Tensor& reference, const Tensor& boxes, const std::vector<double>& weights) {
  const Check check{"encode_boxes"};
  return forward<Coding::encode>(check, checked_shape(check, reference, boxes, weights, 0, std::nullopt), reference,
                                 boxes);
}
std::tuple<Tensor, Tensor> encode_boxes_backward(const Tensor& grad, const Tensor& reference, const Tensor& boxes,
                                                 const std::vector<double>& weights) {
  const Check check{"encode_boxes_backward"};
  return backward<Coding::encode>(check, checked_shape(check, reference, boxes, weights, 0, std::nullopt), grad,
                                  reference, boxes);
}
Tensor decode_boxes(const Tensor& reference, const Tensor& codes, const std::vector<double>& weights, double clip,
                    const std::optional<std::vector<double>>& image_size) {
  const Check check{"decode_boxes"};
  return forward<Coding::decode>(check, checked_shape(check, reference, codes, weights, clip, image_size), reference,
                                 codes);
}
std::tuple<Tensor, Tensor> decode_boxes_backward(const Tensor& grad, const Tensor& reference, const Tensor& codes,
                                                 const std::vector<double>& weights, double clip,
                                                 const std::optional<std::vector<double>>& image_size) {
  const Check check{"decode_boxes_backward"};
  return backward<Coding::decode>(check, checked_shape(check, reference, codes, weights, clip, image_size), grad,
                                  reference, codes);
}

}  // namespace

FV_OPS(m) {
  m.impl("encode_boxes", TORCH_BOX(&encode_boxes));
  m.impl("encode_boxes_backward", TORCH_BOX(&encode_boxes_backward));
  m.impl("decode_boxes", TORCH_BOX(&decode_boxes));
  m.impl("decode_boxes_backward", TORCH_BOX(&decode_boxes_backward));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
