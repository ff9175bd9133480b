"""Transposed convolution. Everything that it shares with convolution: ops/_convolution.py."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .. import _lib
from . import _arguments, _tf32
from ._convolution import (
    autocast,
    check_algorithm,
    check_arguments,
    conv_transpose2d_op,
    geometry_of,
    with_batch,
)
from ._dispatch import forward


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    *,
    algorithm: str = "auto",
) -> Tensor:
    """Transposed convolution, as ``torch.nn.functional.conv_transpose2d``: the upsampling of FCN, U-Net and DCGAN.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, NCHW or channels_last; float16, bfloat16, float32 or float64.
        weight: ``(C, D / groups, kernel height, kernel width)`` of the same dtype.
        bias: ``(D,)``, added to every pixel.
        stride, padding, output_padding, dilation: Pixels, one int or (vertical, horizontal). ``output_padding`` is less
            than the larger of ``stride`` and ``dilation``.
        groups: Groups of channels that have nothing to do with each other.
        algorithm: ``"fastvision"``, ``"torch"``, or by ``"auto"`` the one that is faster for this problem, for the
            result and each gradient by itself: the own kernels for one channel per group (on the CPU with a kernel
            twice the stride, a dilation, or float64), and on the CPU for most windows side by side (kernel = stride,
            as in U-Net) in NCHW and, for the gradient by the weight and in float16, in channels_last; for gradients by
            a float16 weight; for large dense problems with stride 1 in float64 and some in float32 and 16 bits. What
            else has a 16-bit dtype that the processor cannot multiply is computed in float32, as in :func:`conv2d`.
            The rule is ``ops/_dispatch_rule.py``, what was measured ``docs/kernels/dispatch.md``.

    Returns:
        ``(N, D, H', W')`` or ``(D, H', W')`` in the dtype and memory format of ``input``, with
        ``H' = (H - 1) * stride - 2 * padding + dilation * (kernel height - 1) + output_padding + 1``.

    The own kernels compute each of the ``stride^2`` residues of the output as a dense convolution: no column buffer, no
    atomics, deterministic, and so are their gradients; any number of times differentiable. 16-bit problems are added up
    in float32; float32 is never rounded, except to TF32 as :func:`conv2d` says. NaN and infinity reach the pixels that
    depend on them. 3 x 3 kernels with stride 1 on the CPU are Winograd's, as in :func:`conv2d`.

    Raises:
        TypeError: Not floating point, or different dtypes.
        ValueError: Wrong shapes or numbers, or different devices.

    >>> conv_transpose2d(torch.tensor([[[1.0, 2.0]]]), torch.ones(1, 1, 1, 3), stride=2)
    tensor([[[1., 1., 3., 2., 2.]]])
    """
    op = "conv_transpose2d"
    check_algorithm(op, algorithm)
    geometry = geometry_of(op, stride, padding, dilation)
    extra = _arguments.pair(op, "output_padding", output_padding)
    batch, weight, bias = autocast(with_batch(op, input), weight, bias)
    try:
        check_arguments(op, batch, weight, bias, geometry, groups, True)
    except RuntimeError as error:
        raise _lib.translate(error) from None
    for n, s, d in zip(extra, geometry[:2], geometry[4:]):
        if not 0 <= n < max(s, d):
            bound = f"integers >= 0 and < max(stride, dilation) = {max(s, d)}"
            raise ValueError(f"{op}: output_padding: expected {bound}, got {tuple(extra)}")
    size = [
        (batch.shape[2 + k] - 1) * geometry[k]
        - 2 * geometry[2 + k]
        + geometry[4 + k] * (weight.shape[2 + k] - 1)
        + extra[k]
        + 1
        for k in (0, 1)
    ]
    if min(size) < 1:
        raise ValueError(f"{op}: padding: expected an output of at least 1x1, got {size[0]}x{size[1]}")
    options = geometry, groups, *size, algorithm == "auto", _tf32.in_convolutions()

    def own(batch: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return conv_transpose2d_op(batch, weight, bias, *options)

    def torchs(batch: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        strides, padding, dilation = geometry[:2], geometry[2:4], geometry[4:]
        return functional.conv_transpose2d(batch, weight, bias, strides, padding, list(extra), groups, dilation)

    out = forward("scatter", algorithm, own, torchs, batch, weight, bias, geometry, groups)
    return out if input.dim() == 4 else out[0]


def upsample_bilinear_kernel(
    channels: int, stride: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Weights with which a transposed convolution upsamples bilinearly: the start of FCN's (Long et al., CVPR 2015).

    Args:
        channels: Number of channels, each upsampled by itself.
        stride: Upsampling factor, at least 1.
        dtype, device: Of the result; torch's defaults where None.

    Returns:
        ``(channels, 1, k, k)`` with ``k = 2 * stride - stride % 2``, for :func:`conv_transpose2d` with this ``stride``
        and ``groups=channels``. With ``padding=stride // 2`` the output is ``stride`` times as large as the input.

    Raises:
        ValueError: ``channels`` below 0 or ``stride`` below 1.

    >>> upsample_bilinear_kernel(1, 2)[0, 0, 0]
    tensor([0.0625, 0.1875, 0.1875, 0.0625])
    """
    if channels < 0:
        raise ValueError(f"upsample_bilinear_kernel: channels: expected an integer >= 0, got {channels}")
    if stride < 1:
        raise ValueError(f"upsample_bilinear_kernel: stride: expected an integer >= 1, got {stride}")
    size = 2 * stride - stride % 2
    distance = torch.arange(size, dtype=torch.float64, device=device) - (size - 1) / 2
    tent = 1 - distance.abs() / stride
    kernel = (tent[:, None] * tent).to(dtype or torch.get_default_dtype())
    return kernel.expand(channels, 1, size, size).contiguous()
