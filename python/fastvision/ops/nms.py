"""Non-maximum suppression. Kernels: csrc/kernels/nms.{h,cpp,cu}. Binding: csrc/torch/nms.cpp."""

import math

import torch
from torch import Tensor

from .. import _lib
from . import _arguments

_op = _lib.Op[Tensor]("nms")
_padded_op = _lib.Op[tuple[Tensor, Tensor]]("nms_padded")


def nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    score_threshold: float | None = None,
    max_output: int | None = None,
) -> Tensor:
    """Greedy non-maximum suppression: keep a box unless a better one overlaps it by more than the threshold.

    Args:
        boxes: Boxes ``(N, 4)``, xyxy, floating point; 16-bit boxes are computed in float32.
        scores: Scores ``(N,)`` of the same dtype.
        iou_threshold: In [0, 1]; a box is suppressed where the IoU is strictly greater.
        score_threshold: Keep only boxes whose score is strictly greater.
        max_output: Stop after this many boxes.

    Returns:
        int64 indices of the kept boxes, by descending score, ties by ascending index; the same on every backend.
        A box with a NaN score or a coordinate that is not finite is never kept and suppresses nothing.

    Deterministic, no gradient. Time is (boxes not yet suppressed) x (boxes kept), memory linear in N. The result's
    size depends on the data, so CUDA waits for the device; :func:`nms_padded` does not.

    Raises:
        TypeError: Integer boxes or different dtypes.
        ValueError: Wrong shapes, devices or thresholds.

    torchvision keeps NaN boxes, has no 16-bit types on the CPU and needs N * N / 8 bytes on CUDA.

    >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [3.0, 3.0, 4.0, 4.0]])
    >>> nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5)
    tensor([1, 2])
    """
    boxes, scores = _arguments.widen("nms", "boxes", boxes, "scores", scores)
    return _op(boxes, scores, None, iou_threshold, _or_none(score_threshold), max_output)


def batched_nms(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor,
    iou_threshold: float,
    *,
    score_threshold: float | None = None,
    max_output: int | None = None,
) -> Tensor:
    """Non-maximum suppression within each group (class, image or level): boxes of different groups never meet.

    Args:
        boxes, scores, iou_threshold, score_threshold, max_output: As in :func:`nms`.
        idxs: Group of each box ``(N,)``, any integers, any number of groups.

    Returns:
        int64 indices of the kept boxes of all groups, by descending score, ties by ascending index.

    Equal to a loop of :func:`nms` over the groups for any coordinates; torchvision moves the groups apart by adding
    to the coordinates, which rounds them and fails for negative ones. Otherwise as :func:`nms`.

    >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [0.0, 0.0, 2.0, 1.8]])
    >>> batched_nms(boxes, torch.tensor([0.5, 0.9, 0.7]), torch.tensor([0, 1, 1]), 0.5)
    tensor([1, 0])
    """
    boxes, scores = _arguments.widen("batched_nms", "boxes", boxes, "scores", scores)
    groups = _arguments.group_names("batched_nms", "idxs", idxs)
    threshold = _or_none(score_threshold)
    return _op(boxes, scores, groups, iou_threshold, threshold, max_output)


