"""Functions on boxes, regions, masks and features. Names that torchvision.ops has keep its signatures."""

from ..nn.deform_conv import DeformConv2d
from ..nn.feature_pyramid import FeaturePyramidNetwork
from ..nn.frozen_batch_norm import FrozenBatchNorm2d
from ..nn.roi_modules import MultiScaleRoIAlign, PSRoIAlign, PSRoIPool, RoIAlign, RoIPool
from .aspp import aspp
from .box_area import box_area
from .box_coder import decode_boxes, encode_boxes
from .box_convert import box_convert
from .box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from .box_iou_loss import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss
from .box_iou_rotated import box_iou_rotated
from .clip_boxes_to_image import clip_boxes_to_image
from .conv2d import conv2d
from .conv_transpose2d import conv_transpose2d, upsample_bilinear_kernel
from .deform_conv2d import deform_conv2d
from .device_errors import device_errors
from .dice_loss import dice_loss
from .gram_loss import gram_loss
from .gram_matrix import gram_matrix
from .grid_anchors import grid_anchors
from .mask_iou import mask_iou
from .masks_to_boxes import masks_to_boxes
from .match_boxes import match_boxes
from .matrix_nms import matrix_nms
from .max_pool2d import max_pool2d
from .max_unpool2d import max_unpool2d
from .multiclass_nms import multiclass_nms
from .multiscale_roi_align import multiscale_roi_align
from .nms import batched_nms, nms, nms_padded
from .nms_rotated import batched_nms_rotated, nms_rotated
from .paste_masks import paste_masks_in_image
from .ps_roi_align import ps_roi_align
from .ps_roi_pool import ps_roi_pool
from .remove_small_boxes import remove_small_boxes
from .rle import (
    rle_area,
    rle_decode,
    rle_encode,
    rle_from_polygons,
    rle_from_string,
    rle_iou,
    rle_merge,
    rle_to_boxes,
    rle_to_string,
)
from .roi_align import roi_align
from .roi_align_rotated import roi_align_rotated
from .roi_pool import roi_pool
from .sample_labels import sample_labels
from .separable_conv2d import separable_conv2d
from .sigmoid_focal_loss import sigmoid_focal_loss
from .soft_nms import soft_nms, soft_nms_padded
from .softmax_focal_loss import softmax_focal_loss
from .total_variation import total_variation

__all__ = [
    "DeformConv2d",
    "FeaturePyramidNetwork",
    "FrozenBatchNorm2d",
    "MultiScaleRoIAlign",
    "PSRoIAlign",
    "PSRoIPool",
    "RoIAlign",
    "RoIPool",
    "aspp",
    "batched_nms",
    "batched_nms_rotated",
    "box_area",
    "box_convert",
    "box_iou",
    "box_iou_rotated",
    "clip_boxes_to_image",
    "complete_box_iou",
    "complete_box_iou_loss",
    "conv2d",
    "conv_transpose2d",
    "decode_boxes",
    "deform_conv2d",
    "device_errors",
    "dice_loss",
    "distance_box_iou",
    "distance_box_iou_loss",
    "encode_boxes",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "gram_loss",
    "gram_matrix",
    "grid_anchors",
    "mask_iou",
    "masks_to_boxes",
    "match_boxes",
    "matrix_nms",
    "max_pool2d",
    "max_unpool2d",
    "multiclass_nms",
    "multiscale_roi_align",
    "nms",
    "nms_padded",
    "nms_rotated",
    "paste_masks_in_image",
    "ps_roi_align",
    "ps_roi_pool",
    "remove_small_boxes",
    "rle_area",
    "rle_decode",
    "rle_encode",
    "rle_from_polygons",
    "rle_from_string",
    "rle_iou",
    "rle_merge",
    "rle_to_boxes",
    "rle_to_string",
    "roi_align",
    "roi_align_rotated",
    "roi_pool",
    "sample_labels",
    "separable_conv2d",
    "sigmoid_focal_loss",
    "soft_nms",
    "soft_nms_padded",
    "softmax_focal_loss",
    "total_variation",
    "upsample_bilinear_kernel",
]
