"""Assignment of ground truth. Kernels: csrc/kernels/match_boxes.{h,cpp,cu}. Binding: csrc/torch/match_boxes.cpp."""

import torch
from torch import Tensor

from .. import _lib
from . import _arguments

_op = _lib.Op[tuple[Tensor, Tensor]]("match_boxes")


def match_boxes(
    gt: Tensor,
    boxes: Tensor,
    high: float,
    low: float,
    *,
    allow_low_quality: bool = False,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """For every box, the ground truth that overlaps it most, without the matrix of overlaps.

    Args:
        gt: Ground truth ``(M, 4)`` or ``(B, M, 4)``, xyxy, floating point.
        boxes: Anchors or proposals ``(N, 4)`` or ``(B, N, 4)`` of the same dtype.
        high: A box matches if its largest IoU is at least this.
        low: A box is background if its largest IoU is below this; ``0 <= low <= high <= 1``.
        allow_low_quality: A box that has, of all boxes, the largest IoU (> 0) with some ground truth keeps its own
            best match even below ``high``.
        valid: bool ``(M,)`` or ``(B, M)``; ground truth marked False is left out, so that a batch can be padded.

    Returns:
        ``match`` int64 ``(N,)`` or ``(B, N)``: index of the ground truth (ties: the lower), -1 for background, -2
        between ``low`` and ``high``; and the largest IoU, in the boxes' dtype (16-bit: computed in float32). Without
        ground truth all are -1 with IoU 0.

    Deterministic, no gradient, memory O(M + N), never waits for the device.

    Raises:
        TypeError, ValueError: Dtypes, shapes or thresholds that do not fit.

    torchvision's Matcher makes the M x N matrix, raises without ground truth, and with ``allow_low_quality`` matches
    every box to a ground truth that no box overlaps.

    >>> gt = torch.tensor([[0.0, 0.0, 4.0, 4.0], [8.0, 8.0, 9.0, 9.0]])
    >>> match_boxes(gt, torch.tensor([[0.0, 0.0, 4.0, 3.0], [20.0, 20.0, 30.0, 30.0]]), 0.7, 0.3)
    (tensor([ 0, -1]), tensor([0.7500, 0.0000]))
    """
    truth, candidates = _arguments.widen("match_boxes", "gt", gt, "boxes", boxes)
    match, overlap = _op(truth, candidates, valid, high, low, allow_low_quality)
    return match, overlap.to(boxes.dtype)


@_lib.register_fake("match_boxes")
def _(
    truth: Tensor, boxes: Tensor, valid: Tensor | None, high: float, low: float, allow_low_quality: bool
) -> tuple[Tensor, Tensor]:
    op = "match_boxes"
    _arguments.floats(op, "gt", truth)
    _arguments.same_dtype(op, "boxes", boxes, "gt", truth)
    _arguments.same_device(op, "boxes", boxes, "gt", truth)
    is_boxes = truth.dim() in (2, 3) and truth.shape[-1] == 4
    _arguments.shape(is_boxes, op, "gt", truth, "(M, 4) or (B, M, 4)")
    fits = boxes.dim() == truth.dim() and boxes.shape[-1] == 4 and boxes.shape[:-2] == truth.shape[:-2]
    _arguments.shape(fits, op, "boxes", boxes, "(N, 4), or (B, N, 4) with the batch of gt")
    return boxes.new_empty(boxes.shape[:-1], dtype=torch.int64), boxes.new_empty(boxes.shape[:-1])


_lib.register_batch_vmap(_op, 3)


def match_boxes_reference(
    gt: Tensor,
    boxes: Tensor,
    high: float,
    low: float,
    *,
    allow_low_quality: bool = False,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition of :func:`match_boxes` in plain PyTorch, for one image."""
    from .box_iou import box_iou_reference

    usable = torch.ones(len(gt), dtype=torch.bool) if valid is None else valid
    match, overlap = torch.full((len(boxes),), -1), boxes.new_zeros(len(boxes))
    if not usable.any():
        return match, overlap
    ious = torch.where(usable[:, None], box_iou_reference(gt, boxes), -1)
    overlap = ious.amax(0)
    first = (ious == overlap).int().argmax(0)
    match = torch.where(overlap.double() >= high, first, torch.where(overlap.double() < low, -1, -2))
    if allow_low_quality and len(boxes):
        most = ious.max(1).values
        chosen = ((ious == most[:, None]) & (most > 0)[:, None]).any(0)
        match = torch.where(chosen, first, match)
    return match, overlap
