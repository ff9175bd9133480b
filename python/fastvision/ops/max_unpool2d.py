"""Max unpooling. Kernels: csrc/kernels/max_unpool2d.{h,cpp,cu}. Binding: csrc/torch/max_unpool2d.cpp."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _lib
from . import _arguments
from ._regions import is_channels_last, new_features
from .max_pool2d import check_window, positions, window_of, with_batch

_op = _lib.Op[Tensor]("max_unpool2d")
_backward_op = _lib.Op[Tensor]("max_unpool2d_backward")


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Put values back where :func:`max_pool2d` found them, zeros elsewhere (SegNet: Badrinarayanan et al., 2017).

    Args:
        input: ``(N, C, h, w)`` or ``(C, h, w)``, NCHW or channels_last; float16, bfloat16, float32 or float64.
        indices: Of the same shape: int64 positions ``y * W + x`` in the output, or uint8 numbers of taps in the window
            (``compact_indices=True``), which are faster.
        kernel_size, stride, padding: Those of the pooling.
        output_size: ``(H, W)``, or the whole shape of the pooled tensor; it may differ from
            ``(h - 1) * stride - 2 * padding + kernel_size`` by less than ``stride``.

    Returns:
        ``(N, C, H, W)`` or ``(C, H, W)`` in the dtype and memory format of ``input``. Of values for the same place the
        one at the highest position of ``input`` stays.

    Twice differentiable: the gradient is that of what the forward did, so a value that did not stay has gradient 0.
    Deterministic. With uint8 indices, the output is written once; with int64 ones, CUDA needs 8 bytes of scratch
    memory per output element.

    Raises:
        TypeError: Wrong dtypes.
        ValueError: Wrong shapes or numbers; an index outside the output (on CUDA its value is left out and counted, see
            :func:`device_errors`; the row is the number of the element in ``indices``).

    torch calls the result of overlapping windows undefined and gives every one of the values its gradient.

    >>> max_unpool2d(torch.tensor([[[7.0]]]), torch.tensor([[[2]]]), 2)
    tensor([[[0., 0.],
             [7., 0.]]])
    """
    window = window_of("max_unpool2d", kernel_size, stride, padding)
    batch = with_batch("max_unpool2d", "input", input)
    height, width = _output_size(batch.shape[2:], window, output_size)
    if indices.dim() != input.dim():
        shapes = f"{tuple(input.shape)} as input, got {tuple(indices.shape)}"
        raise ValueError(f"max_unpool2d: indices: expected shape {shapes}")
    out: Tensor = _op(batch, indices if indices.dim() == 4 else indices[None], window, height, width)
    return out if input.dim() == 4 else out[0]


def _output_size(size: Sequence[int], window: list[int], output_size: Sequence[int] | None) -> tuple[int, int]:
    kernel, stride, padding = window[0:2], window[2:4], window[4:6]
    default = [(n - 1) * s - 2 * p + k for n, s, p, k in zip(size, stride, padding, kernel)]
    if output_size is None:
        return default[0], default[1]
    wanted = list(output_size)[-2:]
    if len(wanted) != 2:
        raise ValueError(f"max_unpool2d: output_size: expected at least 2 integers, got {tuple(output_size)}")
    if any(abs(n - d) >= s for n, d, s in zip(wanted, default, stride)):
        low, high = ([d + sign * (s - 1) for d, s in zip(default, stride)] for sign in (-1, 1))
        raise ValueError(f"max_unpool2d: output_size: expected between {low} and {high}, got {wanted}")
    return wanted[0], wanted[1]


@_lib.register_fake("max_unpool2d")
def _(input: Tensor, indices: Tensor, window: list[int], out_h: int, out_w: int) -> Tensor:
    _arguments.all_floats("max_unpool2d", "input", input)
    _arguments.shape(input.dim() == 4, "max_unpool2d", "input", input, "(N, C, H, W) or (C, H, W)")
    index_dtype = "int64, or uint8 from compact_indices=True"
    ok = indices.dtype in (torch.int64, torch.uint8)
    _lib.check(ok, "max_unpool2d: indices: expected dtype ", index_dtype, ", got ", indices.dtype)
    _arguments.same_device("max_unpool2d", "indices", indices, "input", input)
    _arguments.shape(indices.shape == input.shape, "max_unpool2d", "indices", indices, f"{tuple(input.shape)} as input")
    check_window("max_unpool2d", window)
    _lib.check(out_h >= 1 and out_w >= 1, "max_unpool2d: output_size: expected integers >= 1, got ", (out_h, out_w))
    return new_features(input, (*input.shape[:2], out_h, out_w), is_channels_last(input))


@_lib.register_fake("max_unpool2d_backward")
def _(grad: Tensor, indices: Tensor, window: list[int], channels_last: bool) -> Tensor:
    return new_features(grad, indices.shape, channels_last)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, indices, ctx.window, _, _ = inputs
    ctx.save_for_backward(indices)
    ctx.channels_last = is_channels_last(input)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (indices,) = ctx.saved_tensors
    return _backward_op(grad, indices, ctx.window, ctx.channels_last), None, None, None, None


def _setup_second_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, indices, ctx.window, _ = inputs
    ctx.save_for_backward(indices)
    ctx.size = grad.shape[2:]


def _second_backward(ctx: Any, tangent: Tensor) -> tuple[Tensor | None, ...]:
    (indices,) = ctx.saved_tensors
    return _op(tangent, indices, ctx.window, *ctx.size), None, None, None


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_autograd(_backward_op, _second_backward, _setup_second_context)
_lib.register_folding_vmap(_op, 0, 1)
_lib.register_folding_vmap(_backward_op, 0, 1)


def max_unpool2d_reference(input: Tensor, indices: Tensor, window: Sequence[int], size: Sequence[int]) -> Tensor:
    """The definition of :func:`max_unpool2d` in plain PyTorch."""
    places = positions(indices, window, size[1]).flatten(2)
    number = torch.arange(1, places.shape[2] + 1).expand(places.shape)
    owner = places.new_zeros(*places.shape[:2], size[0] * size[1]).scatter_reduce(2, places, number, "amax")
    values = input.flatten(2).gather(2, (owner - 1).clamp(min=0))
    return torch.where(owner > 0, values, 0).view(*input.shape[:2], *size)
