"""Max pooling. Kernels: csrc/kernels/max_pool2d.{h,cpp,cu}. Binding: csrc/torch/max_pool2d.cpp."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _lib
from . import _arguments
from ._regions import is_channels_last, memory_format, new_features

_op = _lib.Op[tuple[Tensor, Tensor]]("max_pool2d")
_backward_op = _lib.Op[Tensor]("max_pool2d_backward")


def max_pool2d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    compact_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Maximum over windows of a feature map, as ``torch.nn.functional.max_pool2d``.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, NCHW or channels_last; float16, bfloat16, float32 or float64.
        kernel_size, stride, padding, dilation: Pixels, one int or (vertical, horizontal). ``stride`` is
            ``kernel_size`` by default; ``padding`` is at most half of the effective kernel.
        ceil_mode: Also windows that reach beyond the padded map, as long as they start inside.
        return_indices: Also return where each maximum was.
        compact_indices: Indices as uint8 numbers of taps within their window (row by row) instead of int64 positions
            ``y * W + x``: an eighth of the memory. For kernels of at most 255 taps; :func:`max_unpool2d` takes both.

    Returns:
        The maxima in the dtype and memory format of ``input``, with the indices if asked for. Of equal maxima the
        first in the order of rows counts; a NaN is the maximum of its windows (of several the last).

    Twice differentiable. Deterministic forward and backward, without atomics. Memory saved for the backward: one byte
    per maximum.

    Raises:
        TypeError: ``input`` is not floating point.
        ValueError: Wrong shapes or numbers.

    >>> x = torch.tensor([[[1.0, 5.0], [7.0, 3.0]]])
    >>> max_pool2d(x, 2, return_indices=True, compact_indices=True)
    (tensor([[[7.]]]), tensor([[[2]]], dtype=torch.uint8))
    """
    window = window_of("max_pool2d", kernel_size, stride, padding, dilation)
    batch = with_batch("max_pool2d", "input", input)
    compact = compact_indices or (not return_indices and window[0] * window[1] <= 255)
    out, index = _op(batch, window, ceil_mode, compact)
    if input.dim() == 3:
        out, index = out[0], index[0]
    return (out, index) if return_indices else out


def window_of(
    op: str,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
) -> list[int]:
    """Kernel, stride, padding and dilation as two numbers each."""
    kernel = _arguments.pair(op, "kernel_size", kernel_size)
    stride = kernel if stride is None or stride == [] else stride
    pairs = (("stride", stride), ("padding", padding), ("dilation", dilation))
    return [*kernel, *(n for name, value in pairs for n in _arguments.pair(op, name, value))]


def with_batch(op: str, argument: str, t: Tensor) -> Tensor:
    if t.dim() not in (3, 4):
        shape = tuple(t.shape)
        raise ValueError(f"{op}: {argument}: expected shape (N, C, H, W) or (C, H, W), got {shape}")
    return t if t.dim() == 4 else t[None]


