"""Scores of semantic segmentations from one confusion matrix."""

from dataclasses import dataclass

import torch
from torch import Tensor


class _ConfusionMatrix:
    """Counts pixels by (target class, predicted class)."""

    def __init__(self, num_classes: int, ignore_index: int | None = None) -> None:
        if num_classes < 1:
            raise ValueError(f"{type(self).__name__}: num_classes: expected an integer >= 1, got {num_classes}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        self.matrix = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add class maps.

        Args:
            predictions: Integer tensor of any shape, the class of each pixel.
            targets: Likewise, of the same shape; pixels with ``ignore_index`` do not count.

        Raises:
            TypeError: Maps that are not integers (of logits, give the ``argmax`` over the classes).
            ValueError: Different shapes, or a class outside [0, num_classes).
        """
        name = type(self).__name__
        for argument, map_ in (("predictions", predictions), ("targets", targets)):
            if not isinstance(map_, Tensor) or map_.is_floating_point() or map_.is_complex():
                got = map_.dtype if isinstance(map_, Tensor) else type(map_).__name__
                raise TypeError(f"{name}: {argument}: expected a tensor of integers, got {got}")
        if predictions.shape != targets.shape:
            raise ValueError(f"{name}: targets: expected shape {tuple(predictions.shape)}, got {tuple(targets.shape)}")
        predicted, wanted = predictions.detach().flatten().long(), targets.detach().flatten().long()
        wanted = wanted.to(predicted.device)
        if self.ignore_index is not None:
            kept = wanted != self.ignore_index
            predicted, wanted = predicted[kept], wanted[kept]
        if wanted.numel() == 0:
            return
        for argument, classes in (("predictions", predicted), ("targets", wanted)):
            low, high = (int(v) for v in classes.aminmax())
            if low < 0 or high >= self.num_classes:
                wrong = low if low < 0 else high
                raise ValueError(f"{name}: {argument}: expected classes in [0, {self.num_classes}), got {wrong}")
        pairs = torch.bincount(wanted * self.num_classes + predicted, minlength=self.num_classes**2)
        self.matrix += pairs.cpu().view_as(self.matrix)

    def merge(self, other: "_ConfusionMatrix") -> None:
        """Add what another one has seen, in another process say."""
        if (other.num_classes, other.ignore_index) != (self.num_classes, self.ignore_index):
            raise ValueError(f"{type(self).__name__}: merge: expected the same classes and ignore_index, got others")
        self.matrix += other.matrix

    def _ratio(self, hits: int, whole: Tensor) -> tuple[Tensor, float]:
        """Share of true pixels per class, NaN for classes that are absent or ignored, and the mean over the others."""
        share = hits * self.matrix.diagonal().double() / whole.double()
        if self.ignore_index is not None and 0 <= self.ignore_index < self.num_classes:
            share[self.ignore_index] = torch.nan
        known = share[~share.isnan()]
        return share, float(known.mean()) if known.numel() else 0.0


@dataclass(frozen=True)
class MeanIoUScores:
    """``iou`` has one value per class, NaN for a class neither predicted nor wanted; the mean is over the others."""

    mean_iou: float
    iou: Tensor
    pixel_accuracy: float


class MeanIoU(_ConfusionMatrix):
    """Intersection over union of each class over all pixels seen, its mean, and the share of pixels that are right.

    Args:
        num_classes: Classes are 0 ... num_classes - 1.
        ignore_index: Class in the targets whose pixels do not count; it may lie outside the classes.

    >>> metric = MeanIoU(2)
    >>> metric.update(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    >>> round(metric.compute().mean_iou, 4)
    0.5833
    """

    def compute(self) -> MeanIoUScores:
        right = self.matrix.diagonal()
        iou, mean = self._ratio(1, self.matrix.sum(0) + self.matrix.sum(1) - right)
        total = int(self.matrix.sum())
        return MeanIoUScores(mean, iou, int(right.sum()) / total if total else 0.0)


@dataclass(frozen=True)
class DiceScores:
    """``dice`` has one value per class, NaN for a class neither predicted nor wanted; the mean is over the others."""

    mean_dice: float
    dice: Tensor


class Dice(_ConfusionMatrix):
    """Dice coefficient (F1 score) of each class over all pixels seen, 2 |A ∩ B| / (|A| + |B|), and its mean.

    Arguments as in :class:`MeanIoU`.

    >>> metric = Dice(2)
    >>> metric.update(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    >>> round(metric.compute().mean_dice, 4)
    0.7333
    """

    def compute(self) -> DiceScores:
        dice, mean = self._ratio(2, self.matrix.sum(0) + self.matrix.sum(1))
        return DiceScores(mean, dice)
