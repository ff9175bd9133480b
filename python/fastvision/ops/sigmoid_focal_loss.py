"""Focal loss on sigmoids. Kernels: csrc/kernels/sigmoid_focal_loss.{h,cpp,cu}. Binding: csrc/torch/."""

from typing import Any

import torch
from torch import Tensor

from .. import _lib
from . import _arguments, _losses
from ._regions import is_channels_last, new_features

_op = _lib.Op[tuple[Tensor, Tensor, Tensor]]("sigmoid_focal_loss")
_backward_op = _lib.Op[Tensor]("sigmoid_focal_loss_backward")


def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
    *,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017): binary cross entropy, weighted down where the sigmoid is already right.

    With p the sigmoid, t the target and ``p_t = p t + (1 - p)(1 - t)``, a value's loss is its binary cross entropy
    times ``(1 - p_t) ** gamma`` and, unless ``alpha`` is -1, times ``alpha t + (1 - alpha)(1 - t)``.

    Args:
        inputs: Logits of any shape; float16, bfloat16, float32 or float64.
        targets: Either dense, in [0, 1] and of the shape and dtype of ``inputs`` (integers and bools are cast); or
            integer class labels of the shape ``inputs.shape[:-1]``, where C = ``inputs.shape[-1]`` is the number of
            classes: label c stands for 1 at c and 0 elsewhere, label C for 0 everywhere (background).
        alpha: Weight of positive targets, in [0, 1]; negative targets have ``1 - alpha``. -1 for no weights.
        gamma: Exponent >= 0.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        weight: A factor for each class, ``(C,)``: multiplies the values ``inputs[..., c]``.
        ignore_index: Rows with this label, or dense targets of this value, count for nothing.

    Returns:
        The losses in the shape, dtype and memory format of ``inputs``, or their sum, or their mean over all values that
        are not ignored (0 if there are none). Computed in float32 at least; a sum or mean of 16-bit logits is float32.

    Differentiable once in ``inputs``; value and gradient are finite for all finite logits, targets in [0, 1] and
    ``gamma``. Asking for the gradient of ``targets`` or ``weight`` is an error. Deterministic, with the same bits for
    any number of threads. Does not wait for the device.

    Raises:
        TypeError: Dtypes that do not go together; under autocast floats of different dtypes are promoted.
        ValueError: Wrong shapes (nothing is broadcast), devices or numbers; a label out of range (on CUDA such a row
            is ignored and counted, see :func:`device_errors`).

    torchvision takes dense float targets only and gives NaN gradients for ``gamma`` < 1 and for infinite logits.

    >>> sigmoid_focal_loss(torch.tensor([[0.0, 2.0], [-1.0, 0.0]]), torch.tensor([1, 0]), reduction="sum")
    tensor(0.4358)
    """
    code = _losses.reduction_code("sigmoid_focal_loss", reduction)
    inputs, targets = _losses.prepare_targets(inputs, targets)
    with_gradient = ignore_index is None and _losses.gradient_in_forward(code, inputs)
    weight = _losses.as_class_weight(weight, inputs)
    loss: Tensor = _op(inputs, targets, weight, float(alpha), float(gamma), ignore_index, code, with_gradient)[0]
    return loss


@_lib.register_fake("sigmoid_focal_loss")
def _(
    inputs: Tensor,
    targets: Tensor,
    weight: Tensor | None,
    alpha: float,
    gamma: float,
    ignore_index: int | None,
    reduction: int,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    op, labels = "sigmoid_focal_loss", targets.dtype == torch.int64
    _arguments.all_floats(op, "inputs", inputs)
    if not labels:
        _arguments.same_dtype(op, "targets", targets, "inputs", inputs)
    _arguments.same_device(op, "targets", targets, "inputs", inputs)
    shape = inputs.shape[:-1] if labels else inputs.shape
    ok = targets.shape == shape and (inputs.dim() > 0 or not labels)
    _arguments.shape(ok, op, "targets", targets, f"{tuple(shape)}{', one label per row of inputs' * labels}")
    _losses.check_class_weight(op, weight, "inputs", inputs, inputs.shape[-1] if inputs.dim() else 1)
    _lib.check(0 <= alpha <= 1 or alpha == -1, op, ": alpha: expected a number in [0, 1] or -1, got ", alpha)
    _losses.check_numbers(op, gamma, reduction)
    counted = inputs.new_empty(() if reduction else 0, dtype=_arguments.accumulated(inputs.dtype))
    losses = torch.empty_like(counted) if reduction else _like(inputs, targets, weight)
    return losses, counted, _like(inputs, targets, weight) if with_gradient else inputs.new_empty(0)


@_lib.register_fake("sigmoid_focal_loss_backward")
def _(
    grad: Tensor,
    counted: Tensor,
    inputs: Tensor,
    targets: Tensor,
    weight: Tensor | None,
    alpha: float,
    gamma: float,
    ignore_index: int | None,
    reduction: int,
) -> Tensor:
    return _like(inputs, targets, weight)


def _like(inputs: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
    """In the memory format that the kernels write: channels_last where values do not depend on their place."""
    dense = inputs.dim() == 4 and targets.dtype != torch.int64 and weight is None
    return new_features(inputs, tuple(inputs.shape), dense and is_channels_last(inputs))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, targets, weight, *ctx.constants, ctx.with_gradient = inputs
    _, counted, gradient = output
    ctx.save_for_backward(counted, logits, targets, weight, gradient)
    ctx.mark_non_differentiable(counted, gradient)


def _backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    _losses.refuse_gradient("sigmoid_focal_loss", "targets", ctx.needs_input_grad[1])
    _losses.refuse_gradient("sigmoid_focal_loss", "weight", ctx.needs_input_grad[2])
    *saved, gradient = ctx.saved_tensors
    if ctx.with_gradient and not torch.is_grad_enabled():  # otherwise a second gradient may be asked for
        result = _losses.scaled(gradient, grad)
    else:
        result = _backward_op(grad, *saved, *ctx.constants)
    return result, *(None,) * 7


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_no_gradient(_backward_op)


def sigmoid_focal_loss_reference(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none"
) -> Tensor:
    """The definition of :func:`sigmoid_focal_loss` for dense targets in plain PyTorch."""
    p = inputs.sigmoid()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    missed = p * (1 - targets) + (1 - p) * targets
    losses = entropy * missed**gamma
    if alpha >= 0:
        losses = losses * (alpha * targets + (1 - alpha) * (1 - targets))
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()