def check_window(op: str, window: Sequence[int]) -> None:
    """For fake kernels: geometry_of in csrc/torch/pooling.h."""
    kernel, stride, padding, dilation = (list(window[k : k + 2]) for k in range(0, 8, 2))
    _arguments.steps(op, "kernel_size", kernel, 1)
    _arguments.steps(op, "stride", stride, 1)
    _arguments.steps(op, "padding", padding, 0)
    _arguments.steps(op, "dilation", dilation, 1)
    half = all(p <= ((k - 1) * d + 1) // 2 for p, k, d in zip(padding, kernel, dilation))
    _lib.check(half, op, ": padding: expected at most half of the effective kernel size, got ", tuple(padding))


def _out_size(size: int, window: Sequence[int], ceil_mode: bool) -> int:
    kernel, stride, padding, dilation = window
    room = size + 2 * padding - dilation * (kernel - 1) - 1 + (stride - 1 if ceil_mode else 0)
    out = room // stride + 1
    return out - 1 if ceil_mode and (out - 1) * stride >= size + padding else out


@_lib.register_fake("max_pool2d")
def _(input: Tensor, window: list[int], ceil_mode: bool, compact: bool) -> tuple[Tensor, Tensor]:
    _arguments.all_floats("max_pool2d", "input", input)
    _arguments.shape(input.dim() == 4, "max_pool2d", "input", input, "(N, C, H, W) or (C, H, W)")
    check_window("max_pool2d", window)
    fits = not compact or window[0] * window[1] <= 255
    _lib.check(fits, "max_pool2d: compact_indices: expected a kernel of at most 255 taps, got ", window[:2])
    height, width = (_out_size(input.shape[2 + k], window[k::2], ceil_mode) for k in (0, 1))
    enough = height >= 1 and width >= 1
    _lib.check(enough, "max_pool2d: input: expected at least one window in padded maps, got ", tuple(input.shape))
    out = new_features(input, (*input.shape[:2], height, width), is_channels_last(input))
    return out, torch.empty_like(out, dtype=torch.uint8 if compact else torch.int64)


@_lib.register_fake("max_pool2d_backward")
def _(grad: Tensor, indices: Tensor, window: list[int], h: int, w: int, channels_last: bool) -> Tensor:
    return new_features(grad, (*grad.shape[:2], h, w), channels_last)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    input, ctx.window, _, _ = inputs
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.size = input.shape[2:]
    ctx.channels_last = is_channels_last(input)


def _backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
    (index,) = ctx.saved_tensors
    return _backward_op(grad, index, ctx.window, *ctx.size, ctx.channels_last), None, None, None


def _setup_second_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, index, ctx.window, _, ctx.width, _ = inputs
    ctx.save_for_backward(index)


def _second_backward(ctx: Any, tangent: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient is linear in grad, and its transpose reads the tangent where the maxima were."""
    (index,) = ctx.saved_tensors
    places = positions(index, ctx.window, ctx.width)
    found = tangent.flatten(2).gather(2, places.clamp(min=0).flatten(2)).view(index.shape)
    return torch.where(places >= 0, found, 0), None, None, None, None, None


def positions(index: Tensor, window: Sequence[int], width: int) -> Tensor:
    """Indices as int64 positions, -1 for windows without a pixel."""
    if index.dtype == torch.int64:
        return index
    (ky, kx), (sy, sx), (py, px), (dy, dx) = (window[k : k + 2] for k in range(0, 8, 2))
    tap, (out_h, out_w) = index.long(), index.shape[2:]
    y = torch.arange(out_h, device=index.device)[:, None] * sy - py + tap // kx * dy
    x = torch.arange(out_w, device=index.device) * sx - px + tap % kx * dx
    return torch.where(tap < ky * kx, y * width + x, -1).contiguous(memory_format=memory_format(False))


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_autograd(_backward_op, _second_backward, _setup_second_context)
_lib.register_folding_vmap(_op, 0)
_lib.register_folding_vmap(_backward_op, 0, 1)


def max_pool2d_reference(input: Tensor, window: Sequence[int], ceil_mode: bool = False) -> tuple[Tensor, Tensor]:
    """The definition of :func:`max_pool2d` in plain PyTorch, with int64 positions; a window has at least one pixel."""
    (ky, kx), (sy, sx), (py, px), (dy, dx) = (window[k : k + 2] for k in range(0, 8, 2))
    height, width = input.shape[2:]
    rows, columns = (_out_size(input.shape[2 + k], window[k::2], ceil_mode) for k in (0, 1))
    values, places = [], []
    for oy in range(rows):
        for ox in range(columns):
            y = [v for v in range(oy * sy - py, oy * sy - py + ky * dy, dy) if 0 <= v < height]
            x = [v for v in range(ox * sx - px, ox * sx - px + kx * dx, dx) if 0 <= v < width]
            taps = torch.tensor([v * width + u for v in y for u in x])
            seen = input.flatten(2)[:, :, taps]
            last_nan = (seen.isnan() * torch.arange(1, len(taps) + 1)).argmax(-1)
            best = torch.where(seen.isnan().any(-1), last_nan, seen.argmax(-1))
            values.append(seen.gather(-1, best[..., None])[..., 0])
            places.append(taps[best])
    shape = (*input.shape[:2], rows, columns)
    return torch.stack(values, -1).view(shape), torch.stack(places, -1).view(shape)
