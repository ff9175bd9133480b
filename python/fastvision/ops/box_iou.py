"""Box IoU and its relatives. Kernels: csrc/kernels/box_iou.{h,cpp,cu}. Binding: csrc/torch/box_iou.cpp."""

import math
from typing import Any

import torch
from torch import Tensor

from .. import _lib
from . import _arguments
from .box_convert import box_convert

_op = _lib.Op[Tensor]("box_iou")
_backward_op = _lib.Op[tuple[Tensor, Tensor]]("box_iou_backward")

_PLAIN, _GENERALIZED, _DISTANCE, _COMPLETE = range(4)


def box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy", *, aligned: bool = False) -> Tensor:
    """Intersection over union of two sets of boxes.

    Args:
        boxes1: Boxes ``(..., N, 4)``, floating point or integer.
        boxes2: Boxes ``(..., M, 4)`` of the same dtype, with the same leading dimensions.
        fmt: Format of both, ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``.
        aligned: Compare ``boxes1[i]`` with ``boxes2[i]`` only.

    Returns:
        ``(..., N, M)``, or ``(..., N)`` if ``aligned``, in [0, 1]. Computed in float32 at least and returned in the
        boxes' dtype; integer boxes are computed in float64 and give float32. A side is ``max(x2 - x1, 0)``; where the
        union is empty or a coordinate is not finite the result is 0. Right to a relative 1e-6 at any scale of float32.

    Differentiable once in both sets, finite for finite boxes; where two edges coincide the gradient is shared equally,
    as ``torch.maximum`` does. Deterministic. Reads each box once per pair and writes nothing but the result.

    Raises:
        TypeError: Different dtypes.
        ValueError: Wrong shapes, devices or ``fmt``.

    torchvision gives NaN for two empty boxes and has no ``aligned``.

    >>> box_iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0]]))
    tensor([[0.3333, 0.0000]])
    """
    return _pairs(boxes1, boxes2, fmt, _PLAIN, aligned, 0.0)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy", *, aligned: bool = False) -> Tensor:
    """Generalized IoU (Rezatofighi et al., CVPR 2019): IoU minus the share of the hull that neither box covers.

    Arguments, dtypes, gradients and errors as in :func:`box_iou`. Values in [-1, 1]; 0 where the hull is empty.
    """
    return _pairs(boxes1, boxes2, fmt, _GENERALIZED, aligned, 0.0)


def distance_box_iou(
    boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7, *, fmt: str = "xyxy", aligned: bool = False
) -> Tensor:
    """Distance IoU (Zheng et al., AAAI 2020): IoU minus squared distance of the centres over squared hull diagonal.

    Arguments, dtypes, gradients and errors as in :func:`box_iou`; ``eps`` is added to the squared diagonal.
    """
    return _pairs(boxes1, boxes2, fmt, _DISTANCE, aligned, eps)


def complete_box_iou(
    boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7, *, fmt: str = "xyxy", aligned: bool = False
) -> Tensor:
    """Complete IoU (Zheng et al., AAAI 2020): distance IoU minus a penalty on different aspect ratios.

    Arguments, dtypes, gradients and errors as in :func:`distance_box_iou`. The aspect ratio of a point is 0. The
    trade-off factor is a constant for the gradient, as in the paper.
    """
    return _pairs(boxes1, boxes2, fmt, _COMPLETE, aligned, eps)


def _pairs(boxes1: Tensor, boxes2: Tensor, fmt: str, kind: int, aligned: bool, eps: float) -> Tensor:
    dtype = boxes1.dtype
    if boxes2.dtype != dtype:
        raise TypeError(f"box_iou: boxes2: expected dtype {dtype} as boxes1, got {boxes2.dtype}")
    if dtype in (torch.float16, torch.bfloat16):
        boxes1, boxes2 = boxes1.float(), boxes2.float()
    elif not dtype.is_floating_point:
        boxes1, boxes2 = boxes1.double(), boxes2.double()
    if fmt != "xyxy":
        boxes1, boxes2 = box_convert(boxes1, fmt, "xyxy"), box_convert(boxes2, fmt, "xyxy")
    result: Tensor = _op(boxes1, boxes2, kind, aligned, eps)
    return result if result.dtype == dtype else result.to(dtype if dtype.is_floating_point else torch.float32)


