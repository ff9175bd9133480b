"""Focal loss on softmaxes. Kernels: csrc/kernels/softmax_focal_loss.{h,cpp,cu}. Binding: csrc/torch/."""

from typing import Any

import torch
from torch import Tensor

from .. import _lib
from . import _arguments, _losses
from ._regions import is_channels_last, new_features

_op = _lib.Op[tuple[Tensor, Tensor, Tensor]]("softmax_focal_loss")
_backward_op = _lib.Op[Tensor]("softmax_focal_loss_backward")


def softmax_focal_loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float | None = None,
    gamma: float = 2.0,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017) for exclusive classes: ``-alpha weight[y] (1 - p) ** gamma log(p)``.

    p is the softmax probability of the label y. With ``gamma=0`` this is ``torch.nn.functional.cross_entropy``.

    Args:
        logits: ``(N, C)`` or ``(N, C, ...)``, contiguous or channels_last; float16, bfloat16, float32 or float64.
        labels: Integer class labels ``(N,)`` or ``(N, ...)`` in [0, C).
        alpha: A factor >= 0 for all classes; None for 1.
        gamma: Exponent >= 0.
        weight: A factor for each class, ``(C,)``.
        ignore_index: Pixels with this label count for nothing.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.

    Returns:
        The losses in the shape of ``labels`` and the dtype of ``logits``, or their sum, or their sum over the sum of
        ``weight[y]`` of all pixels that are not ignored (0 if there are none). Computed in float32 at least; a sum or
        mean of 16-bit logits is float32.

    Differentiable once in ``logits``, finite for all finite logits and ``gamma``; asking for the gradient of ``weight``
    is an error. Reads the logits once forward and once backward, and keeps three numbers per pixel between the two.
    Deterministic, with the same bits for any number of threads. Does not wait for the device.

    Raises:
        TypeError: Labels that are not integers, or logits that are not floats.
        ValueError: Wrong shapes, devices or numbers; a label out of range (on CUDA such a pixel is ignored and counted,
            see :func:`device_errors`).

    >>> softmax_focal_loss(torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([1, 0]))
    tensor(0.0867)
    """
    code = _losses.reduction_code("softmax_focal_loss", reduction)
    labels = _arguments.group_names("softmax_focal_loss", "labels", labels)
    needed = _lib.may_need_gradient(logits)
    weight = _losses.as_class_weight(weight, logits)
    factor = 1.0 if alpha is None else float(alpha)
    loss: Tensor = _op(logits, labels, weight, factor, float(gamma), ignore_index, code, needed)[0]
    return loss


@_lib.register_fake("softmax_focal_loss")
def _(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    alpha: float,
    gamma: float,
    ignore_index: int,
    reduction: int,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    op = "softmax_focal_loss"
    _arguments.all_floats(op, "logits", logits)
    _lib.check(labels.dtype == torch.int64, op, ": labels: expected dtype int64, got ", labels.dtype)
    _arguments.same_device(op, "labels", labels, "logits", logits)
    ok = logits.dim() >= 2 and logits.shape[1] >= 1
    _arguments.shape(ok, op, "logits", logits, "(N, C, ...) with at least one class")
    shape = (logits.shape[0], *logits.shape[2:])
    _arguments.shape(tuple(labels.shape) == shape, op, "labels", labels, f"{shape}, one per pixel")
    _losses.check_class_weight(op, weight, "logits", logits, logits.shape[1])
    _lib.check(0 <= alpha < float("inf"), op, ": alpha: expected a finite number >= 0, got ", alpha)
    _losses.check_numbers(op, gamma, reduction)
    counted = logits.new_empty(() if reduction else 0, dtype=_arguments.accumulated(logits.dtype))
    losses = torch.empty_like(counted) if reduction else logits.new_empty(shape)
    return losses, counted, counted.new_empty((3, labels.numel() if with_gradient else 0))


@_lib.register_fake("softmax_focal_loss_backward")
def _(
    grad: Tensor, counted: Tensor, states: Tensor, logits: Tensor, labels: Tensor, ignore_index: int, reduction: int
) -> Tensor:
    return new_features(logits, tuple(logits.shape), logits.dim() == 4 and is_channels_last(logits))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, labels, _, _, _, ctx.ignore_index, ctx.reduction, _ = inputs
    _, counted, states = output
    ctx.save_for_backward(counted, states, logits, labels)
    ctx.mark_non_differentiable(counted, states)


def _backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    _losses.refuse_gradient("softmax_focal_loss", "weight", ctx.needs_input_grad[2])
    return _backward_op(grad, *ctx.saved_tensors, ctx.ignore_index, ctx.reduction), *(None,) * 7


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_no_gradient(_backward_op)


def softmax_focal_loss_reference(
    logits: Tensor,
    labels: Tensor,
    alpha: float | None = None,
    gamma: float = 2.0,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """The definition of :func:`softmax_focal_loss` in plain PyTorch."""
    kept = labels != ignore_index
    index = torch.where(kept, labels, 0)
    log_p = logits.log_softmax(1).gather(1, index[:, None])[:, 0]
    factor = kept.to(logits.dtype) if weight is None else torch.where(kept, weight[index], 0)
    losses = torch.where(kept, -(1.0 if alpha is None else alpha) * factor * (-log_p.expm1()) ** gamma * log_p, 0)
    if reduction == "none":
        return losses
    total = factor.sum()
    return losses.sum() if reduction == "sum" else torch.where(total > 0, losses.sum() / total, 0)
