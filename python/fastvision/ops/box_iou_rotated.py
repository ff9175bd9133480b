"""IoU of rotated boxes. Kernels: csrc/kernels/box_iou_rotated.{h,cpp,cu}. Binding: csrc/torch/box_iou_rotated.cpp."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from .. import _lib
from . import _arguments

_op = _lib.Op[Tensor]("box_iou_rotated")
_backward_op = _lib.Op[tuple[Tensor, Tensor]]("box_iou_rotated_backward")

AngleUnit = Literal["deg", "rad"]


def box_iou_rotated(
    boxes1: Tensor,
    boxes2: Tensor,
    *,
    aligned: bool = False,
    angle: AngleUnit = "deg",
    clockwise: bool = False,
) -> Tensor:
    """Intersection over union of two sets of rotated boxes.

    A box is (centre x, centre y, width, height, angle), in an image whose y points down. At angle 0 the width lies
    along x. The defaults are detectron2's convention: degrees, counter-clockwise as seen in the image, so that the
    width points along (cos, -sin). mmcv's is ``angle="rad", clockwise=True``: the width points along (cos, sin).

    Args:
        boxes1: Boxes ``(..., N, 5)``, floating point or integer.
        boxes2: Boxes ``(..., M, 5)`` of the same dtype, with the same leading dimensions.
        aligned: Compare ``boxes1[i]`` with ``boxes2[i]`` only.
        angle: ``"deg"`` or ``"rad"``.
        clockwise: Whether positive angles turn clockwise as seen in the image.

    Returns:
        ``(..., N, M)``, or ``(..., N)`` if ``aligned``, in [0, 1]. Computed in float32 at least and returned in the
        boxes' dtype; integer boxes are computed in float64 and give float32. 0 where a box has no area (a negative
        side counts as 0) or a number that is not finite. Within 1e-5 of the exact value in float32, at any scale, for
        slivers and for boxes that are equal, nested or share edges; touching boxes and separate ones give 0.

    Differentiable once in all five numbers of both sets, for each pair of finite boxes finite; where two edges coincide
    the gradient is shared equally, as ``torch.maximum`` does. Deterministic. Memory beside the result: 32 bytes a box.

    Raises:
        TypeError: Different dtypes.
        ValueError: Wrong shapes, devices or ``angle``.

    detectron2 and mmcv compare lengths with absolute epsilons, which is wrong for small or thin boxes, and have no
    gradient.

    >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0, 0.0], [0.0, 0.0, 4.0, 2.0, 90.0], [9.0, 9.0, 4.0, 2.0, 45.0]])
    >>> box_iou_rotated(boxes[:1], boxes)
    tensor([[1.0000, 0.3333, 0.0000]])
    """
    unit = (is_degrees("box_iou_rotated", angle), clockwise)
    dtype = boxes1.dtype
    if boxes2.dtype != dtype:
        raise TypeError(f"box_iou_rotated: boxes2: expected dtype {dtype} as boxes1, got {boxes2.dtype}")
    if dtype in (torch.float32, torch.float64):
        return _op(boxes1, boxes2, aligned, *unit)
    if dtype in (torch.float16, torch.bfloat16):
        return _op(boxes1.float(), boxes2.float(), aligned, *unit).to(dtype)
    return _op(boxes1.double(), boxes2.double(), aligned, *unit).float()


def is_degrees(op: str, angle: str) -> bool:
    if angle not in ("deg", "rad"):
        raise ValueError(f"{op}: angle: expected 'deg' or 'rad', got {angle!r}")
    return angle == "deg"


@_lib.register_fake("box_iou_rotated")
def _(boxes1: Tensor, boxes2: Tensor, aligned: bool, degrees: bool, clockwise: bool) -> Tensor:
    op, leading = "box_iou_rotated", "(..., M, 5) with the leading dimensions of boxes1"
    _arguments.floats(op, "boxes1", boxes1)
    _arguments.same_dtype(op, "boxes2", boxes2, "boxes1", boxes1)
    _arguments.same_device(op, "boxes2", boxes2, "boxes1", boxes1)
    _arguments.shape(boxes1.dim() >= 2 and boxes1.shape[-1] == 5, op, "boxes1", boxes1, "(..., N, 5)")
    _arguments.shape(boxes2.dim() == boxes1.dim() and boxes2.shape[-1] == 5, op, "boxes2", boxes2, leading)
    _arguments.shape(boxes1.shape[:-2] == boxes2.shape[:-2], op, "boxes2", boxes2, leading)
    if aligned:
        equal = boxes1.shape[-2] == boxes2.shape[-2]
        _arguments.shape(equal, op, "boxes2", boxes2, "the shape of boxes1, because aligned=True")
        return boxes1.new_empty(boxes1.shape[:-1])
    return boxes1.new_empty(*boxes1.shape[:-1], boxes2.shape[-2])


@_lib.register_fake("box_iou_rotated_backward")
def _(
    grad: Tensor, boxes1: Tensor, boxes2: Tensor, aligned: bool, degrees: bool, clockwise: bool
) -> tuple[Tensor, Tensor]:
    return boxes1.new_empty(boxes1.shape), boxes2.new_empty(boxes2.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    boxes1, boxes2, *ctx.constants = inputs
    ctx.save_for_backward(boxes1, boxes2)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    boxes1, boxes2 = ctx.saved_tensors
    grad1, grad2 = _backward_op(grad, boxes1, boxes2, *ctx.constants)
    return grad1, grad2, None, None, None


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_no_gradient(_backward_op)
_lib.register_batch_vmap(_op, 2)
_lib.register_batch_vmap(_backward_op, 3)


def box_iou_rotated_reference(
    boxes1: Tensor, boxes2: Tensor, *, aligned: bool = False, angle: AngleUnit = "deg", clockwise: bool = False
) -> Tensor:
    """The definition of :func:`box_iou_rotated` in plain PyTorch: polygon clipping (Sutherland and Hodgman, 1974)."""
    a, b = (boxes1, boxes2) if aligned else (boxes1[..., :, None, :], boxes2[..., None, :, :])
    a, b = torch.broadcast_tensors(a, b)
    finite = (a.isfinite() & b.isfinite()).all(-1, keepdim=True)
    a, b = torch.where(finite, a, 0), torch.where(finite, b, 0)
    sides_a, sides_b = (box[..., 2:4].clamp(min=0) for box in (a, b))
    axes_a, axes_b = (_axes(box[..., 4], angle, clockwise) for box in (a, b))
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    half_a = axes_a * sides_a[..., None] / 2
    polygon = torch.stack([i * half_a[..., 0, :] + j * half_a[..., 1, :] for i, j in corners], -2)
    apart = b[..., :2] - a[..., :2]
    for k, sign in ((0, 1), (1, 1), (0, -1), (1, -1)):
        polygon = _clip(polygon - apart[..., None, :], sign * axes_b[..., k, :], sides_b[..., k] / 2)
        polygon = polygon + apart[..., None, :]
    x, y = (polygon - polygon[..., :1, :]).unbind(-1)  # boxes far apart leave points far away
    shared = ((x * y.roll(-1, -1) - y * x.roll(-1, -1)).sum(-1) / 2).clamp(min=0)
    union = sides_a.prod(-1) + sides_b.prod(-1) - shared
    return torch.where(union > 0, shared / torch.where(union > 0, union, 1), 0)


def _axes(angles: Tensor, unit: AngleUnit, clockwise: bool) -> Tensor:
    """Directions of width and height, ``(..., 2, 2)``."""
    turn = angles * (math.pi / 180 if unit == "deg" else 1.0) * (1 if clockwise else -1)
    width, height = torch.stack([turn.cos(), turn.sin()], -1), torch.stack([-turn.sin(), turn.cos()], -1)
    return torch.stack([width, height], -2)


def _clip(polygon: Tensor, normal: Tensor, limit: Tensor) -> Tensor:
    """The part of ``polygon (..., n, 2)`` where ``point . normal <= limit``, as ``(..., 2 n, 2)``.

    A corner outside moves to the nearest point of the line, which changes nothing: the points on the line follow one
    another, and only the two crossings count for the area.
    """
    inside = limit[..., None] - (polygon * normal[..., None, :]).sum(-1)
    following, next_inside = polygon.roll(-1, -2), inside.roll(-1, -1)
    first = polygon + inside.clamp(max=0)[..., None] * normal[..., None, :]
    crosses = (inside >= 0) != (next_inside >= 0)
    share = torch.where(crosses, inside / torch.where(crosses, inside - next_inside, 1), 0)[..., None]
    second = torch.where(crosses[..., None], polygon + share * (following - polygon), first)
    return torch.stack([first, second], -2).flatten(-3, -2)
