from typing import Any

import numpy as np
from numpy.typing import NDArray

_Int = NDArray[np.int64]
_Float = NDArray[np.float64]
_Bool = NDArray[np.bool_]
_Masks = list[dict[str, Any]]

def rle_encode(masks: NDArray[Any], threads: int) -> _Masks: ...
def rle_encode_bits(masks: NDArray[np.uint8], width: int, threads: int) -> _Masks: ...
def rle_decode(objects: _Masks, out: NDArray[np.uint8], threads: int) -> None: ...
def rle_area(objects: _Masks, threads: int) -> _Int: ...
def rle_boxes(objects: _Masks, threads: int) -> _Int: ...
def rle_iou(a: _Masks, b: _Masks, crowd: _Bool, threads: int) -> _Float: ...
def rle_merge(objects: _Masks, intersect: bool, threads: int) -> dict[str, Any]: ...
def rle_from_polygons(polygons: list[_Float], height: int, width: int) -> dict[str, Any]: ...

class CocoDetections:
    def __init__(self, images: _Int, categories: _Int, scores: _Float, areas: _Float) -> None: ...

class CocoTargets:
    def __init__(self, images: _Int, categories: _Int, areas: _Float, crowd: _Bool, ignored: _Bool) -> None: ...

class CocoSettings:
    def __init__(
        self,
        images: int,
        categories: int,
        iou_thresholds: _Float,
        recall_thresholds: _Float,
        area_ranges: _Float,
        max_detections: _Int,
    ) -> None: ...

_Curves = tuple[_Float, _Float, _Float]

def coco_evaluate_boxes(
    detections: CocoDetections,
    targets: CocoTargets,
    settings: CocoSettings,
    detection_boxes: _Float,
    target_boxes: _Float,
    threads: int,
) -> _Curves: ...
def coco_evaluate_masks(
    detections: CocoDetections,
    targets: CocoTargets,
    settings: CocoSettings,
    detection_masks: _Masks,
    target_masks: _Masks,
    threads: int,
) -> _Curves: ...
def coco_evaluate_keypoints(
    detections: CocoDetections,
    targets: CocoTargets,
    settings: CocoSettings,
    detection_keypoints: _Float,
    target_keypoints: _Float,
    target_boxes: _Float,
    sigmas: _Float,
    threads: int,
) -> _Curves: ...
