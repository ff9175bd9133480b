"""The COCO evaluation of detections. Kernels: csrc/kernels/coco_match.{h,cpp}, coco_overlaps.{h,cpp}."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from .. import _host
from ._coco_json import read_ground_truth, read_results
from ._coco_objects import Objects
from ._inputs import Batch, Dicts

IouType = Literal["bbox", "segm", "keypoints"]

# Spread of the annotators' clicks on the 17 keypoints of a person, relative to the person's size.
_TENTHS = (0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89)
COCO_SIGMAS = tuple(sigma / 10 for sigma in _TENTHS)

_IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
_AREAS = {"all": (0.0, 1e10), "small": (0.0, 1024.0), "medium": (1024.0, 9216.0), "large": (9216.0, 1e10)}

# Name: (precision or recall, IoU threshold or None for the mean over all, areas, most detections in an image).
_BOX_SCORES = {
    "AP": ("precision", None, "all", 100),
    "AP50": ("precision", 0.5, "all", 100),
    "AP75": ("precision", 0.75, "all", 100),
    "APs": ("precision", None, "small", 100),
    "APm": ("precision", None, "medium", 100),
    "APl": ("precision", None, "large", 100),
    "AR1": ("recall", None, "all", 1),
    "AR10": ("recall", None, "all", 10),
    "AR100": ("recall", None, "all", 100),
    "ARs": ("recall", None, "small", 100),
    "ARm": ("recall", None, "medium", 100),
    "ARl": ("recall", None, "large", 100),
}
_KEYPOINT_SCORES = {
    "AP": ("precision", None, "all", 20),
    "AP50": ("precision", 0.5, "all", 20),
    "AP75": ("precision", 0.75, "all", 20),
    "APm": ("precision", None, "medium", 20),
    "APl": ("precision", None, "large", 20),
    "AR": ("recall", None, "all", 20),
    "AR50": ("recall", 0.5, "all", 20),
    "AR75": ("recall", 0.75, "all", 20),
    "ARm": ("recall", None, "medium", 20),
    "ARl": ("recall", None, "large", 20),
}


@dataclass(frozen=True)
class CocoCurves:
    """Precision as a function of recall; the arrays have the shapes of pycocotools' ``eval``, -1 where a category has
    no ground truth.

    Attributes:
        precision: ``(IoU thresholds, recall thresholds, categories, areas, max_detections)``.
        recall: The highest one reached, ``(IoU thresholds, categories, areas, max_detections)``.
        scores: The detection's score at each point of ``precision``.
        iou_thresholds, recall_thresholds, categories, areas, max_detections: What the dimensions stand for.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    scores: NDArray[np.float64]
    iou_thresholds: NDArray[np.float64]
    recall_thresholds: NDArray[np.float64]
    categories: list[Any]
    areas: list[str]
    max_detections: list[int]

    def average_precision(self) -> dict[Any, float]:
        """AP of each category: the mean over IoU thresholds and recalls, -1 without ground truth."""
        return {c: _mean(self.precision[:, :, k, 0, -1]) for k, c in enumerate(self.categories)}


