"""What convolution and transposed convolution share: arguments, fake kernels and gradients.

Kernels: csrc/kernels/convolution.{h,cpp,cu} and convolution_dense.{h,cu}. Binding: csrc/torch/convolution.cpp. Each
gradient is one of the other two maps, so that gradients of every order are these three. The ops' argument ``auto`` says
whether the gradients are chosen by ``algorithm="auto"`` (ops/_dispatch.py), each for itself; else they are the own
kernels. ``tf32``: whether CUDA may round float32 factors.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _lib
from . import _arguments
from ._convolution_vmap import convolution_rule, weight_gradient_rule
from ._dispatch import own_is_faster
from ._dispatch_problem import Map
from ._regions import is_channels_last, new_features

conv2d_op = _lib.Op[Tensor]("conv2d")
conv_transpose2d_op = _lib.Op[Tensor]("conv_transpose2d")
weight_gradient_op = _lib.Op[Tensor]("conv2d_weight_gradient")

ALGORITHMS = ("auto", "fastvision", "torch")


def geometry_of(
    op: str, stride: int | Sequence[int], padding: int | Sequence[int], dilation: int | Sequence[int]
) -> list[int]:
    """Stride, padding and dilation as two numbers each."""
    pairs = (("stride", stride), ("padding", padding), ("dilation", dilation))
    return [n for name, value in pairs for n in _arguments.pair(op, name, value)]


def check_algorithm(op: str, algorithm: str) -> None:
    if algorithm not in ALGORITHMS:
        raise ValueError(f"{op}: algorithm: expected auto, fastvision or torch, got {algorithm!r}")


def with_batch(op: str, t: Tensor) -> Tensor:
    if t.dim() not in (3, 4):
        raise ValueError(f"{op}: input: expected shape (N, C, H, W) or (C, H, W), got {tuple(t.shape)}")
    return t if t.dim() == 4 else t[None]


def autocast(input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tensors in the dtype of an enclosing autocast region, as torch's convolutions have it."""
    dtype = _arguments.autocast_dtype(input.device)
    if dtype is None:
        return input, weight, bias
    input, weight = (t.to(dtype) if t.dtype != torch.float64 else t for t in (input, weight))
    return input, weight, bias.to(input.dtype) if bias is not None and bias.dtype != torch.float64 else bias


def check_arguments(
    op: str, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Sequence[int], groups: int, transposed: bool
) -> None:
    """What the bindings check, in their words. For fake kernels and for calls that go to torch."""
    check_maps(op, input, "input", weight, geometry, groups)
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    fits = input.shape[1] == channels
    wanted = f"{channels} channels as weight and groups={groups}"
    _lib.check(fits, op, ": input: expected shape with ", wanted, ", got ", tuple(input.shape))
    if bias is not None:
        out = weight.shape[1] * groups if transposed else weight.shape[0]
        _arguments.same_dtype(op, "bias", bias, "input", input)
        _arguments.same_device(op, "bias", bias, "input", input)
        ok = bias.dim() == 1 and bias.shape[0] == out
        _lib.check(ok, op, ": bias: expected shape (", out, ",), got ", tuple(bias.shape))


def check_maps(op: str, input: Tensor, name: str, weight: Tensor, geometry: Sequence[int], groups: int) -> None:
    _arguments.all_floats(op, name, input)
    _arguments.shape(input.dim() == 4, op, name, input, "(N, C, H, W) or (C, H, W)")
    _arguments.same_dtype(op, "weight", weight, name, input)
    _arguments.same_device(op, "weight", weight, name, input)
    ok = weight.dim() == 4 and weight.shape[2] >= 1 and weight.shape[3] >= 1
    _arguments.shape(ok, op, "weight", weight, "of 4 dimensions, the last two at least 1")
    _arguments.steps(op, "stride", geometry[:2], 1)
    _arguments.steps(op, "padding", geometry[2:4], 0)
    _arguments.steps(op, "dilation", geometry[4:], 1)
    _arguments.steps(op, "groups", [groups], 1)
    divides = weight.shape[0] % groups == 0
    wanted = f"channels divisible by groups={groups}"
    _lib.check(divides, op, ": weight: expected shape with ", wanted, ", got ", tuple(weight.shape))
    pixels = input.shape[2] >= 1 and input.shape[3] >= 1
    _lib.check(pixels, op, ": ", name, ": expected at least one pixel per map, got ", tuple(input.shape))


@_lib.register_fake("conv2d")
def _(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: list[int],
    groups: int,
    out_h: int,
    out_w: int,
    auto: bool,
    tf32: bool,
) -> Tensor:
    check_arguments("conv2d", input, weight, bias, geometry, groups, False)
    return new_features(input, (input.shape[0], weight.shape[0], out_h, out_w), is_channels_last(input))


