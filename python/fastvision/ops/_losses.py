"""What the losses share."""

import torch
from torch import Tensor

from .._lib import check, in_transform
from . import _arguments

_REDUCTIONS = ("none", "mean", "sum")


def reduction_code(op: str, reduction: str) -> int:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{op}: reduction: expected 'none', 'mean' or 'sum', got {reduction!r}")
    return _REDUCTIONS.index(reduction)


def gradient_in_forward(reduction: int, *inputs: Tensor) -> bool:
    """Whether the forward pass is to compute the gradient of the reduced loss as well.

    On the CPU that saves the time of computing every term again. On CUDA it would move more bytes unless the loss's own
    gradient were known to be 1, which is known on the device alone. 16-bit gradients are scaled before they are
    rounded, so they wait for the loss's gradient.
    """
    return (
        reduction != 0
        and inputs[0].device.type == "cpu"
        and inputs[0].dtype in (torch.float32, torch.float64)
        and torch.is_grad_enabled()
        and any(t.requires_grad for t in inputs)
        and not torch.compiler.is_compiling()
        and not in_transform()
    )


def scaled(gradient: Tensor, by: Tensor) -> Tensor:
    """``gradient * by``; without a copy if ``by`` is 1, as in ``loss.backward()``."""
    if type(by) is Tensor and by.device.type == "cpu" and by.item() == 1:
        return gradient
    return gradient * by


def check_numbers(op: str, gamma: float, reduction: int) -> None:
    check(0 <= gamma < float("inf"), op, ": gamma: expected a finite number >= 0, got ", gamma)
    check_reduction(op, reduction)


def check_reduction(op: str, reduction: int) -> None:
    check(0 <= reduction <= 2, op, ": reduction: expected none, mean or sum (0 to 2), got ", reduction)


def check_class_weight(op: str, weight: Tensor | None, other: str, like: Tensor, classes: int) -> None:
    if weight is None:
        return
    _arguments.accumulated_dtype(op, "weight", weight, like)
    _arguments.same_device(op, "weight", weight, other, like)
    _arguments.shape(tuple(weight.shape) == (classes,), op, "weight", weight, f"({classes},), one per class")


def as_class_weight(weight: Tensor | None, like: Tensor) -> Tensor | None:
    """Weights per class as the kernels read them."""
    return weight if weight is None else weight.to(_arguments.accumulated(like.dtype))


def refuse_gradient(op: str, argument: str, needed: bool) -> None:
    if needed:
        raise RuntimeError(f"{op}: {argument}: this argument has no gradient; use {argument}.detach()")


def prepare_targets(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and targets as the kernels read them: labels as int64, dense targets in the dtype of the inputs."""
    if targets.is_floating_point() or targets.is_complex():
        if targets.dtype != inputs.dtype and _arguments.autocast_dtype(inputs.device):
            common = torch.promote_types(inputs.dtype, targets.dtype)
            return inputs.to(common), targets.to(common)
        return inputs, targets
    if targets.dim() == inputs.dim() - 1 and targets.dtype != torch.bool:
        return inputs, targets.long()
    return inputs, targets.to(inputs.dtype)
