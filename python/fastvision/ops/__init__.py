"""Functions on boxes, regions, masks and features. Names that torchvision.ops has keep its signatures."""

from .box_coder import decode_boxes, encode_boxes
from .box_convert import box_convert
from .box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from .conv2d import conv2d
from .conv_transpose2d import conv_transpose2d, upsample_bilinear_kernel
from .device_errors import device_errors
from .gram_matrix import gram_matrix
from .grid_anchors import grid_anchors
from .mask_iou import mask_iou
from .match_boxes import match_boxes
from .matrix_nms import matrix_nms
from .max_pool2d import max_pool2d
from .max_unpool2d import max_unpool2d
from .multiclass_nms import multiclass_nms
from .multiscale_roi_align import multiscale_roi_align
from .nms import batched_nms, nms, nms_padded
from .paste_masks import paste_masks_in_image
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
from .roi_pool import roi_pool
from .sample_labels import sample_labels
from .soft_nms import soft_nms, soft_nms_padded
from .total_variation import total_variation

__all__ = [
    "batched_nms",
    "box_convert",
    "box_iou",
    "complete_box_iou",
    "conv2d",
    "conv_transpose2d",
    "decode_boxes",
    "device_errors",
    "distance_box_iou",
    "encode_boxes",
    "generalized_box_iou",
    "gram_matrix",
    "grid_anchors",
    "mask_iou",
    "match_boxes",
    "matrix_nms",
    "max_pool2d",
    "max_unpool2d",
    "multiclass_nms",
    "multiscale_roi_align",
    "nms",
    "nms_padded",
    "paste_masks_in_image",
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
    "roi_pool",
    "sample_labels",
    "soft_nms",
    "soft_nms_padded",
    "total_variation",
    "upsample_bilinear_kernel",
]
