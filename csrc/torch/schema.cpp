// Every op that torch sees: the table of contents of the C++ side. Compiled once per library, with FV_LIBRARY.
// Arguments are checked in the bindings; docstrings, gradients and fake kernels are in python/fastvision/ops.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(FV_LIBRARY, m) {
  // kind: 0 plain, 1 generalized, 2 distance, 3 complete
  m.def("box_iou(Tensor boxes1, Tensor boxes2, int kind, bool aligned, float eps) -> Tensor");
  m.def(
      "box_iou_backward(Tensor grad, Tensor boxes1, Tensor boxes2, int kind, bool aligned, float eps)"
      " -> (Tensor, Tensor)");

  // boxes: (..., 5) = centre x, centre y, width, height, angle. degrees: or radians. clockwise: as seen in an image.
  m.def("box_iou_rotated(Tensor boxes1, Tensor boxes2, bool aligned, bool degrees, bool clockwise) -> Tensor");
  m.def(
      "box_iou_rotated_backward(Tensor grad, Tensor boxes1, Tensor boxes2, bool aligned, bool degrees, bool clockwise)"
      " -> (Tensor, Tensor)");

  // groups: int64, boxes of different groups do not suppress each other. score_threshold: -inf for none.
  m.def(
      "nms(Tensor boxes, Tensor scores, Tensor? groups, float iou_threshold, float score_threshold,"
      " SymInt? max_output) -> Tensor");
  m.def(
      "nms_padded(Tensor boxes, Tensor scores, Tensor? groups, Tensor? valid, float iou_threshold,"
      " float score_threshold, SymInt max_output) -> (Tensor keep, Tensor count)");
  // Indices of the k largest of each row that are above the threshold, ties by index, then of the others.
  m.def("top_scores(Tensor scores, SymInt k, float threshold) -> Tensor");
  // method: 0 gaussian, 1 linear, 2 naive
  m.def(
      "soft_nms(Tensor boxes, Tensor scores, Tensor? groups, int method, float iou_threshold, float sigma,"
      " float score_threshold, SymInt? max_output) -> (Tensor keep, Tensor kept_scores)");
  m.def(
      "soft_nms_padded(Tensor boxes, Tensor scores, Tensor? groups, Tensor? valid, int method, float iou_threshold,"
      " float sigma, float score_threshold, SymInt max_output) -> (Tensor keep, Tensor kept_scores, Tensor count)");

  m.def(
      "nms_rotated(Tensor boxes, Tensor scores, Tensor? groups, float iou_threshold, bool degrees, bool clockwise,"
      " SymInt? max_output) -> Tensor");

  // rois: (K, 5) = image index, x1, y1, x2, y2; float32, or float64 with float64 features. Image indices out of range
  // are an error on the CPU and a zero row on CUDA.
  m.def(
      "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt out_h, SymInt out_w, int sampling_ratio,"
      " bool aligned) -> Tensor");
  m.def(
      "roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, int sampling_ratio, bool aligned, SymInt n,"
      " SymInt h, SymInt w, bool channels_last) -> Tensor");
  m.def(
      "roi_align_max(Tensor input, Tensor rois, float spatial_scale, SymInt out_h, SymInt out_w, int sampling_ratio,"
      " bool aligned, bool with_argmax) -> (Tensor output, Tensor argmax)");
  m.def(
      "roi_align_max_backward(Tensor grad, Tensor rois, Tensor argmax, float spatial_scale, int sampling_ratio,"
      " bool aligned, SymInt n, SymInt h, SymInt w, bool channels_last) -> Tensor");
  m.def(
      "multiscale_roi_align(Tensor[] features, Tensor rois, Tensor? levels, float[] scales, float canonical_scale,"
      " int canonical_level, SymInt out_h, SymInt out_w, int sampling_ratio, bool aligned) -> Tensor");
  m.def(
      "multiscale_roi_align_backward(Tensor grad, Tensor rois, Tensor? levels, float[] scales, float canonical_scale,"
      " int canonical_level, int sampling_ratio, bool aligned, SymInt n, SymInt[] heights, SymInt[] widths,"
      " bool channels_last) -> Tensor[]");

  m.def(
      "roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt out_h, SymInt out_w, bool with_argmax)"
      " -> (Tensor output, Tensor argmax)");
  m.def(
      "roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float spatial_scale, SymInt n, SymInt h, SymInt w,"
      " bool channels_last) -> Tensor");

  m.def(
      "ps_roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt out_h, SymInt out_w, int sampling_ratio)"
      " -> Tensor");
  m.def(
      "ps_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, int sampling_ratio, SymInt n, SymInt h,"
      " SymInt w, bool channels_last) -> Tensor");
  m.def(
      "ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt out_h, SymInt out_w, bool legacy_border)"
      " -> Tensor");
  m.def(
      "ps_roi_pool_backward(Tensor grad, Tensor rois, float spatial_scale, bool legacy_border, SymInt n, SymInt h,"
      " SymInt w, bool channels_last) -> Tensor");
  // rois: (K, 6) = image index, centre x, centre y, width, height, angle; otherwise as in roi_align.
  m.def(
      "roi_align_rotated(Tensor input, Tensor rois, float spatial_scale, SymInt out_h, SymInt out_w,"
      " int sampling_ratio, bool aligned, bool degrees, bool clockwise) -> Tensor");
  m.def(
      "roi_align_rotated_backward(Tensor grad, Tensor rois, float spatial_scale, int sampling_ratio, bool aligned,"
      " bool degrees, bool clockwise, SymInt n, SymInt h, SymInt w, bool channels_last) -> Tensor");

  // positives, samples: of each row at most, and of both kinds together.
  m.def(
      "sample_labels(Tensor labels, Tensor seed, SymInt positives, SymInt samples)"
      " -> (Tensor positive, Tensor negative)");

  // Formats: 0 corners, 1 corner and sides, 2 centre and sides.
  m.def("box_convert(Tensor boxes, int in_format, int out_format) -> Tensor");
  m.def("box_area(Tensor boxes, int format) -> Tensor");

  // reference: (..., 4); boxes: the same shape, or (..., C, 4) with C boxes per reference. weights: 4.
  m.def("encode_boxes(Tensor reference, Tensor boxes, float[] weights) -> Tensor");
  m.def("encode_boxes_backward(Tensor grad, Tensor reference, Tensor boxes, float[] weights) -> (Tensor, Tensor)");
  m.def("decode_boxes(Tensor reference, Tensor codes, float[] weights, float clip, float[]? image_size) -> Tensor");
  m.def(
      "decode_boxes_backward(Tensor grad, Tensor reference, Tensor codes, float[] weights, float clip,"
      " float[]? image_size) -> (Tensor, Tensor)");
  // layout: per level rows, columns, vertical and horizontal stride, number of sizes and of ratios. sizes, ratios: of
  // all levels in turn.
  m.def("grid_anchors(Tensor like, SymInt[] layout, float[] sizes, float[] ratios, float offset) -> Tensor");
  m.def(
      "match_boxes(Tensor truth, Tensor boxes, Tensor? valid, float high, float low, bool allow_low_quality)"
      " -> (Tensor match, Tensor overlap)");
  m.def(
      "paste_masks(Tensor masks, Tensor boxes, SymInt height, SymInt width, float threshold, int padding, bool packed)"
      " -> Tensor");

  // masks: bool (..., N, H, W), or uint8 (..., N, H, ceil(W / 8)) with eight pixels to a byte. crowd: bool (..., M).
  m.def("mask_iou(Tensor masks1, Tensor masks2, Tensor? crowd) -> Tensor");
  // items: boxes (..., N, 4), or masks as for mask_iou. kernel: 0 gaussian, 1 linear
  m.def("matrix_nms(Tensor items, Tensor scores, Tensor? groups, int kernel, float sigma) -> Tensor");

  // Losses. reduction: 0 none, 1 mean, 2 sum; counted: what mean divides by, empty
  // without a reduction; with_gradient: also of the reduced loss.
  // targets: in the dtype of inputs, or int64 labels with one dimension less. alpha: -1 for none.
  m.def(
      "sigmoid_focal_loss(Tensor inputs, Tensor targets, Tensor? weight, float alpha, float gamma, int? ignore_index,"
      " int reduction, bool with_gradient) -> (Tensor loss, Tensor counted, Tensor gradient)");
  m.def(
      "sigmoid_focal_loss_backward(Tensor grad, Tensor counted, Tensor inputs, Tensor targets, Tensor? weight,"
      " float alpha, float gamma, int? ignore_index, int reduction) -> Tensor");
  // states: three numbers per pixel for the backward pass, if with_gradient.
  m.def(
      "softmax_focal_loss(Tensor logits, Tensor labels, Tensor? weight, float alpha, float gamma, int ignore_index,"
      " int reduction, bool with_gradient) -> (Tensor loss, Tensor counted, Tensor states)");
  m.def(
      "softmax_focal_loss_backward(Tensor grad, Tensor counted, Tensor states, Tensor logits, Tensor labels,"
      " int ignore_index, int reduction) -> Tensor");
  // kind: 1 generalized, 2 distance, 3 complete. with_gradient: also of the reduced loss, for boxes1 and boxes2.
  m.def(
      "box_iou_loss(Tensor boxes1, Tensor boxes2, int kind, float eps, int reduction, bool with_gradient1,"
      " bool with_gradient2) -> (Tensor loss, Tensor gradient1, Tensor gradient2)");
  m.def(
      "box_iou_loss_backward(Tensor grad, Tensor boxes1, Tensor boxes2, int kind, float eps, int reduction,"
      " bool with_gradient1, bool with_gradient2) -> (Tensor, Tensor)");
  // loss: (N, C), or () where it is reduced. sums: (2, N, C) for the backward pass; states: two numbers per pixel for
  // that of the softmax.
  m.def(
      "dice_loss(Tensor logits, Tensor targets, bool softmax, float smooth, int? ignore_index, int reduction)"
      " -> (Tensor loss, Tensor sums, Tensor states)");
  m.def(
      "dice_loss_backward(Tensor grad, Tensor sums, Tensor states, Tensor logits, Tensor targets, bool softmax,"
      " float smooth, int? ignore_index, int reduction) -> Tensor");
  // Sums of each plane (..., H, W), in float32 at least. penalty: 0 |d|, 1 d^2, 2 (dx^2 + dy^2)^(1/2), 3 ^(beta/2).
  m.def("total_variation(Tensor x, int penalty, float beta) -> Tensor");
  m.def("total_variation_backward(Tensor grad, Tensor x, int penalty, float beta) -> Tensor");

  // window: kernel, stride, padding and dilation, two numbers each. Indices are int64 positions y * width + x or, if
  // compact, uint8 numbers of taps within a window.
  m.def("max_pool2d(Tensor input, int[] window, bool ceil_mode, bool compact) -> (Tensor output, Tensor indices)");
  m.def(
      "max_pool2d_backward(Tensor grad, Tensor indices, int[] window, SymInt h, SymInt w, bool channels_last)"
      " -> Tensor");
  m.def("max_unpool2d(Tensor input, Tensor indices, int[] window, SymInt out_h, SymInt out_w) -> Tensor");
  m.def("max_unpool2d_backward(Tensor grad, Tensor indices, int[] window, bool channels_last) -> Tensor");

  // (N, C, H, W) and (N, D, H, W) -> (N, C, D) in float32 at least, divided by C * H * W if normalize.
  m.def("gram_matrix(Tensor x, Tensor? y, bool normalize, bool tf32) -> Tensor");
  // Of the Gram matrix of each image: the mean squared difference from target, (N, C, C) or (1, C, C) in float32 at
  // least; and what its features are multiplied by for the gradient, (N, C, C).
  m.def("gram_loss(Tensor x, Tensor target, bool normalize, bool tf32) -> (Tensor losses, Tensor slopes)");

  // geometry: stride, padding and dilation, two numbers each. The sizes of the result may be any: a window counts what
  // of it is inside the map, so that each op is the gradient of the others.
  // auto: gradients are torch's where those are faster. tf32: CUDA may round float32 factors.
  m.def(
      "conv2d(Tensor input, Tensor weight, Tensor? bias, int[] geometry, int groups, SymInt out_h, SymInt out_w,"
      " bool auto, bool tf32) -> Tensor");
  m.def(
      "conv_transpose2d(Tensor input, Tensor weight, Tensor? bias, int[] geometry, int groups, SymInt out_h,"
      " SymInt out_w, bool auto, bool tf32) -> Tensor");
  // small: a pixel per window of large.
  m.def(
      "conv2d_weight_gradient(Tensor small, Tensor large, int[] geometry, int groups, SymInt kernel_h,"
      " SymInt kernel_w, bool tf32) -> Tensor");
  m.def(
      "separable_conv2d(Tensor input, Tensor depthwise_weight, Tensor pointwise_weight, Tensor? depthwise_bias,"
      " Tensor? pointwise_bias, Tensor? scale, Tensor? shift, int[] geometry, bool depthwise_relu, bool relu,"
      " SymInt out_h, SymInt out_w, bool tf32) -> Tensor");

  // geometry as of conv2d. offset (N, offset groups * taps * 2, H', W') and mask (without the 2): float32 for 16-bit
  // input. The gradients are by input, offset and mask, which is empty where there is none.
  m.def(
      "deform_conv2d(Tensor input, Tensor offset, Tensor weight, Tensor? bias, Tensor? mask, int[] geometry) -> "
      "Tensor");
  m.def(
      "deform_conv2d_input_gradient(Tensor grad, Tensor input, Tensor offset, Tensor weight, Tensor? mask,"
      " int[] geometry) -> (Tensor, Tensor, Tensor)");
  m.def(
      "deform_conv2d_weight_gradient(Tensor grad, Tensor input, Tensor offset, Tensor weight, Tensor? mask,"
      " int[] geometry) -> Tensor");

  m.def("device_errors(Tensor like) -> Tensor");
}