class CocoEvaluator:
    """Average precision and recall as the COCO challenge defines them (Lin et al., ECCV 2014).

    The numbers equal pycocotools' to 1e-12. Annotations are matched by position, never by id, so an annotation with
    id 0 counts like any other. A detection with a coordinate that is not finite matches nothing, a NaN score ranks
    last. Memory is linear in the number of objects. An evaluator can be pickled.

    Args:
        iou_type: What is compared: ``"bbox"``, ``"segm"`` (masks) or ``"keypoints"``.
        sigmas: For keypoints, the standard deviation of each one relative to the object's size; those of COCO's 17
            keypoints of a person by default.

    >>> evaluator = CocoEvaluator()
    >>> box = torch.tensor([[10.0, 10.0, 50.0, 60.0]])
    >>> evaluator.update(
    ...     [{"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}],
    ...     [{"boxes": box, "labels": torch.tensor([1])}],
    ... )
    >>> round(evaluator.compute()["AP"], 6)
    1.0
    """

    def __init__(self, iou_type: IouType = "bbox", *, sigmas: Sequence[float] | None = None) -> None:
        if iou_type not in ("bbox", "segm", "keypoints"):
            raise ValueError(f"CocoEvaluator: iou_type: expected 'bbox', 'segm' or 'keypoints', got {iou_type!r}")
        self.iou_type: IouType = iou_type
        self._sigmas = np.array(COCO_SIGMAS if sigmas is None else sigmas, dtype=np.float64)
        if self._sigmas.ndim != 1 or not (np.isfinite(self._sigmas) & (self._sigmas > 0)).all():
            raise ValueError(f"CocoEvaluator: sigmas: expected finite numbers > 0, got {sigmas!r}")
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        nothing = Batch("", "", [])
        self._detections = Objects.of_predictions(nothing, self.iou_type, len(self._sigmas))
        self._targets = Objects.of_targets(nothing, self.iou_type, len(self._sigmas))
        self._image_ids: list[Any] = []  # None for images without one
        self._known_ids: set[Any] = set()
        self._categories: list[Any] | None = None  # None: the labels seen
        self._curves: CocoCurves | None = None

    @classmethod
    def from_coco(
        cls,
        ground_truth: dict[str, Any],
        results: list[dict[str, Any]],
        iou_type: IouType = "bbox",
        *,
        sigmas: Sequence[float] | None = None,
    ) -> "CocoEvaluator":
        """An evaluator of COCO's JSON formats, already parsed.

        Args:
            ground_truth: ``{"images": [...], "annotations": [...], "categories": [...]}``. An annotation without
                ``iscrowd`` is none, one without ``area`` has that of its box or mask.
            results: Entries with ``image_id``, ``category_id``, ``score`` and, by ``iou_type``, ``bbox``,
                ``segmentation`` or ``keypoints``. As in pycocotools, if the first has ``bbox`` then sizes (small,
                medium, large) are those of the boxes, whatever is compared.
            iou_type, sigmas: As above.

        Raises:
            ValueError: An image or category that is not listed, duplicate ids, a key that is missing, a malformed
                mask, or one of another size than its image; names the first entry concerned.
        """
        evaluator = cls(iou_type, sigmas=sigmas)
        truth = read_ground_truth(ground_truth, iou_type, len(evaluator._sigmas))
        evaluator._targets = truth.objects
        evaluator._detections = read_results(results, truth, iou_type, len(evaluator._sigmas))
        evaluator._image_ids, evaluator._categories = truth.image_ids, truth.categories
        evaluator._known_ids = set(truth.image_ids)
        return evaluator

    def update(self, predictions: Dicts, targets: Dicts, image_ids: Sequence[Any] | None = None) -> None:
        """Add some images: one dictionary per image, with tensors on any device or arrays.

        Args:
            predictions: ``scores (N,)``, ``labels (N,)`` and, by ``iou_type``, ``boxes (N, 4)`` as xyxy, ``masks`` or
                ``keypoints (N, K, 3)``. Masks are bool or uint8 ``(N, H, W)``, probabilities ``(N, 1, H, W)`` of which
                more than a half is foreground, or a list of run-length objects.
            targets: Likewise without scores; optional are ``iscrowd (N,)``, ``area (N,)`` (by default that of the box
                or mask) and ``image_id``. Keypoints need ``boxes`` too.
            image_ids: Identifies the images; by default ``image_id`` of the targets if they have it, else nothing
                does. With ids the result does not depend on the order of updates.

        Raises:
            TypeError, ValueError: A key that is missing or an entry of the wrong type or shape, with its place; an id
                seen before. Nothing is added then.
        """
        owner = "CocoEvaluator"
        found, truth = Batch(owner, "predictions", predictions), Batch(owner, "targets", targets)
        if len(found) != len(truth):
            raise ValueError(f"{owner}: targets: expected {len(found)} images as in predictions, got {len(truth)}")
        if self._categories is not None:
            raise ValueError(f"{owner}: update: expected an evaluator without fixed categories, got one of from_coco()")
        ids = self._new_ids(targets, image_ids)
        detections = Objects.of_predictions(found, self.iou_type, len(self._sigmas))
        objects = Objects.of_targets(truth, self.iou_type, len(self._sigmas))
        if self.iou_type == "segm":
            for i, (mine, other) in enumerate(zip(detections.sizes, objects.sizes)):
                if mine and other and mine != other:
                    place = f"{owner}: predictions[{i}]['masks']"
                    raise ValueError(f"{place}: expected the size of the targets, {other}, got {mine}")
        offset = len(self._image_ids)
        self._detections.extend(detections, np.arange(len(found)) + offset)
        self._targets.extend(objects, np.arange(len(found)) + offset)
        self._image_ids += ids
        self._known_ids.update(image for image in ids if image is not None)
        self._curves = None

    def merge(self, other: "CocoEvaluator") -> None:
        """Add what another evaluator has seen, in another process say. Images with an id that is known here already,
        such as those with which a distributed sampler fills up its last batch, are left out."""
        if other.iou_type != self.iou_type or not np.array_equal(other._sigmas, self._sigmas):
            raise ValueError(f"CocoEvaluator: merge: expected the same kind, {self.iou_type}, got {other.iou_type}")
        if self._image_ids and other._image_ids:
            if other._categories != self._categories:
                raise ValueError("CocoEvaluator: merge: expected the same categories, got others")
            if bool(other._known_ids) != bool(self._known_ids):
                raise ValueError("CocoEvaluator: merge: expected image ids in both evaluators or in none")
        new = [i for i, image in enumerate(other._image_ids) if image not in self._known_ids]
        place = np.full(len(other._image_ids), -1)
        place[new] = np.arange(len(new)) + len(self._image_ids)
        self._detections.extend(other._detections, place)
        self._targets.extend(other._targets, place)
        self._image_ids += [other._image_ids[i] for i in new]
        self._known_ids |= other._known_ids
        self._categories = other._categories if self._categories is None else self._categories
        self._curves = None

    def compute(self) -> dict[str, float]:
        """The 12 numbers in pycocotools' order (10 for keypoints); -1 where there is no ground truth."""
        curves = self.curves()
        scores = {}
        for name, (kind, threshold, area, limit) in self._score_table().items():
            values = curves.precision if kind == "precision" else curves.recall
            if threshold is not None:
                values = values[curves.iou_thresholds == threshold]
            scores[name] = _mean(values[..., curves.areas.index(area), curves.max_detections.index(limit)])
        return scores

    def curves(self) -> CocoCurves:
        """Precision and recall behind the numbers, for plots. Computed once for what has been seen so far."""
        if self._curves is None:
            self._curves = self._evaluate()
        return self._curves

    def _score_table(self) -> dict[str, tuple[str, float | None, str, int]]:
        return _KEYPOINT_SCORES if self.iou_type == "keypoints" else _BOX_SCORES

    def _new_ids(self, targets: Dicts, image_ids: Sequence[Any] | None) -> list[Any]:
        place = "CocoEvaluator: image_ids"
        if image_ids is None and targets and all("image_id" in target for target in targets):
            image_ids = [target["image_id"] for target in targets]
        if self._image_ids and targets and (image_ids is not None) != bool(self._known_ids):
            raise ValueError(f"{place}: expected ids for all images or for none")
        if image_ids is None:
            return [None] * len(targets)
        if len(image_ids) != len(targets):
            raise ValueError(f"{place}: expected {len(targets)} ids, got {len(image_ids)}")
        ids: list[Any] = []
        seen = set()
        for i, image in enumerate(image_ids):
            number = image
            if isinstance(image, (torch.Tensor, np.ndarray, np.generic)) and not any(n != 1 for n in image.shape):
                number = image.item()
            if not isinstance(number, (int, str)):
                raise TypeError(f"{place}[{i}]: expected an integer or text, got {image!r:.80}")
            if number in self._known_ids or number in seen:
                raise ValueError(f"{place}[{i}]: expected an id not seen before, got {number!r}")
            seen.add(number)
            ids.append(number)
        return ids

    def _evaluate(self) -> CocoCurves:
        detections, targets = self._detections.columns(), self._targets.columns()
        images = np.arange(len(self._image_ids))
        if self._known_ids:  # the rank of each image's id
            ids = self._image_ids
            images[sorted(images, key=lambda i: (isinstance(ids[i], str), ids[i]))] = np.arange(len(images))
        labels = np.concatenate([detections["label"], targets["label"]])
        if self._categories is None:
            categories, labels = np.unique(labels, return_inverse=True)
            names = categories.tolist()
        else:
            names = self._categories
        limits = sorted({row[3] for row in self._score_table().values()})
        areas = [area for area in _AREAS if any(row[2] == area for row in self._score_table().values())]
        n = len(detections["label"])
        native = (
            _host.CocoDetections(images[detections["image"]], labels[:n], detections["score"], detections["area"]),
            _host.CocoTargets(
                images[targets["image"]], labels[n:], targets["area"], targets["crowd"], targets["ignored"]
            ),
            _host.CocoSettings(
                len(images),
                len(names),
                _IOU_THRESHOLDS,
                _RECALL_THRESHOLDS,
                np.array([_AREAS[area] for area in areas]),
                np.array(limits),
            ),
        )
        threads = torch.get_num_threads()
        if self.iou_type == "bbox":
            curves = _host.coco_evaluate_boxes(*native, detections["box"], targets["box"], threads)
        elif self.iou_type == "segm":
            curves = _host.coco_evaluate_masks(*native, self._detections.masks, self._targets.masks, threads)
        else:
            points = detections["keypoints"], targets["keypoints"]
            curves = _host.coco_evaluate_keypoints(*native, *points, targets["box"], self._sigmas, threads)
        return CocoCurves(*curves, _IOU_THRESHOLDS, _RECALL_THRESHOLDS, names, areas, limits)


def evaluate_coco(
    ground_truth: dict[str, Any],
    results: list[dict[str, Any]],
    iou_type: IouType = "bbox",
    *,
    sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
    """The 12 numbers (10 for keypoints) for COCO's JSON formats: see :meth:`CocoEvaluator.from_coco`."""
    return CocoEvaluator.from_coco(ground_truth, results, iou_type, sigmas=sigmas).compute()


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0