def nms_padded(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_output: int,
    *,
    idxs: Tensor | None = None,
    valid: Tensor | None = None,
    score_threshold: float | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`nms` or :func:`batched_nms` with a result of fixed shape, for a batch at once.

    Never waits for the device, so it can be captured in a CUDA graph; works under vmap.

    Args:
        boxes: Boxes ``(..., N, 4)``, xyxy; each leading index is a problem of its own.
        scores: Scores ``(..., N)``.
        iou_threshold: As in :func:`nms`.
        max_output: Places per problem.
        idxs: Groups ``(..., N)``, as in :func:`batched_nms`.
        valid: bool ``(..., N)``; boxes marked False take no part.
        score_threshold: As in :func:`nms`.

    Returns:
        ``keep`` int64 ``(..., max_output)``, padded with -1, and ``count`` int64 ``(...)``.

    >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [3.0, 3.0, 4.0, 4.0]])
    >>> nms_padded(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5, 4)
    (tensor([ 1,  2, -1, -1]), tensor(2))
    """
    boxes, scores = _arguments.widen("nms_padded", "boxes", boxes, "scores", scores)
    groups = None if idxs is None else _arguments.group_names("nms_padded", "idxs", idxs)
    keep, count = _padded_op(boxes, scores, groups, valid, iou_threshold, _or_none(score_threshold), max_output)
    return keep, count


def _or_none(score_threshold: float | None) -> float:
    if score_threshold is None:
        return -math.inf
    if not math.isfinite(score_threshold):
        raise ValueError(f"nms: score_threshold: expected a finite number, got {score_threshold}")
    return score_threshold


def check_nms(
    op: str,
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    columns: int = 4,
) -> None:
    """For fake kernels."""
    _arguments.floats(op, "boxes", boxes)
    _arguments.same_dtype(op, "scores", scores, "boxes", boxes)
    _arguments.same_device(op, "scores", scores, "boxes", boxes)
    _arguments.shape(boxes.dim() >= 2 and boxes.shape[-1] == columns, op, "boxes", boxes, f"(..., N, {columns})")
    for name, t in (("scores", scores), ("idxs", groups), ("valid", valid)):
        if t is not None:
            same = t.shape == boxes.shape[:-1]
            got = f"shape {tuple(t.shape)} for boxes {tuple(boxes.shape)}"
            _lib.check(same, op, ": ", name, ": expected one per box, got ", got)
            _arguments.same_device(op, name, t, "boxes", boxes)
    in_range = 0 <= iou_threshold <= 1
    _lib.check(in_range, op, ": iou_threshold: expected a number in [0, 1], got ", iou_threshold)


@_lib.register_fake("nms")
def _(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    iou_threshold: float,
    score_threshold: float,
    max_output: int | None,
) -> Tensor:
    _arguments.shape(boxes.dim() == 2, "nms", "boxes", boxes, "(N, 4)")
    check_nms("nms", boxes, scores, groups, None, iou_threshold)
    count = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(count, dtype=torch.int64)


@_lib.register_fake("nms_padded")
def _(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    score_threshold: float,
    max_output: int,
) -> tuple[Tensor, Tensor]:
    check_nms("nms_padded", boxes, scores, groups, valid, iou_threshold)
    rows = boxes.shape[:-2]
    return boxes.new_empty((*rows, max_output), dtype=torch.int64), boxes.new_empty(rows, dtype=torch.int64)


_lib.register_no_vmap(_op, "nms_padded")
_lib.register_batch_vmap(_padded_op, 4)


def nms_reference(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    idxs: Tensor | None = None,
    valid: Tensor | None = None,
    score_threshold: float | None = None,
    max_output: int | None = None,
) -> Tensor:
    """The definition of :func:`nms` and :func:`batched_nms` in plain PyTorch, on ``(N, 4)`` boxes."""
    from .box_iou import box_iou_reference

    takes_part = boxes.isfinite().all(-1) & ~scores.isnan()
    if score_threshold is not None:
        takes_part &= scores.double() > score_threshold
    if valid is not None:
        takes_part &= valid
    # Comparing in float64 keeps the threshold exact.
    overlaps = box_iou_reference(boxes, boxes).double() > iou_threshold
    if idxs is not None:
        overlaps &= idxs[:, None] == idxs[None, :]
    return suppress_in_order(overlaps, scores, takes_part)[:max_output]


def suppress_in_order(overlaps: Tensor, scores: Tensor, takes_part: Tensor) -> Tensor:
    """Greedy suppression by a matrix of which boxes are too close to keep both."""
    keep: list[int] = []
    for i in scores.nan_to_num(-math.inf).argsort(descending=True, stable=True).tolist():
        if takes_part[i] and not overlaps[i, keep].any():
            keep.append(i)
    return torch.tensor(keep, dtype=torch.int64)
