"""Soft non-maximum suppression. Kernels: csrc/kernels/soft_nms.{h,cpp,cu}. Binding: csrc/torch/soft_nms.cpp."""

import math

import torch
from torch import Tensor

from .. import _lib
from . import _arguments
from ._soft_nms_checks import check_arguments

_op = _lib.Op[tuple[Tensor, Tensor]]("soft_nms")
_padded_op = _lib.Op[tuple[Tensor, Tensor, Tensor]]("soft_nms_padded")

_METHODS = ("gaussian", "linear", "naive")


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    method: str = "gaussian",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    score_threshold: float = 1e-3,
    idxs: Tensor | None = None,
    max_output: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Soft-NMS (Bodla et al., ICCV 2017): the best box is kept and lowers the scores of those that it overlaps.

    Again and again the box with the highest score is kept, ties by ascending index, and the score of every other box
    is multiplied by a weight that depends on their IoU.

    Args:
        boxes: Boxes ``(N, 4)``, xyxy, floating point; 16-bit boxes are computed in float32.
        scores: Scores ``(N,)`` of the same dtype. Scores below 0 stay as they are: no score ever rises.
        method: The weight: ``"gaussian"`` exp(-IoU^2 / sigma); ``"linear"`` 1 - IoU where the IoU is strictly greater
            than ``iou_threshold``, else 1; ``"naive"`` 0 there, else 1, which is :func:`nms`.
        iou_threshold: In [0, 1]; for linear and naive.
        sigma: Greater than 0; for gaussian.
        score_threshold: A box is dropped as soon as its score is not strictly greater, or its weight is 0.
        idxs: Group of each box ``(N,)``, any integers; boxes of different groups do not meet.
        max_output: Return only this many boxes, the best.

    Returns:
        ``keep``, int64 indices of the kept boxes, and ``scores``, the score that each of them had when it was kept: its
        own, multiplied by the weights of all boxes of its group kept before it, in the dtype of ``scores``. Both by
        these scores, descending, ties by ascending index. A box with a NaN score or a coordinate that is not finite is
        never kept and lowers nothing.

    Deterministic: the same bits on every backend, instruction set and number of threads. No gradient. Time is (boxes
    not yet dropped) x (boxes kept), memory linear in N. The result's size depends on the data, so CUDA waits for the
    device; :func:`soft_nms_padded` does not.

    Raises:
        TypeError: Integer boxes or different dtypes.
        ValueError: An unknown method, wrong shapes, devices, thresholds or sigma.

    >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [3.0, 3.0, 4.0, 4.0]])
    >>> soft_nms(boxes, torch.tensor([0.5, 0.9, 0.7]))
    (tensor([1, 2, 0]), tensor([0.9000, 0.7000, 0.0822]))
    """
    kind = _kind("soft_nms", method)
    dtype = scores.dtype
    boxes, scores = _arguments.widen("soft_nms", "boxes", boxes, "scores", scores)
    groups = None if idxs is None else _arguments.group_names("soft_nms", "idxs", idxs)
    keep, kept_scores = _op(boxes, scores, groups, kind, iou_threshold, sigma, score_threshold, max_output)
    return keep, kept_scores.to(dtype)


def soft_nms_padded(
    boxes: Tensor,
    scores: Tensor,
    *,
    method: str = "gaussian",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    score_threshold: float = 1e-3,
    idxs: Tensor | None = None,
    valid: Tensor | None = None,
    max_output: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`soft_nms` with a result of fixed shape, for a batch at once.

    Never waits for the device, so it can be captured in a CUDA graph; works under vmap. On CUDA a block takes each
    image and group.

    Args:
        boxes: Boxes ``(..., N, 4)``, xyxy; each leading index is a problem of its own.
        scores: Scores ``(..., N)``.
        method, iou_threshold, sigma, score_threshold: As in :func:`soft_nms`.
        idxs: Groups ``(..., N)``.
        valid: bool ``(..., N)``; boxes marked False take no part.
        max_output: Places per problem; N by default.

    Returns:
        ``keep`` int64 ``(..., max_output)``, padded with -1, ``scores`` of the same shape as in :func:`soft_nms`,
        padded with 0, and ``count`` int64 ``(...)``.

    >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [3.0, 3.0, 4.0, 4.0]])
    >>> soft_nms_padded(boxes, torch.tensor([0.5, 0.9, 0.7]), score_threshold=0.1)
    (tensor([ 1,  2, -1]), tensor([0.9000, 0.7000, 0.0000]), tensor(2))
    """
    kind = _kind("soft_nms_padded", method)
    dtype = scores.dtype
    boxes, scores = _arguments.widen("soft_nms_padded", "boxes", boxes, "scores", scores)
    groups = None if idxs is None else _arguments.group_names("soft_nms_padded", "idxs", idxs)
    if max_output is None:
        max_output = boxes.shape[-2] if boxes.dim() > 1 else 0
    keep, kept_scores, count = _padded_op(
        boxes, scores, groups, valid, kind, iou_threshold, sigma, score_threshold, max_output
    )
    return keep, kept_scores.to(dtype), count


