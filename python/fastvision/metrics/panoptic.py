"""Panoptic quality."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_MAX_INSTANCE = 2**31


@dataclass(frozen=True)
class ClassQuality:
    """``quality`` is ``segmentation`` (mean IoU of the matches) times ``recognition`` (F1 score of the segments)."""

    quality: float
    segmentation: float
    recognition: float
    true_positives: int
    false_positives: int
    false_negatives: int


@dataclass(frozen=True)
class PanopticScores:
    """Means over the classes that were predicted or wanted, 0 if there is none; ``classes`` has the single ones."""

    pq: float
    sq: float
    rq: float
    pq_things: float
    pq_stuff: float
    classes: dict[int, ClassQuality]


class PanopticQuality:
    """Panoptic quality with its factors, segmentation and recognition quality (Kirillov et al., CVPR 2019).

    A predicted segment and a segment of the same class in the target match if their IoU is above a half; void pixels of
    the target do not count. Predicted segments that lie for more than a half in void pixels or in a crowd of their
    class are no false positives.

    Args:
        things: Classes with instances.
        stuff: Classes without: all their pixels in an image are one segment.
        void: Class of pixels that are not labelled.
    """

    def __init__(self, things: Iterable[int], stuff: Iterable[int], void: int | None = None) -> None:
        self.things, self.stuff = sorted(set(things)), sorted(set(stuff))
        self.void = void
        labels = [*self.things, *self.stuff, *([] if void is None else [void])]
        if len(set(labels)) < len(labels):
            raise ValueError(f"PanopticQuality: expected classes that are one of things, stuff and void, got {labels}")
        self._known = np.array(sorted([*self.things, *self.stuff]), dtype=np.int64)
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        # Rows: sum of the matches' IoU, true positives, false positives, false negatives of
        # each class.
        self._sums = np.zeros((4, len(self._known)))

    def update(self, predictions: Tensor, targets: Tensor, crowd: Tensor | None = None) -> None:
        """Add images.

        Args:
            predictions: Integer tensor ``(..., H, W, 2)``: class and instance of each pixel.
            targets: Likewise, of the same shape.
            crowd: ``(..., H, W)``, true where the target is a crowd: no segment to be found.

        Raises:
            TypeError: Maps that are not integers.
            ValueError: Wrong shapes, a class that is neither a thing nor stuff nor void, or an instance outside
                [0, 2**31).
        """
        for argument, map_ in (("predictions", predictions), ("targets", targets)):
            if not isinstance(map_, Tensor) or map_.is_floating_point() or map_.is_complex():
                got = map_.dtype if isinstance(map_, Tensor) else type(map_).__name__
                raise TypeError(f"PanopticQuality: {argument}: expected a tensor of integers, got {got}")
        shape = tuple(predictions.shape)
        if len(shape) < 3 or shape[-1] != 2:
            raise ValueError(f"PanopticQuality: predictions: expected shape (..., H, W, 2), got {shape}")
        if tuple(targets.shape) != shape:
            raise ValueError(f"PanopticQuality: targets: expected shape {shape}, got {tuple(targets.shape)}")
        if crowd is not None and tuple(crowd.shape) != shape[:-1]:
            raise ValueError(f"PanopticQuality: crowd: expected shape {shape[:-1]}, got {tuple(crowd.shape)}")
        if 0 in shape:
            return
        pixels = (-1, shape[-3] * shape[-2])
        mine = self._segments("predictions", predictions).reshape(pixels)
        wanted = self._segments("targets", targets).reshape(pixels)
        in_crowd = np.zeros_like(mine, dtype=np.bool_)
        if crowd is not None:
            in_crowd = crowd.detach().cpu().numpy().astype(np.bool_).reshape(pixels)
        for image in range(len(mine)):
            self._add(mine[image], wanted[image], in_crowd[image])

    def merge(self, other: "PanopticQuality") -> None:
        """Add what another one has seen, in another process say."""
        if (other.things, other.stuff, other.void) != (self.things, self.stuff, self.void):
            raise ValueError("PanopticQuality: merge: expected the same classes, got others")
        self._sums += other._sums

    def compute(self) -> PanopticScores:
        classes = {}
        for label, (overlap, tp, fp, fn) in zip(self._known.tolist(), self._sums.T.tolist()):
            if tp + fp + fn > 0:
                recognition = tp / (tp + (fp + fn) / 2)
                segmentation = overlap / tp if tp else 0.0
                classes[label] = ClassQuality(
                    segmentation * recognition, segmentation, recognition, int(tp), int(fp), int(fn)
                )
        return PanopticScores(
            pq=_mean(c.quality for c in classes.values()),
            sq=_mean(c.segmentation for c in classes.values()),
            rq=_mean(c.recognition for c in classes.values()),
            pq_things=_mean(c.quality for label, c in classes.items() if label in self.things),
            pq_stuff=_mean(c.quality for label, c in classes.items() if label in self.stuff),
            classes=classes,
        )

    def _segments(self, argument: str, maps: Tensor) -> NDArray[np.int64]:
        """One number per pixel: the position of the class times 2**31 plus the instance, -1 for void."""
        values = maps.detach().cpu().numpy().astype(np.int64)
        labels, instances = values[..., 0], values[..., 1]
        place = np.searchsorted(self._known, labels)
        known = np.isin(labels, self._known)
        is_void = labels == self.void if self.void is not None else np.zeros(labels.shape, np.bool_)
        if not (known | is_void).all():
            wrong = labels[~(known | is_void)].flat[0]
            raise ValueError(f"PanopticQuality: {argument}: expected a class of things, stuff or void, got {wrong}")
        counts = known & np.isin(labels, self.things)
        if not ((instances >= 0) & (instances < _MAX_INSTANCE))[counts].all():
            raise ValueError(f"PanopticQuality: {argument}: expected instances in [0, 2**31), got others")
        return np.where(is_void, -1, place * _MAX_INSTANCE + np.where(counts, instances, 0))

    def _add(self, mine: NDArray[np.int64], wanted: NDArray[np.int64], crowd: NDArray[np.bool_]) -> None:
        segments, place, areas = np.unique(mine, return_inverse=True, return_counts=True)
        classes = np.where(segments < 0, -1, segments // _MAX_INSTANCE)
        # Pixels where a predicted segment may be without harm.
        free = wanted < 0
        harmless = free | (crowd & (wanted // _MAX_INSTANCE == mine // _MAX_INSTANCE))
        in_void = np.bincount(place[free], minlength=len(segments))
        in_harmless = np.bincount(place[harmless], minlength=len(segments))

        target = ~crowd & ~free
        targets, target_place, target_areas = np.unique(wanted[target], return_inverse=True, return_counts=True)
        pairs, shared = np.unique(place[target] * max(len(targets), 1) + target_place, return_counts=True)
        a, b = pairs // max(len(targets), 1), pairs % max(len(targets), 1)
        overlap = shared / (areas[a] + target_areas[b] - shared - in_void[a])
        match = (overlap > 0.5) & (classes[a] == targets[b] // _MAX_INSTANCE)

        overlaps, true_positives, false_positives, false_negatives = self._sums
        np.add.at(overlaps, classes[a[match]], overlap[match])
        np.add.at(true_positives, classes[a[match]], 1)
        unmatched = (segments >= 0) & ~np.isin(np.arange(len(segments)), a[match]) & (in_harmless * 2 <= areas)
        np.add.at(false_positives, classes[unmatched], 1)
        missed = ~np.isin(np.arange(len(targets)), b[match])
        np.add.at(false_negatives, targets[missed] // _MAX_INSTANCE, 1)


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept) if kept else 0.0
