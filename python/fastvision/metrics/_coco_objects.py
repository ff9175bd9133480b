"""Detections or ground truth of many images, as the columns that the COCO evaluation works on."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import ops
from ._inputs import Batch

Columns = dict[str, NDArray[Any]]


class Objects:
    """Columns by name, each a list of arrays to be joined: ``image`` (a number) and ``label``, ``area``, and by kind
    ``score``, ``crowd``, ``ignored``, ``box`` (x, y, width, height), ``keypoints``. Masks are run-length objects."""

    def __init__(
        self, columns: Columns, masks: list[ops.rle.RunLengths], sizes: list[list[int] | None] | None = None
    ) -> None:
        self._columns = {name: [column] for name, column in columns.items()}
        self.masks = masks
        self.sizes = sizes or []  # of each image's masks

    @classmethod
    def of_predictions(cls, batch: Batch, iou_type: str, keypoints: int) -> "Objects":
        columns: Columns = {"image": batch.images(), "label": batch.integers("labels"), "score": batch.floats("scores")}
        masks, sizes = batch.masks() if iou_type == "segm" else ([], [])
        if iou_type == "bbox":
            columns["box"] = batch.boxes()
            columns["area"] = box_areas(columns["box"])
        elif iou_type == "segm":
            columns["area"] = mask_areas(masks)
        else:
            columns["keypoints"] = batch.floats("keypoints", keypoints, 3)
            columns["area"] = keypoint_areas(columns["keypoints"])
        return cls(columns, masks, sizes)

    @classmethod
    def of_targets(cls, batch: Batch, iou_type: str, keypoints: int) -> "Objects":
        columns: Columns = {"image": batch.images(), "label": batch.integers("labels"), "crowd": batch.flags("iscrowd")}
        masks, sizes = batch.masks() if iou_type == "segm" else ([], [])
        columns["ignored"] = columns["crowd"]
        if iou_type == "segm":
            default = mask_areas(masks)
        else:
            columns["box"] = batch.boxes()
            batch.check_finite("boxes", columns["box"])
            default = box_areas(columns["box"])
        if iou_type == "keypoints":
            columns["keypoints"] = batch.floats("keypoints", keypoints, 3)
            columns["ignored"] = columns["crowd"] | ~(columns["keypoints"][:, :, 2] > 0).any(1)
        columns["area"] = batch.floats("area", default=default)
        return cls(columns, masks, sizes)

    def extend(self, other: "Objects", place: NDArray[np.int64]) -> None:
        """Add objects whose images get other numbers, or are left out where that is -1."""
        columns = other.columns()
        images = place[columns["image"]]
        kept = images >= 0
        everything = bool(kept.all())
        for name, column in columns.items():
            column = images if name == "image" else column
            self._columns[name].append(column if everything else column[kept])
        self.masks += [mask for mask, keep in zip(other.masks, kept.tolist()) if keep]

    def columns(self) -> Columns:
        for name, parts in self._columns.items():
            if len(parts) > 1:
                self._columns[name] = [np.concatenate(parts)]
        return {name: parts[0] for name, parts in self._columns.items()}


def box_areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(boxes[:, 2] * boxes[:, 3])


def mask_areas(masks: list[ops.rle.RunLengths]) -> NDArray[np.float64]:
    return ops.rle_area(masks).to(torch.float64).numpy()


def keypoint_areas(keypoints: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the boxes around all keypoints, visible or not."""
    if not len(keypoints) or not keypoints.shape[1]:
        return np.zeros(len(keypoints))
    sides = keypoints[:, :, :2].max(1) - keypoints[:, :, :2].min(1)
    return np.asarray(sides[:, 0] * sides[:, 1])
