"""Total variation. Kernels: csrc/kernels/total_variation.{h,cpp,cu}. Binding: csrc/torch/total_variation.cpp."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .. import _lib
from . import _arguments
from ._regions import is_channels_last, memory_format

_op = _lib.Op[Tensor]("total_variation")
_backward_op = _lib.Op[Tensor]("total_variation_backward")

_ABSOLUTE, _SQUARE, _LENGTH, _POWER = range(4)  # Penalty in csrc/kernels/total_variation.h


def total_variation(
    x: Tensor, *, p: int = 1, beta: float = 2.0, isotropic: bool = False, reduction: str = "sum"
) -> Tensor:
    """Differences between neighbouring pixels, penalised and added up: small for smooth images.

    With dy and dx, the differences to the pixel below and to the right (0 beyond the last row and column), a plane's
    value is the sum of ``|dy|^p + |dx|^p`` (Rudin et al., Physica D 1992) or, if ``isotropic``, of
    ``(dy^2 + dx^2)^(beta / 2)`` (Mahendran and Vedaldi, CVPR 2015).

    Args:
        x: Images ``(..., H, W)``, NCHW or channels_last; float16, bfloat16, float32 or float64.
        p: 1 or 2; not used if ``isotropic``.
        beta: Exponent > 0 of the isotropic form; ``beta=1`` and ``beta=2`` are the fast ones.
        isotropic: Which of the two forms.
        reduction: ``"none"`` gives one value per plane, ``(...)``; ``"sum"`` and ``"mean"`` are over the planes, and 0
            where there is none.

    Returns:
        The value in float32, or float64 for float64 images.

    Twice differentiable; where a difference is 0 the slope is 0. Reads ``x`` once forward and once backward, without
    intermediate images. Deterministic. NaN and infinity reach the planes they are in.

    Raises:
        TypeError: ``x`` is not floating point.
        ValueError: Fewer than two dimensions, or a wrong ``p``, ``beta`` or ``reduction``.

    >>> total_variation(torch.tensor([[0.0, 1.0], [3.0, 3.0]]))
    tensor(6.)
    """
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"total_variation: reduction: expected none, mean or sum, got {reduction!r}")
    if p not in (1, 2):
        raise ValueError(f"total_variation: p: expected 1 or 2, got {p}")
    if isotropic:
        penalty = {1.0: _LENGTH, 2.0: _SQUARE}.get(beta, _POWER)
    else:
        penalty = _ABSOLUTE if p == 1 else _SQUARE
    sums: Tensor = _op(x, penalty, beta if isotropic else 2.0)
    if reduction == "none":
        return sums
    return sums.sum() / max(sums.numel(), 1) if reduction == "mean" else sums.sum()


def _check(op: str, x: Tensor, penalty: int, beta: float) -> None:
    _arguments.all_floats(op, "x", x)
    _arguments.shape(x.dim() >= 2, op, "x", x, "(..., H, W)")
    _lib.check(0 <= penalty <= 3, op, ": penalty: expected an integer in 0..3, got ", penalty)
    _lib.check(0 < beta < float("inf"), op, ": beta: expected a finite number > 0, got ", beta)


@_lib.register_fake("total_variation")
def _(x: Tensor, penalty: int, beta: float) -> Tensor:
    _check("total_variation", x, penalty, beta)
    return x.new_empty(x.shape[:-2], dtype=_arguments.accumulated(x.dtype))


@_lib.register_fake("total_variation_backward")
def _(grad: Tensor, x: Tensor, penalty: int, beta: float) -> Tensor:
    _check("total_variation_backward", x, penalty, beta)
    last = x.dim() == 4 and is_channels_last(x)
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format(last))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.penalty, ctx.beta = inputs
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (x,) = ctx.saved_tensors
    return _backward_op(grad, x, ctx.penalty, ctx.beta), None, None


def _setup_second_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, x, ctx.penalty, ctx.beta = inputs
    ctx.save_for_backward(grad, x)


def _second_backward(ctx: Any, tangent: Tensor) -> tuple[Tensor | None, ...]:
    """Of <tangent, gradient>: by grad the slopes along the tangent, by x the curvature along it. In plain PyTorch."""
    grad, x = ctx.saved_tensors
    dy, dx, ty, tx = *_differences(x.to(grad.dtype)), *_differences(tangent.to(grad.dtype))
    if ctx.penalty == _ABSOLUTE:
        return (dy.sign() * ty + dx.sign() * tx).sum((-2, -1)), None, None, None
    if ctx.penalty == _SQUARE:
        by_grad = 2 * (dy * ty + dx * tx).sum((-2, -1))
        return by_grad, _backward_op(grad, tangent, _SQUARE, 2.0), None, None
    square, beta = dy.square() + dx.square(), 1.0 if ctx.penalty == _LENGTH else ctx.beta
    flat, along = square == 0, dy * ty + dx * tx
    square = torch.where(flat, 1, square)
    first = torch.where(flat, 0, beta * square ** (beta / 2 - 1))
    second = torch.where(flat, 0, beta * (beta - 2) * square ** (beta / 2 - 2)) * along
    scale = grad[..., None, None]
    by_x = _adjoint(scale * (first * ty + second * dy), scale * (first * tx + second * dx))
    return (first * along).sum((-2, -1)), by_x.to(x.dtype), None, None


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_autograd(_backward_op, _second_backward, _setup_second_context)
_lib.register_batch_vmap(_op, 1)
_lib.register_batch_vmap(_backward_op, 2)


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    return pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1)), pad(x[..., 1:] - x[..., :-1], (0, 1))


def _adjoint(dy: Tensor, dx: Tensor) -> Tensor:
    """The transpose of _differences, for arguments that end in a zero row and a zero column."""
    return pad(dy, (0, 0, 1, 0))[..., :-1, :] - dy + pad(dx, (1, 0))[..., :-1] - dx


def total_variation_reference(x: Tensor, *, p: int = 1, beta: float = 2.0, isotropic: bool = False) -> Tensor:
    """The definition of :func:`total_variation` with ``reduction="none"`` in plain PyTorch."""
    dy, dx = _differences(x)
    if not isotropic:
        return (dy.abs() ** p + dx.abs() ** p).sum((-2, -1))
    square = dy.square() + dx.square()
    flat = square == 0
    return torch.where(flat, 0, torch.where(flat, 1, square) ** (beta / 2)).sum((-2, -1))
