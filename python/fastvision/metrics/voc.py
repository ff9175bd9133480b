"""The PASCAL VOC evaluation of detections."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import ops
from ._inputs import Batch, Dicts
from .average_precision import METHODS, Method, average_precision


@dataclass(frozen=True)
class VocScores:
    """``average_precision`` has the classes with targets, ``mean_average_precision`` is their mean, or 0."""

    mean_average_precision: float
    average_precision: dict[int, float]


class VocEvaluator:
    """Average precision per class as the PASCAL VOC challenge defines it (Everingham et al., IJCV 2010).

    Each detection is compared with the target of its class that it overlaps most. It is a true positive if the overlap
    reaches the threshold and no detection with a higher score has had that target; if the target is difficult, it does
    not count at all. Detections with equal scores are ranked in the order of updates.

    Boxes are areas, not pixels: for annotations whose corners are 1-based pixels, both included, subtract 1 from x1 and
    y1, and the overlaps are those of the challenge's own code.

    Args:
        iou_threshold: The least overlap of a match.
        method: How precision is averaged: see :func:`average_precision`. ``"voc07"`` up to VOC 2009, then ``"voc10"``.
    """

    def __init__(self, iou_threshold: float = 0.5, method: Method = "voc10") -> None:
        if not 0 <= iou_threshold <= 1:
            raise ValueError(f"VocEvaluator: iou_threshold: expected a number in [0, 1], got {iou_threshold}")
        if method not in METHODS:
            raise ValueError(f"VocEvaluator: method: expected one of {', '.join(METHODS)}, got {method!r}")
        self.iou_threshold = iou_threshold
        self.method: Method = method
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        self._columns: dict[str, list[NDArray[Any]]] = {}
        self._num_targets = 0

    def update(self, predictions: Dicts, targets: Dicts) -> None:
        """Add some images: one dictionary per image, with tensors on any device or arrays.

        Args:
            predictions: ``boxes (N, 4)`` as xyxy, ``scores (N,)``, ``labels (N,)``.
            targets: ``boxes``, ``labels`` and optionally ``difficult (N,)``.

        Raises:
            TypeError, ValueError: A key that is missing or an entry of the wrong type or shape, with its place.
        """
        found, truth = Batch("VocEvaluator", "predictions", predictions), Batch("VocEvaluator", "targets", targets)
        if len(found) != len(truth):
            raise ValueError(f"VocEvaluator: targets: expected {len(found)} images as in predictions, got {len(truth)}")
        labels, target_labels = found.integers("labels"), truth.integers("labels")
        boxes, target_boxes = found.floats("boxes", 4), truth.floats("boxes", 4)
        matches = np.full(len(labels), -1)
        ends, target_ends = np.cumsum(found.counts).tolist(), np.cumsum(truth.counts).tolist()
        for begin, end, target_begin, target_end in zip([0, *ends], ends, [0, *target_ends], target_ends):
            if begin == end or target_begin == target_end:
                continue
            mine, others = slice(begin, end), slice(target_begin, target_end)
            overlaps = ops.box_iou(torch.from_numpy(boxes[mine]), torch.from_numpy(target_boxes[others])).numpy()
            overlaps[labels[mine, None] != target_labels[None, others]] = -1
            best = overlaps.argmax(1)
            enough = overlaps[np.arange(end - begin), best] >= self.iou_threshold
            matches[mine] = np.where(enough, best + target_begin, -1)
        self._add(
            {
                "scores": found.floats("scores"),
                "labels": labels,
                "matches": matches,  # index of the target, -1 for none
                "target_labels": target_labels,
                "difficult": truth.flags("difficult"),
            }
        )

    def merge(self, other: "VocEvaluator") -> None:
        """Add what another evaluator has seen, in another process say."""
        if (other.iou_threshold, other.method) != (self.iou_threshold, self.method):
            raise ValueError("VocEvaluator: merge: expected the same threshold and method, got others")
        if other._columns:
            self._add(other._joined())

    def compute(self) -> VocScores:
        if not self._columns:
            return VocScores(0.0, {})
        all_scores, labels, matches, target_labels, difficult = self._joined().values()
        scores = {}
        for label in np.unique(target_labels[~difficult]).tolist():
            mine = np.flatnonzero(labels == label)
            mine = mine[np.argsort(-all_scores[mine], kind="stable")]
            mine = mine[(matches[mine] < 0) | ~difficult[matches[mine]]]
            match = matches[mine]
            hit = np.zeros(len(mine), np.bool_)
            _, first = np.unique(match, return_index=True)
            hit[first] = match[first] >= 0
            targets = int(np.sum((target_labels == label) & ~difficult))
            scores[label] = average_precision(all_scores[mine], hit, targets, self.method)
        return VocScores(float(np.mean(list(scores.values()))) if scores else 0.0, scores)

    def _add(self, columns: dict[str, NDArray[Any]]) -> None:
        matches = columns["matches"]
        columns = {**columns, "matches": np.where(matches >= 0, matches + self._num_targets, -1)}
        for name, column in columns.items():
            self._columns.setdefault(name, []).append(column)
        self._num_targets += len(columns["target_labels"])

    def _joined(self) -> dict[str, NDArray[Any]]:
        return {name: np.concatenate(parts) for name, parts in self._columns.items()}
