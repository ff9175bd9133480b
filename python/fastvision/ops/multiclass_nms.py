"""Detections from class scores, with shapes that do not depend on the data: a composition of torch and native ops.
Kernels of top_scores: csrc/kernels/top_scores.{h,cpp,cu}. Binding: csrc/torch/top_scores.cpp."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _lib
from . import _arguments
from .nms import nms_padded

_op = _lib.Op[Tensor]("top_scores")


class MulticlassDetections(NamedTuple):
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, as torch's own named results do
    count: Tensor  # type: ignore[assignment]


def multiclass_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    score_threshold: float,
    iou_threshold: float,
    pre_topk: int = 1000,
    max_output: int = 100,
    class_agnostic: bool = False,
) -> MulticlassDetections:
    """The best boxes of every image: threshold, best ``pre_topk`` pairs of box and class, suppression per class.

    Args:
        boxes: ``(B, N, C, 4)`` with a box per class, or ``(B, N, 1, 4)`` with one for all, xyxy.
        scores: ``(B, N, C)`` of the same dtype.
        score_threshold: A pair counts if its score is strictly greater.
        iou_threshold: As in :func:`nms`.
        pre_topk: Pairs per image that go into suppression.
        max_output: Detections per image.
        class_agnostic: A box of any class suppresses, not only of its own.

    Returns:
        ``boxes (B, max_output, 4)``, ``scores``, ``labels`` (int64 class), ``index`` (int64 row of ``boxes``), all
        ``(B, max_output)``, and ``count (B,)``, by descending score, ties by ascending row and class. Behind ``count``
        boxes and scores are 0, labels and index -1. Boxes and scores are differentiable. Never waits for the device.

    Raises:
        TypeError, ValueError: As :func:`nms_padded`; wrong shapes; negative ``pre_topk`` or ``max_output``.

    The contract of TensorRT's EfficientNMS, inside torch.
    """
    if boxes.dim() != 4 or boxes.shape[-1] != 4:
        raise ValueError(f"multiclass_nms: boxes: expected shape (B, N, 1 or C, 4), got {tuple(boxes.shape)}")
    if scores.dim() != 3 or scores.shape[:2] != boxes.shape[:2] or boxes.shape[2] not in (1, scores.shape[2]):
        expected = f"(B, N, C) for boxes {tuple(boxes.shape)}"
        raise ValueError(f"multiclass_nms: scores: expected shape {expected}, got {tuple(scores.shape)}")
    if pre_topk < 0:
        raise ValueError(f"multiclass_nms: pre_topk: expected an integer >= 0, got {pre_topk}")
    batch, rows, classes = scores.shape
    flat = scores.flatten(1)
    top = stable_topk(flat, min(pre_topk, rows * classes), score_threshold)
    row, label = top // max(classes, 1), top % max(classes, 1)
    column = label if boxes.shape[2] > 1 else torch.zeros_like(label)
    place = row * boxes.shape[2] + column
    top_boxes = boxes.flatten(1, 2).gather(1, place[..., None].expand(-1, -1, 4))
    top_scores = flat.gather(1, top)
    keep, count = nms_padded(
        top_boxes.detach(),
        top_scores.detach(),
        iou_threshold,
        max_output,
        idxs=None if class_agnostic else label,
        score_threshold=score_threshold,
    )
    if top.shape[1] == 0:
        return MulticlassDetections(
            boxes.new_zeros(batch, max_output, 4), scores.new_zeros(batch, max_output), keep, keep.clone(), count
        )
    kept, at = keep >= 0, keep.clamp(min=0)
    return MulticlassDetections(
        torch.where(kept[..., None], top_boxes.gather(1, at[..., None].expand(-1, -1, 4)), 0),
        torch.where(kept, top_scores.gather(1, at), 0),
        torch.where(kept, label.gather(1, at), -1),
        torch.where(kept, row.gather(1, at), -1),
        count,
    )


def stable_topk(scores: Tensor, k: int, threshold: float | None = None) -> Tensor:
    """Indices of the ``k`` largest of each row, ties by ascending index; NaN and what does not pass come last."""
    return _op(scores.detach(), k, -math.inf if threshold is None else threshold)


@_lib.register_fake("top_scores")
def _(scores: Tensor, k: int, threshold: float) -> Tensor:
    _arguments.all_floats("top_scores", "scores", scores)
    _arguments.shape(scores.dim() >= 1, "top_scores", "scores", scores, "(..., N)")
    _lib.check(0 <= k <= scores.shape[-1], "top_scores: k: expected an integer in 0..", scores.shape[-1], ", got ", k)
    return scores.new_empty((*scores.shape[:-1], k), dtype=torch.int64)


_lib.register_batch_vmap(_op, 1)


def stable_topk_reference(scores: Tensor, k: int, threshold: float | None = None) -> Tensor:
    """The definition of :func:`stable_topk` in plain PyTorch."""
    passed = ~scores.isnan() if threshold is None else scores.double() > threshold
    return torch.where(passed, scores, -torch.inf).argsort(dim=-1, descending=True, stable=True)[..., :k]


def multiclass_nms_reference(
    boxes: Tensor,
    scores: Tensor,
    *,
    score_threshold: float,
    iou_threshold: float,
    pre_topk: int = 1000,
    max_output: int = 100,
    class_agnostic: bool = False,
) -> list[list[tuple[int, int]]]:
    """The definition in plain PyTorch: per image the kept pairs of (row, class)."""
    from .nms import nms_reference

    result = []
    classes = scores.shape[2]
    for image_boxes, image_scores in zip(boxes, scores):
        flat = image_scores.flatten()
        passed = [i for i in range(flat.numel()) if flat[i] > score_threshold]
        best = sorted(passed, key=lambda i: (-float(flat[i]), i))[:pre_topk]
        per_class = image_boxes.expand(-1, classes, 4).flatten(0, 1)[best]
        labels = torch.tensor([0 if class_agnostic else i % classes for i in best], dtype=torch.int64)
        keep = nms_reference(per_class, flat[best], iou_threshold, idxs=labels, max_output=max_output)
        result.append([divmod(best[i], classes) for i in keep.tolist()])
    return result
