"""Detections from class scores, with shapes that do not depend on the data. A composition of torch and native ops."""

from typing import NamedTuple

import torch
from torch import Tensor

from .nms import nms_padded


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
    ranked = scores.detach()
    if threshold is not None:
        ranked = torch.where(ranked > threshold, ranked, -torch.inf)
    ranked = torch.where(ranked.isnan(), -torch.inf, ranked) + 0.0  # -0.0 and 0.0 are one value
    if ranked.dtype == torch.float64:
        return ranked.argsort(dim=-1, descending=True, stable=True)[..., :k]
    # One integer key per value, its index in the low half, makes every key different: topk has nothing to choose.
    bits = ranked.float().view(torch.int32).long()
    ascending = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)
    behind = torch.arange(scores.shape[-1] - 1, -1, -1, device=scores.device)
    top = (ascending * 2**32 + behind).topk(k, dim=-1).values
    return scores.shape[-1] - 1 - (top & 0xFFFFFFFF)


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
