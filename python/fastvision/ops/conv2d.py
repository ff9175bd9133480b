"""Convolution. Everything that it shares with transposed convolution: ops/_convolution.py."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from .. import _lib
from . import _arguments, _tf32
from ._convolution import (
    autocast,
    check_algorithm,
    check_arguments,
    conv2d_op,
    geometry_of,
    with_batch,
)
from ._dispatch import forward
from ._dispatch_problem import has_empty_windows


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    algorithm: str = "auto",
) -> Tensor:
    """Convolution, as ``torch.nn.functional.conv2d``, quick where it is 3 x 3, or depthwise and atrous.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, NCHW or channels_last; float16, bfloat16, float32 or float64.
        weight: ``(D, C / groups, kernel height, kernel width)`` of the same dtype.
        bias: ``(D,)``, added to every pixel.
        stride, padding, dilation: Pixels, one int or (vertical, horizontal). ``padding`` may be ``"valid"``, or
            ``"same"`` where ``stride`` is 1.
        groups: Groups of channels that have nothing to do with each other.
        algorithm: ``"fastvision"``, ``"torch"``, or by ``"auto"`` the one that is faster for this problem, for the
            result and each gradient by itself: the own kernels for one channel per group and a dilation above 1 (on
            the CPU of at least 8, except for gradients), and on the CPU where padding is as large as the dilated
            kernel, for 3 x 3 kernels with stride 1, one group and some 32 channels or more (64 for the gradient by the
            weight; in 16 bits some 48 where the processor multiplies vectors of them; none where it multiplies
            matrices), and for large maps and 2 x 2 windows side by side (in channels_last mostly the gradient by the
            weight), for one channel per group in float64, where torch is slow with 3 x 3 kernels whose dilation is near
            half of the map, for large dense problems in float64, and for gradients by a float16 weight, which take
            torch hundreds of times as long. In a 16-bit dtype that the processor cannot multiply (``fastvision info``
            says which) also for few pixels, one channel per group and windows side by side; what else has such a dtype
            is computed in float32 and rounded once. The rule is ``ops/_dispatch_rule.py``, what was measured
            ``docs/kernels/dispatch.md``.

    Returns:
        ``(N, D, H', W')`` or ``(D, H', W')`` in the dtype and memory format of ``input``, with
        ``H' = (H + 2 * padding - dilation * (kernel height - 1) - 1) // stride + 1``.

    The own kernels have no column buffer and no atomics; they and their gradients are deterministic, and any number of
    times differentiable. 16-bit problems are added up in float32. float32 is never rounded, except on CUDA where torch
    allows TF32 for convolutions (``torch.backends.cudnn.conv.fp32_precision``; it does by default) and both maps have
    at least 16 channels per group. NaN and infinity reach the pixels that depend on them.

    In float32 on the CPU, a 3 x 3 kernel with stride 1, one group and at least 8 channels is Winograd's F(2 x 2, 3 x 3)
    (Lavin and Gray, CVPR 2016), which has 4/9 of the products. Its rounding errors are up to twice those of direct
    summation on average, as a share of the largest of the 4 x 4 pixels that are computed together; integers and
    multiples of 1/8 that are small stay exact. 16-bit maps take F(4 x 4, 3 x 3) in float32, with 1/4 of the products;
    its errors, some 8 times those of direct summation in float32, are far below the rounding of the largest of the
    6 x 6 pixels that are computed together: beside a pixel a thousand times as large as its neighbours, results that
    are that much smaller have fewer right digits than summed directly. With a dilation so large that this does not
    save products, taps inside of the map are summed directly, as ``"torch"`` does always. Gradients by the weights are
    added up by the transposed algorithm; their errors are near those of torch's, which adds more numbers in a row.

    Raises:
        TypeError: Not floating point, or different dtypes.
        ValueError: Wrong shapes or numbers, or different devices.

    >>> import torch
    >>> conv2d(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.ones(1, 1, 1, 2), dilation=2)
    tensor([[[4.]]])
    """
    op = "conv2d"
    check_algorithm(op, algorithm)
    batch, weight, bias = autocast(with_batch(op, input), weight, bias)
    if isinstance(padding, str):
        batch, padding = _named_padding(batch, weight, stride, padding, dilation)
    geometry = geometry_of(op, stride, padding, dilation)
    try:
        check_arguments(op, batch, weight, bias, geometry, groups, False)
    except RuntimeError as error:
        raise _lib.translate(error) from None
    options = geometry, groups, *_output_size(batch, weight, geometry), algorithm == "auto", _tf32.in_convolutions()

    def own(batch: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return conv2d_op(batch, weight, bias, *options)

    def torchs(batch: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if batch.device.type == "cpu" and has_empty_windows(weight.shape[2:], geometry):
            batch, weight = batch.contiguous(), weight.contiguous()  # torch 2.13 may crash on channels_last
        return functional.conv2d(batch, weight, bias, geometry[:2], geometry[2:4], geometry[4:], groups)

    out = forward("gather", algorithm, own, torchs, batch, weight, bias, geometry, groups)
    return out if input.dim() == 4 else out[0]


def _named_padding(
    batch: Tensor, weight: Tensor, stride: int | Sequence[int], padding: str, dilation: int | Sequence[int]
) -> tuple[Tensor, tuple[int, int]]:
    """Padding in numbers, and the input with a further row or column where "same" is uneven."""
    if padding not in ("valid", "same"):
        raise ValueError(f"conv2d: padding: expected an int, 2 ints, valid or same, got {padding!r}")
    if padding == "valid" or weight.dim() != 4 or batch.dim() != 4:
        return batch, (0, 0)
    if _arguments.pair("conv2d", "stride", stride) != (1, 1):
        raise ValueError(f"conv2d: padding: expected numbers where stride is not 1, got 'same' with stride {stride}")
    steps = _arguments.pair("conv2d", "dilation", dilation)
    total = [d * (k - 1) for d, k in zip(steps, weight.shape[2:])]
    odd = [n % 2 for n in total]
    return functional.pad(batch, (0, odd[1], 0, odd[0])) if any(odd) else batch, (total[0] // 2, total[1] // 2)


def _output_size(batch: Tensor, weight: Tensor, geometry: list[int]) -> list[int]:
    padded = [batch.shape[2 + k] + 2 * geometry[2 + k] for k in (0, 1)]
    kernel = [geometry[4 + k] * (weight.shape[2 + k] - 1) + 1 for k in (0, 1)]
    if padded[0] < kernel[0] or padded[1] < kernel[1]:
        text = f"the effective kernel size {kernel[0]}x{kernel[1]}, got {padded[0]}x{padded[1]}"
        raise ValueError(f"conv2d: input: expected a padded map of at least {text}")
    return [(n - k) // s + 1 for n, k, s in zip(padded, kernel, geometry)]
