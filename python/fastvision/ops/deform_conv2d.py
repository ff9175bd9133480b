"""Deformable convolution. Kernels: csrc/kernels/deform_conv2d.{h,cpp,cu}. Binding: csrc/torch/deform_conv2d.cpp."""

from typing import Any

import torch
from torch import Tensor

from .. import _lib
from . import _arguments
from ._convolution import geometry_of
from ._deform_checks import check_arguments
from ._regions import is_channels_last, new_features

_op = _lib.Op[Tensor]("deform_conv2d")
_input_gradient_op = _lib.Op[tuple[Tensor, Tensor, Tensor]]("deform_conv2d_input_gradient")
_weight_gradient_op = _lib.Op[Tensor]("deform_conv2d_weight_gradient")


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = (1, 1),
    padding: int | tuple[int, int] = (0, 0),
    dilation: int | tuple[int, int] = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """Convolution whose taps are moved by offsets (Dai et al., ICCV 2017), with ``mask`` Deformable ConvNets v2 (Zhu et
    al., CVPR 2019).

    Args:
        input: ``(N, C, H, W)``, NCHW or channels_last; float16, bfloat16, float32 or float64.
        offset: ``(N, 2 * G * kernel height * kernel width, H', W')``: how far each tap of each output pixel is moved,
            in pixels; y, then x, by tap, by offset group. Of the dtype of ``input``, or float32 beside 16-bit input.
            Each of the G offset groups is for ``C / G`` channels.
        weight: ``(D, C / groups, kernel height, kernel width)`` of the dtype of ``input``.
        bias: ``(D,)``, added to every pixel.
        stride, padding, dilation: Pixels, one int or (vertical, horizontal).
        mask: ``(N, G * kernel height * kernel width, H', W')`` to multiply the samples with, in a dtype that ``offset``
            may have.

    Returns:
        ``(N, D, H', W')`` in the dtype and memory format of ``input``, with
        ``H' = (H + 2 * padding - dilation * (kernel height - 1) - 1) // stride + 1``.

    Samples are bilinear, with zeros around the map; a sample whose place is not finite is zero. NaN and infinity in
    ``input`` reach the outputs that depend on them. Deterministic forward and backward, without a column
    buffer and without atomics. Twice differentiable: the second derivatives by ``input``, ``offset`` and ``mask`` are
    torch's of the definition, with columns. 16-bit problems are added up in float32, and their offsets keep float32. In
    an autocast region ``weight`` and ``bias`` are cast to the dtype of ``input``.

    Raises:
        TypeError: Not floating point, or different dtypes.
        ValueError: Wrong shapes or numbers, or different devices.

    >>> x = torch.arange(9.0).view(1, 1, 3, 3)
    >>> deform_conv2d(x, torch.full((1, 2, 3, 3), 0.5), torch.ones(1, 1, 1, 1))[0, 0]
    tensor([[2.0000, 3.0000, 1.7500],
            [5.0000, 6.0000, 3.2500],
            [3.2500, 3.7500, 2.0000]])
    """
    geometry = geometry_of("deform_conv2d", stride, padding, dilation)
    if _arguments.autocast_dtype(input.device) is not None:
        weight, bias = weight.to(input.dtype), None if bias is None else bias.to(input.dtype)
        offset, mask = _as_offset(input, offset, True), None if mask is None else _as_offset(input, mask, True)
    offset, mask = _as_offset(input, offset), None if mask is None else _as_offset(input, mask)
    out: Tensor = _op(input, offset, weight, bias, mask, geometry)
    return out


def _as_offset(input: Tensor, t: Tensor, any_dtype: bool = False) -> Tensor:
    """16-bit offsets and masks as float32."""
    halves = (torch.float16, torch.bfloat16)
    if t.dtype in halves and input.dtype == t.dtype:
        return t.float()
    return t.to(_arguments.accumulated(input.dtype)) if any_dtype else t


@_lib.register_fake("deform_conv2d")
def _(
    input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, geometry: list[int]
) -> Tensor:
    op = "deform_conv2d"
    shape = check_arguments(op, input, offset, weight, mask, geometry)
    if bias is not None:
        _arguments.same_dtype(op, "bias", bias, "input", input)
        _arguments.same_device(op, "bias", bias, "input", input)
        fits = bias.dim() == 1 and bias.shape[0] == shape[1]
        _lib.check(fits, op, ": bias: expected shape (", shape[1], ",), got ", tuple(bias.shape))
    return new_features(input, shape, is_channels_last(input))


