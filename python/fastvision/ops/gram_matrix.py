"""Gram matrices. Kernels: csrc/kernels/gram_matrix.{h,cpp,cu}. Binding: csrc/torch/gram_matrix.cpp."""

from typing import Any

import torch
from torch import Tensor

from .. import _lib
from . import _arguments, _tf32
from ._convolution import conv2d_op
from ._regions import is_channels_last

_op = _lib.Op[Tensor]("gram_matrix")
LARGE = 1 << 25  # bytes of results for which malloc maps memory anew: our kernels' is mapped in huge pages


def gram_matrix(x: Tensor, y: Tensor | None = None, *, normalize: bool = False) -> Tensor:
    """Inner products of channels over all pixels: what a style loss compares (Gatys et al., CVPR 2016).

    Args:
        x: Features ``(N, C, H, W)``, NCHW or channels_last; float16, bfloat16, float32 or float64.
        y: ``(N, D, H, W)`` of the same dtype for products of the channels of ``x`` with those of ``y``; ``x`` itself
            by default.
        normalize: Divide by ``C * H * W``.

    Returns:
        ``(N, C, C)`` or ``(N, C, D)`` in float32, or float64 for float64 features. Without ``y`` the result equals its
        transpose bit for bit, and of many channels only half of it is computed. Without pixels it is 0.

    Twice differentiable. Deterministic. 16-bit features are multiplied exactly and added up in float32. float32 is
    never rounded, except on CUDA where torch allows TF32 (``torch.backends.cuda.matmul.fp32_precision``). NaN and
    infinity reach the rows and columns of their channel.

    Raises:
        TypeError: Not floating point, or different dtypes.
        ValueError: Wrong shapes, or different devices.

    >>> gram_matrix(torch.tensor([[[[1.0, 2.0]], [[0.0, 3.0]]]]))
    tensor([[[5., 6.],
             [6., 9.]]])
    """
    result: Tensor = _op(x, y, normalize, _tf32.in_products())
    return result


@_lib.register_fake("gram_matrix")
def _(x: Tensor, y: Tensor | None, normalize: bool, tf32: bool) -> Tensor:
    _arguments.all_floats("gram_matrix", "x", x)
    _arguments.shape(x.dim() == 4, "gram_matrix", "x", x, "(N, C, H, W)")
    y = x if y is None else y
    _arguments.same_dtype("gram_matrix", "y", y, "x", x)
    _arguments.same_device("gram_matrix", "y", y, "x", x)
    fits = y.dim() == 4 and y.shape[0] == x.shape[0] and y.shape[2:] == x.shape[2:]
    _arguments.shape(fits, "gram_matrix", "y", y, "(N, D, H, W) with N, H and W of x")
    return x.new_empty(x.shape[0], x.shape[1], y.shape[1], dtype=_arguments.accumulated(x.dtype))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, y, ctx.normalize, _ = inputs
    ctx.save_for_backward(x, y)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, y = ctx.saved_tensors
    elements = x.shape[1] * x.shape[2] * x.shape[3]
    if ctx.normalize and elements:
        grad = grad / elements
    if y is None:
        return mix_channels(grad + grad.mT, x), None, None, None
    return mix_channels(grad, y), mix_channels(grad.mT, x), None, None


def mix_channels(factors: Tensor, features: Tensor) -> Tensor:
    """Channels ``factors @ features`` in the dtype and format of the features and at their precision at least."""
    wide = features.to(factors.dtype)
    channels_last, channels = is_channels_last(wide), min(factors.shape[1:])
    large = wide.numel() * wide.element_size() >= LARGE and channels >= 16
    if large and wide.device.type == "cpu" and (wide.shape[0] == 1 or not channels_last):
        mixed = _mix_many_pixels(factors, wide)
    elif channels_last:
        mixed = (wide.permute(0, 2, 3, 1).flatten(1, 2) @ factors.mT).unflatten(1, wide.shape[2:]).permute(0, 3, 1, 2)
    else:
        mixed = (factors @ wide.flatten(2)).unflatten(2, wide.shape[2:])
    return mixed.to(features.dtype)


def _mix_many_pixels(factors: Tensor, wide: Tensor) -> Tensor:
    """The same as a convolution by 1 x 1, each image a group."""
    images, channels, height, width = wide.shape
    weight = factors.reshape(-1, channels, 1, 1)
    batch = wide if images == 1 else wide.reshape(1, -1, height, width)
    mixed = conv2d_op(batch, weight, None, [1, 1, 0, 0, 1, 1], images, height, width, False, False)
    return mixed.unflatten(1, (images, -1))[0] if images > 1 else mixed


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_folding_vmap(_op, 0, 1)


def gram_matrix_reference(x: Tensor, y: Tensor | None = None, *, normalize: bool = False) -> Tensor:
    """The definition of :func:`gram_matrix` in plain PyTorch."""
    products = torch.einsum("nchw,ndhw->ncd", x, x if y is None else y)
    return products / max(x[:1].numel(), 1) if normalize else products
