"""Non-maximum suppression of rotated boxes. Kernels: csrc/kernels/nms.{h,cpp,cu}. Binding: csrc/torch/nms.cpp."""

import torch
from torch import Tensor

from .. import _lib
from . import _arguments
from .box_iou_rotated import AngleUnit, box_iou_rotated_reference, is_degrees
from .nms import check_nms, suppress_in_order

_op = _lib.Op[Tensor]("nms_rotated")


def nms_rotated(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    angle: AngleUnit = "deg",
    clockwise: bool = False,
    max_output: int | None = None,
) -> Tensor:
    """Greedy non-maximum suppression of rotated boxes: keep a box unless a better one overlaps it by more.

    Args:
        boxes: Boxes ``(N, 5)`` as (centre x, centre y, width, height, angle), floating point; 16-bit boxes are computed
            in float32.
        scores: Scores ``(N,)`` of the same dtype.
        iou_threshold: In [0, 1]; a box is suppressed where :func:`box_iou_rotated` is strictly greater.
        angle, clockwise: Convention of the angles, as in :func:`box_iou_rotated`; the default is detectron2's.
        max_output: Stop after this many boxes.

    Returns:
        int64 indices of the kept boxes, by descending score, ties by ascending index; the same on every backend.
        A box with a NaN score or a number that is not finite is never kept and suppresses nothing.

    Deterministic, no gradient. Time is (boxes not yet suppressed) x (boxes kept), memory linear in N, all on the
    device; the result's size depends on the data, so CUDA waits for it.

    Raises:
        TypeError: Integer boxes or different dtypes.
        ValueError: Wrong shapes, devices, threshold or ``angle``.

    detectron2 and mmcv need N * N / 8 bytes and finish on the host.

    >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0, 0.0], [0.0, 0.0, 4.0, 2.0, 5.0], [0.0, 0.0, 4.0, 2.0, 90.0]])
    >>> nms_rotated(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5)
    tensor([1, 2])
    """
    boxes, scores = _arguments.widen("nms_rotated", "boxes", boxes, "scores", scores)
    degrees = is_degrees("nms_rotated", angle)
    return _op(boxes, scores, None, iou_threshold, degrees, clockwise, max_output)


def batched_nms_rotated(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor,
    iou_threshold: float,
    *,
    angle: AngleUnit = "deg",
    clockwise: bool = False,
    max_output: int | None = None,
) -> Tensor:
    """:func:`nms_rotated` within each group (class, image or level): boxes of different groups never meet.

    Args:
        boxes, scores, iou_threshold, angle, clockwise, max_output: As in :func:`nms_rotated`.
        idxs: Group of each box ``(N,)``, any integers, any number of groups.

    Returns:
        int64 indices of the kept boxes of all groups, by descending score, ties by ascending index.

    Equal to a loop of :func:`nms_rotated` over the groups for any coordinates; others move the groups apart by adding
    to the coordinates. Otherwise as :func:`nms_rotated`.

    >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0, 0.0], [0.0, 0.0, 4.0, 2.0, 5.0], [0.0, 0.0, 4.0, 2.0, 10.0]])
    >>> batched_nms_rotated(boxes, torch.tensor([0.5, 0.9, 0.7]), torch.tensor([0, 1, 1]), 0.5)
    tensor([1, 0])
    """
    boxes, scores = _arguments.widen("batched_nms_rotated", "boxes", boxes, "scores", scores)
    groups = _arguments.group_names("batched_nms_rotated", "idxs", idxs)
    degrees = is_degrees("batched_nms_rotated", angle)
    return _op(boxes, scores, groups, iou_threshold, degrees, clockwise, max_output)


@_lib.register_fake("nms_rotated")
def _(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    iou_threshold: float,
    degrees: bool,
    clockwise: bool,
    max_output: int | None,
) -> Tensor:
    _arguments.shape(boxes.dim() == 2, "nms_rotated", "boxes", boxes, "(N, 5)")
    check_nms("nms_rotated", boxes, scores, groups, None, iou_threshold, 5)
    count = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(count, dtype=torch.int64)


_lib.register_no_vmap(_op, "a loop")


def nms_rotated_reference(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    idxs: Tensor | None = None,
    angle: AngleUnit = "deg",
    clockwise: bool = False,
    max_output: int | None = None,
) -> Tensor:
    """The definition of :func:`nms_rotated` and :func:`batched_nms_rotated` in plain PyTorch."""
    takes_part = boxes.isfinite().all(-1) & ~scores.isnan()
    overlaps = box_iou_rotated_reference(boxes, boxes, angle=angle, clockwise=clockwise).double() > iou_threshold
    if idxs is not None:
        overlaps &= idxs[:, None] == idxs[None, :]
    return suppress_in_order(overlaps, scores, takes_part)[:max_output]
