"""Dice loss. Kernels: csrc/kernels/dice_loss.{h,cpp,cu}. Binding: csrc/torch/dice_loss.cpp."""

import math
from typing import Any

import torch
from torch import Tensor

from .. import _lib
from . import _arguments, _losses
from ._regions import is_channels_last, new_features

_op = _lib.Op[tuple[Tensor, Tensor, Tensor]]("dice_loss")
_backward_op = _lib.Op[Tensor]("dice_loss_backward")


def dice_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    activation: str = "sigmoid",
    smooth: float = 1.0,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Dice loss (Milletari et al., V-Net, 3DV 2016): ``1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)``.

    The sums are over the pixels of each class of each sample; p is the probability, not squared.

    Args:
        logits: ``(N, C, ...)``, contiguous or channels_last; float16, bfloat16, float32 or float64.
        targets: Either dense, in [0, 1] and of the shape and dtype of ``logits`` (integers and bools are cast); or
            integer class labels ``(N, ...)`` in [0, C).
        activation: ``"sigmoid"``, or ``"softmax"`` over the classes.
        smooth: Number >= 0. With 0, a class without probability and targets has loss 0.
        ignore_index: Pixels with this label, or dense targets of this value, are left out of all sums.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``, over samples and classes.

    Returns:
        Losses ``(N, C)``, or their sum or mean (0 if there are none); in [0, 1] for targets in [0, 1]. float32, or
        float64 for float64 logits.

    Differentiable once in ``logits``, finite for all finite logits; asking for the gradient of ``targets`` is an error.
    Deterministic, with the same bits for any number of threads. Does not wait for the device.

    Raises:
        TypeError: Dtypes that do not go together; under autocast floats of different dtypes are promoted.
        ValueError: Wrong shapes (nothing is broadcast), devices or numbers; a label out of range (on CUDA such a pixel
            is ignored and counted, see :func:`device_errors`).

    >>> dice_loss(torch.tensor([[[9.0, 9.0, -9.0, -9.0]]]), torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]))
    tensor(0.2501)
    """
    if activation not in ("sigmoid", "softmax"):
        raise ValueError(f"dice_loss: activation: expected 'sigmoid' or 'softmax', got {activation!r}")
    code = _losses.reduction_code("dice_loss", reduction)
    logits, targets = _losses.prepare_targets(logits, targets)
    return _op(logits, targets, activation == "softmax", float(smooth), ignore_index, code)[0]


@_lib.register_fake("dice_loss")
def _(
    logits: Tensor, targets: Tensor, softmax: bool, smooth: float, ignore_index: int | None, reduction: int
) -> tuple[Tensor, Tensor, Tensor]:
    op, labels = "dice_loss", targets.dtype == torch.int64
    _arguments.all_floats(op, "logits", logits)
    if not labels:
        _arguments.same_dtype(op, "targets", targets, "logits", logits)
    _arguments.same_device(op, "targets", targets, "logits", logits)
    _arguments.shape(logits.dim() >= 2, op, "logits", logits, "(N, C, ...)")
    shape = (logits.shape[0], *logits.shape[2:]) if labels else tuple(logits.shape)
    what = ", one label per pixel" if labels else " as logits"
    _arguments.shape(tuple(targets.shape) == shape, op, "targets", targets, f"{shape}{what}")
    _lib.check(0 <= smooth < math.inf, op, ": smooth: expected a finite number >= 0, got ", smooth)
    _losses.check_reduction(op, reduction)
    dtype, planes = _arguments.accumulated(logits.dtype), logits.shape[:2]
    pixels = logits.shape[0] * math.prod(logits.shape[2:])
    loss, fractions = (logits.new_empty(s, dtype=dtype) for s in (() if reduction else planes, (2, *planes)))
    return loss, fractions, logits.new_empty((2, pixels if softmax else 0), dtype=dtype)


@_lib.register_fake("dice_loss_backward")
def _(
    grad: Tensor,
    sums: Tensor,
    states: Tensor,
    logits: Tensor,
    targets: Tensor,
    softmax: bool,
    smooth: float,
    ignore_index: int | None,
    reduction: int,
) -> Tensor:
    return new_features(logits, tuple(logits.shape), logits.dim() == 4 and is_channels_last(logits))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, targets, *ctx.constants = inputs
    _, fractions, states = output
    ctx.save_for_backward(fractions, states, logits, targets)
    ctx.mark_non_differentiable(fractions, states)


def _backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    _losses.refuse_gradient("dice_loss", "targets", ctx.needs_input_grad[1])
    return _backward_op(grad, *ctx.saved_tensors, *ctx.constants), *(None,) * 5


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_no_gradient(_backward_op)


def dice_loss_reference(
    logits: Tensor, targets: Tensor, activation: str = "sigmoid", smooth: float = 1.0, kept: Tensor | None = None
) -> Tensor:
    """The definition of :func:`dice_loss` for dense targets and ``reduction="none"`` in plain PyTorch."""
    p, t = logits.sigmoid() if activation == "sigmoid" else logits.softmax(1), targets
    if kept is not None:
        p, t = (torch.where(kept, v, 0) for v in (p, t))
    p, t = (v[..., None].flatten(2) for v in (p, t))
    numerator, denominator = 2 * (p * t).sum(-1) + smooth, p.sum(-1) + t.sum(-1) + smooth
    return torch.where(denominator > 0, 1 - numerator / torch.where(denominator > 0, denominator, 1), 0)
