"""Functions on boxes, regions, masks and features. Names that torchvision.ops has keep its signatures."""

from .box_convert import box_convert
from .box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from .device_errors import device_errors
from .multiclass_nms import multiclass_nms
from .nms import batched_nms, nms, nms_padded

__all__ = [
    "batched_nms",
    "box_convert",
    "box_iou",
    "complete_box_iou",
    "device_errors",
    "distance_box_iou",
    "generalized_box_iou",
    "multiclass_nms",
    "nms",
    "nms_padded",
]