@_lib.register_fake("conv_transpose2d")
def _(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: list[int],
    groups: int,
    out_h: int,
    out_w: int,
    auto: bool,
    tf32: bool,
) -> Tensor:
    check_arguments("conv_transpose2d", input, weight, bias, geometry, groups, True)
    size = (input.shape[0], weight.shape[1] * groups, out_h, out_w)
    return new_features(input, size, is_channels_last(input))


@_lib.register_fake("conv2d_weight_gradient")
def _(
    small: Tensor, large: Tensor, geometry: list[int], groups: int, kernel_h: int, kernel_w: int, tf32: bool
) -> Tensor:
    return small.new_empty(small.shape[1], large.shape[1] // groups, kernel_h, kernel_w)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, bias, ctx.geometry, ctx.groups, _, _, ctx.auto, ctx.tf32 = inputs
    ctx.save_for_backward(input, weight)
    ctx.with_bias = bias is not None


def _conv_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, weight = ctx.saved_tensors
    by_input, by_weight, own = _gradients_of_torch(ctx, grad, False)
    if own[0]:
        by_input = conv_transpose2d_op(grad, weight, None, ctx.geometry, ctx.groups, *input.shape[2:], False, ctx.tf32)
    if own[1]:
        by_weight = weight_gradient_op(grad, input, ctx.geometry, ctx.groups, *weight.shape[2:], ctx.tf32)
    return by_input, by_weight, _by_bias(ctx, grad), None, None, None, None, None, None


def _transposed_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, weight = ctx.saved_tensors
    by_input, by_weight, own = _gradients_of_torch(ctx, grad, True)
    if own[0]:
        by_input = conv2d_op(grad, weight, None, ctx.geometry, ctx.groups, *input.shape[2:], False, ctx.tf32)
    if own[1]:
        by_weight = weight_gradient_op(input, grad, ctx.geometry, ctx.groups, *weight.shape[2:], ctx.tf32)
    return by_input, by_weight, _by_bias(ctx, grad), None, None, None, None, None, None


def _gradients_of_torch(ctx: Any, grad: Tensor, transposed: bool) -> tuple[Tensor | None, Tensor | None, list[bool]]:
    """Those by input and weight for which torch is faster, and which of the two remain to be computed."""
    input, weight = ctx.saved_tensors
    need = list(ctx.needs_input_grad[:2])
    if not ctx.auto or input.numel() == 0 or weight.numel() == 0:
        return None, None, need
    maps: tuple[Map, Map] = ("gather" if transposed else "scatter", "product")
    own = [n and own_is_faster(m, input, weight, ctx.geometry, ctx.groups) for n, m in zip(need, maps)]
    torchs = [n and not o for n, o in zip(need, own)]
    if not any(torchs):
        return None, None, own
    stride, padding, dilation = ctx.geometry[:2], ctx.geometry[2:4], ctx.geometry[4:]
    extra = [0, 0]
    if transposed:
        least = [(input.shape[2 + k] - 1) * stride[k] + dilation[k] * (weight.shape[2 + k] - 1) + 1 for k in (0, 1)]
        extra = [grad.shape[2 + k] + 2 * padding[k] - least[k] for k in (0, 1)]
    by_input, by_weight, _ = torch.ops.aten.convolution_backward(
        grad, input, weight, None, stride, padding, dilation, transposed, extra, ctx.groups, [*torchs, False]
    )
    return by_input, by_weight, own


def _by_bias(ctx: Any, grad: Tensor) -> Tensor | None:
    return grad.sum((0, 2, 3)) if ctx.with_bias and ctx.needs_input_grad[2] else None


def _setup_weight(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    small, large, ctx.geometry, ctx.groups, _, _, ctx.tf32 = inputs
    ctx.save_for_backward(small, large)


def _weight_backward(ctx: Any, tangent: Tensor) -> tuple[Tensor | None, ...]:
    small, large = ctx.saved_tensors
    by_small = by_large = None
    if ctx.needs_input_grad[0]:
        by_small = conv2d_op(large, tangent, None, ctx.geometry, ctx.groups, *small.shape[2:], False, ctx.tf32)
    if ctx.needs_input_grad[1]:
        by_large = conv_transpose2d_op(
            small, tangent, None, ctx.geometry, ctx.groups, *large.shape[2:], False, ctx.tf32
        )
    return by_small, by_large, None, None, None, None, None


_lib.register_autograd(conv2d_op, _conv_backward, _setup_context)
_lib.register_autograd(conv_transpose2d_op, _transposed_backward, _setup_context)
_lib.register_autograd(weight_gradient_op, _weight_backward, _setup_weight)
_lib.register_vmap(conv2d_op, convolution_rule(conv2d_op, False))
_lib.register_vmap(conv_transpose2d_op, convolution_rule(conv_transpose2d_op, True))
_lib.register_vmap(weight_gradient_op, weight_gradient_rule(weight_gradient_op))
