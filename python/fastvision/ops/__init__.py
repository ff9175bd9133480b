"""Functions on boxes, regions, masks and features. Names that torchvision.ops has keep its signatures."""

from .box_convert import box_convert
from .box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from .device_errors import device_errors
from .multiclass_nms import multiclass_nms
from .multiscale_roi_align import multiscale_roi_align
from .nms import batched_nms, nms, nms_padded
from .roi_align import roi_align
from .roi_pool import roi_pool

__all__ = [
    "batched_nms",
    "box_convert",
    "box_iou",
    "complete_box_iou",
    "device_errors",
    "distance_box_iou",
    "generalized_box_iou",
    "multiclass_nms",
    "multiscale_roi_align",
    "nms",
    "nms_padded",
    "roi_align",
    "roi_pool",
]