@_lib.register_fake("deform_conv2d_input_gradient")
def _(
    grad: Tensor, input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    check_arguments("deform_conv2d_input_gradient", input, offset, weight, mask, geometry)
    by_mask = offset.new_empty(0 if mask is None else mask.shape)
    return new_features(input, input.shape, is_channels_last(input)), offset.new_empty(offset.shape), by_mask


@_lib.register_fake("deform_conv2d_weight_gradient")
def _(grad: Tensor, input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: list[int]) -> Tensor:
    check_arguments("deform_conv2d_weight_gradient", input, offset, weight, mask, geometry)
    return weight.new_empty(weight.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, offset, weight, bias, mask, ctx.geometry = inputs
    ctx.save_for_backward(input, offset, weight, mask)
    ctx.with_bias = bias is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, offset, weight, mask = ctx.saved_tensors
    need = ctx.needs_input_grad
    by_input = by_offset = by_weight = by_bias = by_mask = None
    if need[0] or need[1] or need[4]:
        by_input, by_offset, by_mask = _input_gradient_op(grad, input, offset, weight, mask, ctx.geometry)
    if need[2]:
        by_weight = _weight_gradient_op(grad, input, offset, weight, mask, ctx.geometry)
    if ctx.with_bias and need[3]:
        by_bias = grad.sum((0, 2, 3))
    return by_input, by_offset, by_weight, by_bias, None if mask is None else by_mask, None


def _setup_second_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.geometry = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(True)  # the second gradient is of all results together


def _second_input_backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
    """From the definition, in float32 at least: second slopes by offsets are rarely asked for."""
    grad, *tensors = ctx.saved_tensors
    given = [t for t in tensors if t is not None]
    wide = _arguments.accumulated(grad.dtype)
    stride, padding, dilation = ctx.geometry[:2], ctx.geometry[2:4], ctx.geometry[4:]

    def first(grad: Tensor, input: Tensor, offset: Tensor, weight: Tensor, *masks: Tensor) -> tuple[Tensor, ...]:
        def result(input: Tensor, offset: Tensor, *masks: Tensor) -> Tensor:
            mask = masks[0] if masks else None
            return deform_conv2d_reference(input, offset, weight, None, stride, padding, dilation, mask)

        gradients: tuple[Tensor, ...] = torch.func.vjp(result, input, offset, *masks)[1](grad)
        return gradients

    second = torch.func.vjp(first, *(t.to(wide) for t in (grad, *given)))[1]
    by = second(tuple(c.to(wide) for c in cotangents[: len(given) - 1]))
    by = tuple(b.to(t.dtype) for b, t in zip(by, (grad, *given)))
    return (*by, None) if len(given) == len(tensors) else (*by, None, None)


def _second_weight_backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient by weight, times the cotangent, is the convolution with the cotangent as weight, times grad."""
    grad, input, offset, _, mask = ctx.saved_tensors
    by_grad = _op(input, offset, cotangent, None, mask, ctx.geometry)
    by_input, by_offset, by_mask = _input_gradient_op(grad, input, offset, cotangent, mask, ctx.geometry)
    return by_grad, by_input, by_offset, None, None if mask is None else by_mask, None


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_autograd(_input_gradient_op, _second_input_backward, _setup_second_context)
_lib.register_autograd(_weight_gradient_op, _second_weight_backward, _setup_second_context)
_lib.register_folding_vmap(_op, 0, 1, 4)
_lib.register_folding_vmap(_input_gradient_op, 0, 1, 2, 4)


def deform_conv2d_reference(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = (1, 1),
    padding: int | tuple[int, int] = (0, 0),
    dilation: int | tuple[int, int] = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """The definition of :func:`deform_conv2d` in plain PyTorch."""
    geometry = geometry_of("deform_conv2d", stride, padding, dilation)
    n, c, h, w = input.shape
    d, per_group, kernel_h, kernel_w = weight.shape
    out_h, out_w = offset.shape[2:]
    groups, taps = c // per_group, kernel_h * kernel_w
    offset_groups = offset.shape[1] // (2 * taps)
    moved = offset.reshape(n, offset_groups, kernel_h, kernel_w, 2, out_h, out_w)

    def positions(size: int, kernel: int, axis: int) -> Tensor:
        taps_at = torch.arange(kernel, device=input.device) * geometry[4 + axis] - geometry[2 + axis]
        return taps_at[:, None] + torch.arange(size, device=input.device) * geometry[axis]

    y = positions(out_h, kernel_h, 0)[:, None, :, None] + moved[:, :, :, :, 0]
    x = positions(out_w, kernel_w, 1)[None, :, None, :] + moved[:, :, :, :, 1]
    inside = (y >= -1) & (y < h) & (x >= -1) & (x < w)
    y, x = torch.where(inside, y, 0), torch.where(inside, x, 0)
    low_y, low_x = y.detach().floor(), x.detach().floor()
    by_group = input.reshape(n, offset_groups, c // offset_groups, h * w)
    samples: Any = 0
    for corner in range(4):
        row, column = low_y + corner // 2, low_x + corner % 2
        share_y = y - low_y if corner // 2 else 1 - (y - low_y)
        share_x = x - low_x if corner % 2 else 1 - (x - low_x)
        there = inside & (row >= 0) & (row < h) & (column >= 0) & (column < w)
        place = torch.where(there, row * w + column, 0).long()
        values = by_group.gather(3, place.flatten(2)[:, :, None].expand(-1, -1, by_group.shape[2], -1))
        values = values.unflatten(3, place.shape[2:])
        # A pixel with share 0 takes no part in the value, whatever it is, but it does in the slope.
        share = torch.where(there, share_y * share_x, 0)[:, :, None]
        skipped = ((share.detach() == 0) & ~values.detach().isfinite()) | ~there[:, :, None]
        samples = samples + torch.where(skipped, 0, share * torch.where(skipped, 0, values))
    if mask is not None:
        factors = torch.where(inside, mask.reshape(y.shape), 0)
        samples = samples * factors[:, :, None]
    columns = samples.reshape(n, groups, per_group * taps, out_h * out_w)
    out: Tensor = weight.reshape(groups, d // groups, per_group * taps) @ columns
    out = out.view(n, d, out_h, out_w)
    return out if bias is None else out + bias[:, None, None]
