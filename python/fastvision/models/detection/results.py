"""What detectors return."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """The detections of one image, best first.

    boxes: ``(N, 4)`` xyxy in pixels of the image; scores: ``(N,)`` in [0, 1]; labels: int64 ``(N,)``, from 1 (0 is
    background); masks: bool ``(N, H, W)`` or None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class PaddedDetections:
    """The detections of a batch with shapes that do not depend on the data, in pixels of the batch.

    boxes: ``(B, D, 4)``; scores, labels: ``(B, D)``; count: int64 ``(B,)``; behind an image's count scores are 0 and
    labels -1. mask_logits: ``(B, D, m, m)`` of each detection's class, or None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    count: Tensor
    mask_logits: Tensor | None = None