def _kind(op: str, method: str) -> int:
    if method not in _METHODS:
        raise ValueError(f"{op}: method: expected one of {', '.join(_METHODS)}, got {method!r}")
    return _METHODS.index(method)


@_lib.register_fake("soft_nms")
def _(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    method: int,
    iou_threshold: float,
    sigma: float,
    score_threshold: float,
    max_output: int | None,
) -> tuple[Tensor, Tensor]:
    _arguments.shape(boxes.dim() == 2, "soft_nms", "boxes", boxes, "(N, 4)")
    check_arguments("soft_nms", boxes, scores, groups, None, iou_threshold, sigma, score_threshold)
    count = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(count, dtype=torch.int64), scores.new_empty(count)


@_lib.register_fake("soft_nms_padded")
def _(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    method: int,
    iou_threshold: float,
    sigma: float,
    score_threshold: float,
    max_output: int,
) -> tuple[Tensor, Tensor, Tensor]:
    check_arguments("soft_nms_padded", boxes, scores, groups, valid, iou_threshold, sigma, score_threshold)
    rows = boxes.shape[:-2]
    keep = boxes.new_empty((*rows, max_output), dtype=torch.int64)
    return keep, scores.new_empty((*rows, max_output)), boxes.new_empty(rows, dtype=torch.int64)


_lib.register_no_gradient(_op)
_lib.register_no_gradient(_padded_op)
_lib.register_no_vmap(_op, "soft_nms_padded")
_lib.register_batch_vmap(_padded_op, 4)


def soft_nms_reference(
    boxes: Tensor,
    scores: Tensor,
    *,
    method: str = "gaussian",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    score_threshold: float = 1e-3,
    idxs: Tensor | None = None,
    valid: Tensor | None = None,
    max_output: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition of :func:`soft_nms` in plain PyTorch."""
    from .box_iou import box_iou_reference

    overlaps = box_iou_reference(boxes, boxes)
    if method == "gaussian":
        weights = torch.exp(-overlaps.square() / sigma)
    else:
        left = 1 - overlaps if method == "linear" else torch.zeros_like(overlaps)
        weights = torch.where(overlaps.double() > iou_threshold, left, 1)  # float64 keeps the threshold exact
    if idxs is not None:
        weights = torch.where(idxs[:, None] == idxs[None, :], weights, 1)
    alive = boxes.isfinite().all(-1) & (scores.double() > score_threshold)  # false for a NaN score
    if valid is not None:
        alive &= valid
    current, keep, kept_scores = scores.clone(), [], []
    while alive.any():
        best = int(torch.where(alive, current, -math.inf).argmax())
        best = int((alive & (current == current[best])).nonzero()[0])
        keep.append(best)
        kept_scores.append(current[best].clone())
        alive[best] = False
        alive &= weights[best] > 0
        current = torch.minimum(current, current * weights[best])
        alive &= current.double() > score_threshold
    final = torch.stack(kept_scores) if kept_scores else scores[:0]
    order = sorted(range(len(keep)), key=lambda k: (-float(final[k]), keep[k]))[:max_output]
    return torch.tensor(keep, dtype=torch.int64)[order], final[order]