@_lib.register_fake("box_iou")
def _(boxes1: Tensor, boxes2: Tensor, kind: int, aligned: bool, eps: float) -> Tensor:
    leading = "(..., M, 4) with the leading dimensions of boxes1"
    _arguments.floats("box_iou", "boxes1", boxes1)
    _arguments.same_dtype("box_iou", "boxes2", boxes2, "boxes1", boxes1)
    _arguments.same_device("box_iou", "boxes2", boxes2, "boxes1", boxes1)
    _arguments.shape(boxes1.dim() >= 2 and boxes1.shape[-1] == 4, "box_iou", "boxes1", boxes1, "(..., N, 4)")
    _arguments.shape(boxes2.dim() == boxes1.dim() and boxes2.shape[-1] == 4, "box_iou", "boxes2", boxes2, leading)
    _arguments.shape(boxes1.shape[:-2] == boxes2.shape[:-2], "box_iou", "boxes2", boxes2, leading)
    if aligned:
        equal = boxes1.shape[-2] == boxes2.shape[-2]
        _arguments.shape(equal, "box_iou", "boxes2", boxes2, "the shape of boxes1, because aligned=True")
        return boxes1.new_empty(boxes1.shape[:-1])
    return boxes1.new_empty(*boxes1.shape[:-1], boxes2.shape[-2])


@_lib.register_fake("box_iou_backward")
def _(grad: Tensor, boxes1: Tensor, boxes2: Tensor, kind: int, aligned: bool, eps: float) -> tuple[Tensor, Tensor]:
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


def box_iou_reference(boxes1: Tensor, boxes2: Tensor, *, aligned: bool = False) -> Tensor:
    """The definition of :func:`box_iou` in plain PyTorch."""
    return _reference(boxes1, boxes2, aligned)[0]


def generalized_box_iou_reference(boxes1: Tensor, boxes2: Tensor, *, aligned: bool = False) -> Tensor:
    iou, union, hull, _, finite = _reference(boxes1, boxes2, aligned)
    hull_area = hull[..., 0] * hull[..., 1]
    return torch.where(finite, iou - _ratio(hull_area - union, hull_area), 0)


def distance_box_iou_reference(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7, *, aligned: bool = False) -> Tensor:
    iou, _, hull, apart, finite = _reference(boxes1, boxes2, aligned)
    return torch.where(finite, iou - _ratio(apart.square().sum(-1), hull.square().sum(-1) + eps), 0)


def complete_box_iou_reference(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7, *, aligned: bool = False) -> Tensor:
    iou, _, _, _, finite = _reference(boxes1, boxes2, aligned)
    a, b = _pairing(boxes1, boxes2, aligned)
    angles = [torch.atan2(*_sides(box).unbind(-1)) for box in (a, b)]
    v = (2 / math.pi * (angles[0] - angles[1])).square()
    trade_off = _ratio(v, 1 - iou + v + eps).detach()
    return torch.where(finite, distance_box_iou_reference(boxes1, boxes2, eps, aligned=aligned) - trade_off * v, 0)


def _pairing(boxes1: Tensor, boxes2: Tensor, aligned: bool) -> tuple[Tensor, Tensor]:
    return (boxes1, boxes2) if aligned else (boxes1[..., :, None, :], boxes2[..., None, :, :])


def _sides(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b > 0, a / torch.where(b > 0, b, 1), 0)


def _reference(boxes1: Tensor, boxes2: Tensor, aligned: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """IoU, union, sides of the hull, vector between the centres, whether both boxes are finite."""
    a, b = _pairing(boxes1, boxes2, aligned)
    finite = (a.isfinite() & b.isfinite()).all(-1)
    a, b = torch.where(finite[..., None], a, 0), torch.where(finite[..., None], b, 0)
    overlap = torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], -1)
    low = torch.minimum(torch.minimum(a[..., :2], a[..., 2:]), torch.minimum(b[..., :2], b[..., 2:]))
    high = torch.maximum(torch.maximum(a[..., :2], a[..., 2:]), torch.maximum(b[..., :2], b[..., 2:]))
    area_a, area_b, inter = (_sides(box).prod(-1) for box in (a, b, overlap))
    union = area_a + area_b - inter
    apart = (a[..., :2] + a[..., 2:]) / 2 - (b[..., :2] + b[..., 2:]) / 2
    return _ratio(inter, union), union, high - low, apart, finite
