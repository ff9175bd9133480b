"""Object detectors."""

from .faster_rcnn import FasterRCNN, fasterrcnn_resnet50_fpn
from .mask_rcnn import MaskRCNN, mask_rcnn_tiny, maskrcnn_resnet50_fpn
from .results import Detections, PaddedDetections

__all__ = [
    "Detections",
    "FasterRCNN",
    "MaskRCNN",
    "PaddedDetections",
    "fasterrcnn_resnet50_fpn",
    "mask_rcnn_tiny",
    "maskrcnn_resnet50_fpn",
]
