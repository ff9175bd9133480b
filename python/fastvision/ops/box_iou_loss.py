"""IoU losses of boxes. Kernels: csrc/kernels/box_iou_loss.{h,cpp,cu}. Binding: csrc/torch/box_iou_loss.cpp."""

import math
from typing import Any

import torch
from torch import Tensor

from .. import _lib
from . import _arguments, _losses

_op = _lib.Op[tuple[Tensor, Tensor, Tensor]]("box_iou_loss")
_backward_op = _lib.Op[tuple[Tensor, Tensor]]("box_iou_loss_backward")

_GENERALIZED, _DISTANCE, _COMPLETE = 1, 2, 3


def generalized_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - generalized IoU of boxes side by side (Rezatofighi et al., CVPR 2019).

    Args:
        boxes1: Boxes ``(..., 4)`` as (x1, y1, x2, y2), floating point or integer.
        boxes2: Boxes of the same shape and dtype.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        eps: Added to union and hull before they are divided by.

    Returns:
        Losses ``(...)`` in the boxes' dtype, or their sum or mean (0 if there are none). Computed in float32 at least;
        a sum or mean of 16-bit boxes is float32. Integer boxes are computed in float64 and give float32. A side is
        ``max(x2 - x1, 0)``; the loss of a box that is not finite is 1 and its gradient 0.

    Differentiable once in both sets; value and gradient are finite for all finite boxes. Where two edges coincide the
    gradient is shared equally, as ``torch.maximum`` does. Deterministic, with the same bits for any number of threads.
    Does not wait for the device.

    Raises:
        TypeError: Different dtypes.
        ValueError: Different or wrong shapes (nothing is broadcast), devices, ``reduction`` or ``eps``.

    torchvision gives boxes with x2 < x1 negative areas.

    >>> generalized_box_iou_loss(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]]))
    tensor([0.6667])
    """
    return _loss("generalized_box_iou_loss", boxes1, boxes2, _GENERALIZED, reduction, eps)


def distance_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - distance IoU of boxes side by side (Zheng et al., AAAI 2020).

    Arguments, results, gradients and errors as in :func:`generalized_box_iou_loss`; ``eps`` is added to the union and
    to the squared diagonal of the hull.
    """
    return _loss("distance_box_iou_loss", boxes1, boxes2, _DISTANCE, reduction, eps)


def complete_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - complete IoU of boxes side by side (Zheng et al., AAAI 2020).

    Arguments, results, gradients and errors as in :func:`distance_box_iou_loss`. The aspect ratio of a point is 0. The
    trade-off factor is a constant for the gradient, as in the paper. torchvision gives NaN for boxes without height.
    """
    return _loss("complete_box_iou_loss", boxes1, boxes2, _COMPLETE, reduction, eps)


def _loss(name: str, boxes1: Tensor, boxes2: Tensor, kind: int, reduction: str, eps: float) -> Tensor:
    code, dtype = _losses.reduction_code(name, reduction), boxes1.dtype
    if boxes2.dtype != dtype:
        raise TypeError(f"{name}: boxes2: expected dtype {dtype} as boxes1, got {boxes2.dtype}")
    if dtype in (torch.float16, torch.bfloat16):
        boxes1, boxes2 = boxes1.float(), boxes2.float()
    elif not dtype.is_floating_point:
        boxes1, boxes2 = boxes1.double(), boxes2.double()
    in_forward = [_losses.gradient_in_forward(code, boxes) for boxes in (boxes1, boxes2)]
    loss: Tensor = _op(boxes1, boxes2, kind, float(eps), code, *in_forward)[0]
    if not dtype.is_floating_point:
        return loss.float()
    return loss.to(dtype) if code == 0 else loss


@_lib.register_fake("box_iou_loss")
def _(
    boxes1: Tensor,
    boxes2: Tensor,
    kind: int,
    eps: float,
    reduction: int,
    with_gradient1: bool,
    with_gradient2: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    op = "box_iou_loss"
    _arguments.floats(op, "boxes1", boxes1)
    _arguments.same_dtype(op, "boxes2", boxes2, "boxes1", boxes1)
    _arguments.same_device(op, "boxes2", boxes2, "boxes1", boxes1)
    _arguments.shape(boxes1.dim() >= 1 and boxes1.shape[-1] == 4, op, "boxes1", boxes1, "(..., 4)")
    same = boxes1.shape == boxes2.shape
    _arguments.shape(same, op, "boxes2", boxes2, f"{tuple(boxes1.shape)} as boxes1")
    _lib.check(0 <= eps < math.inf, op, ": eps: expected a finite number >= 0, got ", eps)
    loss = boxes1.new_empty(() if reduction else boxes1.shape[:-1])
    return loss, *_gradients_like(boxes1, with_gradient1, with_gradient2)


@_lib.register_fake("box_iou_loss_backward")
def _(
    grad: Tensor,
    boxes1: Tensor,
    boxes2: Tensor,
    kind: int,
    eps: float,
    reduction: int,
    with_gradient1: bool,
    with_gradient2: bool,
) -> tuple[Tensor, Tensor]:
    return _gradients_like(boxes1, with_gradient1, with_gradient2)


def _gradients_like(boxes: Tensor, first: bool, second: bool) -> tuple[Tensor, Tensor]:
    return boxes.new_empty(boxes.shape if first else 0), boxes.new_empty(boxes.shape if second else 0)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    boxes1, boxes2, *ctx.constants, with_gradient1, with_gradient2 = inputs
    _, gradient1, gradient2 = output
    ctx.save_for_backward(boxes1, boxes2, gradient1, gradient2)
    ctx.with_gradient = with_gradient1, with_gradient2
    ctx.mark_non_differentiable(gradient1, gradient2)


def _backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    boxes1, boxes2, *gradients = ctx.saved_tensors
    needed = tuple(ctx.needs_input_grad[:2])
    if ctx.with_gradient == needed and not torch.is_grad_enabled():  # otherwise a second gradient may be asked for
        results = [_losses.scaled(g, grad) if wanted else None for g, wanted in zip(gradients, needed)]
    else:
        computed = _backward_op(grad, boxes1, boxes2, *ctx.constants, *needed)
        results = [g if wanted else None for g, wanted in zip(computed, needed)]
    return *results, *(None,) * 5


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_no_gradient(_backward_op)
