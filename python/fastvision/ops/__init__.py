"""Functions on boxes, regions, masks and features. Names that torchvision.ops has keep its signatures."""

from .box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from .device_errors import device_errors
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

__all__ = [
    "box_iou",
    "complete_box_iou",
    "device_errors",
    "distance_box_iou",
    "generalized_box_iou",
    "rle_area",
    "rle_decode",
    "rle_encode",
    "rle_from_polygons",
    "rle_from_string",
    "rle_iou",
    "rle_merge",
    "rle_to_boxes",
    "rle_to_string",
]
