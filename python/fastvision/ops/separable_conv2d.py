"""Separable convolution. Kernels: csrc/kernels/separable_conv2d.{h,cpp,cu}. Binding: csrc/torch, of the same name."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .. import _lib
from . import _arguments, _tf32
from ._convolution import check_algorithm, with_batch
from ._regions import is_channels_last, new_features
from .conv2d import conv2d

_op = _lib.Op("separable_conv2d")
ACTIVATIONS = (None, "relu")


class _Factors(NamedTuple):
    depthwise_weight: Tensor
    pointwise_weight: Tensor
    depthwise_bias: Tensor | None
    pointwise_bias: Tensor | None
    scale: Tensor | None
    shift: Tensor | None


def separable_conv2d(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_bias: Tensor | None = None,
    pointwise_bias: Tensor | None = None,
    *,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    depthwise_activation: str | None = None,
    scale_shift: tuple[Tensor, Tensor] | None = None,
    activation: str | None = None,
    algorithm: str = "auto",
) -> Tensor:
    """Depthwise convolution with stride 1, then a 1 x 1 convolution: DeepLab v3+'s atrous separable block.

    Chollet, "Xception", CVPR 2017; with dilation: Chen et al., ECCV 2018.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, NCHW or channels_last; float16, bfloat16, float32 or float64.
        depthwise_weight: ``(C, 1, kernel height, kernel width)``. All other tensors have the dtype of ``input``.
        pointwise_weight: ``(D, C, 1, 1)``.
        depthwise_bias, pointwise_bias: ``(C,)`` and ``(D,)``. A batch normalisation between the two is folded into
            ``depthwise_weight`` and ``depthwise_bias``.
        padding, dilation: Pixels, one int or (vertical, horizontal), of the depthwise convolution.
        depthwise_activation: None or ``"relu"``, between the two.
        scale_shift: Two tensors ``(D,)``: the result, its bias included, times the first plus the second, as a batch
            normalisation does.
        activation: None or ``"relu"``, after that.
        algorithm: ``"fastvision"``: one fused kernel that has no gradient. ``"torch"``: torch's convolutions one after
            the other. ``"auto"``: the fused kernel on the CPU for float32 and float64 where no gradient is needed, but
            not with a dilation below 8 and more than 512 channels; otherwise :func:`conv2d` twice.

    Returns:
        ``(N, D, H', W')`` or ``(D, H', W')`` in the dtype and memory format of ``input``, with
        ``H' = H + 2 * padding - dilation * (kernel height - 1)``.

    The fused kernel keeps the depthwise result of some pixels in the cache, on the CPU in float32 for 16-bit inputs;
    otherwise it is rounded to the dtype of ``input``, or on CUDA to TF32 where torch allows it. Deterministic. NaN and
    infinity reach the pixels that depend on them.

    Raises:
        TypeError: Not floating point, or different dtypes.
        ValueError: Wrong shapes or numbers, or different devices.
        RuntimeError: A gradient of the fused kernel.

    >>> x = torch.tensor([[[1.0, 2.0, 3.0]]])
    >>> separable_conv2d(x, torch.ones(1, 1, 1, 2), torch.tensor([1.0, -1.0]).view(2, 1, 1, 1), activation="relu")
    tensor([[[3., 5.]],
    <BLANKLINE>
            [[0., 0.]]])
    """
    op = "separable_conv2d"
    check_algorithm(op, algorithm)
    for name, value in (("depthwise_activation", depthwise_activation), ("activation", activation)):
        if value not in ACTIVATIONS:
            raise ValueError(f"{op}: {name}: expected None or relu, got {value!r}")
    batch = with_batch(op, input)
    if scale_shift is not None and len(scale_shift) != 2:
        raise ValueError(f"{op}: scale_shift: expected 2 tensors, got {len(scale_shift)}")
    scale, shift = scale_shift if scale_shift is not None else (None, None)
    factors = _Factors(depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, scale, shift)
    batch, factors = _autocast(batch, factors)
    geometry = [*_arguments.pair(op, "padding", padding), *_arguments.pair(op, "dilation", dilation)]
    flags = (depthwise_activation == "relu", activation == "relu")
    try:
        _check(batch, factors, geometry)
    except RuntimeError as error:
        raise _lib.translate(error) from None
    size = _output_size(batch, depthwise_weight, geometry)
    out: Tensor
    own = algorithm == "fastvision" or batch.numel() == 0
    if own or (algorithm == "auto" and _fused_is_faster(batch, factors, geometry)):
        out = _op(batch, *factors, geometry, *flags, *size, _tf32.in_convolutions())
    else:
        out = _composed(batch, factors, geometry, *flags, algorithm)
    return out if input.dim() == 4 else out[0]


def _autocast(batch: Tensor, factors: _Factors) -> tuple[Tensor, _Factors]:
    """The tensors in the dtype of an enclosing autocast region, as torch's convolutions have it."""
    dtype = _arguments.autocast_dtype(batch.device)
    if dtype is None:
        return batch, factors
    cast = [t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in (batch, *factors)]
    return cast[0], _Factors(*cast[1:])  # type: ignore[arg-type, return-value]


def _fused_is_faster(batch: Tensor, factors: _Factors, geometry: Sequence[int]) -> bool:
    """By measurement (docs/kernels/separable_conv2d.md)."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (batch, *factors)):
        return False
    if not torch.compiler.is_compiling() and _lib.in_transform():
        return False
    if batch.device.type != "cpu" or batch.dtype not in (torch.float32, torch.float64):
        return False
    return min(geometry[2:]) >= 8 or batch.shape[1] <= 512


def _composed(
    batch: Tensor, factors: _Factors, geometry: list[int], depthwise_relu: bool, relu: bool, algorithm: str
) -> Tensor:
    options = (1, geometry[:2], geometry[2:], batch.shape[1])
    middle = conv2d(batch, factors.depthwise_weight, factors.depthwise_bias, *options, algorithm=algorithm)
    middle = functional.relu(middle) if depthwise_relu else middle
    out = functional.conv2d(middle, factors.pointwise_weight, factors.pointwise_bias)
    if factors.scale is not None and factors.shift is not None:
        out = out * factors.scale[:, None, None] + factors.shift[:, None, None]
    return functional.relu(out) if relu else out


def _output_size(batch: Tensor, weight: Tensor, geometry: Sequence[int]) -> list[int]:
    kernel = [geometry[2 + k] * (weight.shape[2 + k] - 1) + 1 for k in (0, 1)]
    size = [batch.shape[2 + k] + 2 * geometry[k] - kernel[k] + 1 for k in (0, 1)]
    if min(size) < 1:
        padded = [batch.shape[2 + k] + 2 * geometry[k] for k in (0, 1)]
        text = f"the effective kernel size {kernel[0]}x{kernel[1]}, got {padded[0]}x{padded[1]}"
        raise ValueError(f"separable_conv2d: input: expected a padded map of at least {text}")
    return size


def _check(input: Tensor, factors: _Factors, geometry: Sequence[int]) -> None:
    """What the binding checks, in its words."""
    op = "separable_conv2d"
    _arguments.all_floats(op, "input", input)
    _arguments.shape(input.dim() == 4, op, "input", input, "(N, C, H, W) or (C, H, W)")
    for name, t in (("depthwise_weight", factors.depthwise_weight), ("pointwise_weight", factors.pointwise_weight)):
        _arguments.same_dtype(op, name, t, "input", input)
        _arguments.same_device(op, name, t, "input", input)
    d, p, channels = factors.depthwise_weight, factors.pointwise_weight, input.shape[1]
    ok = d.dim() == 4 and tuple(d.shape[:2]) == (channels, 1) and d.shape[2] >= 1 and d.shape[3] >= 1
    _arguments.shape(ok, op, "depthwise_weight", d, "(C, 1, kernel height, kernel width) with C of input")
    ok = p.dim() == 4 and tuple(p.shape[1:]) == (channels, 1, 1)
    _arguments.shape(ok, op, "pointwise_weight", p, "(D, C, 1, 1) with C of input")
    for name, vector, count in (
        ("depthwise_bias", factors.depthwise_bias, channels),
        ("pointwise_bias", factors.pointwise_bias, p.shape[0]),
        ("scale_shift", factors.scale, p.shape[0]),
        ("scale_shift", factors.shift, p.shape[0]),
    ):
        if vector is not None:
            _arguments.same_dtype(op, name, vector, "input", input)
            _arguments.same_device(op, name, vector, "input", input)
            fits = vector.dim() == 1 and vector.shape[0] == count
            _lib.check(fits, op, ": ", name, ": expected shape (", count, ",), got ", tuple(vector.shape))
    _lib.check((factors.scale is None) == (factors.shift is None), op, ": scale_shift: expected both or none, got one")
    _arguments.steps(op, "padding", geometry[:2], 0)
    _arguments.steps(op, "dilation", geometry[2:], 1)
    pixels = input.shape[2] >= 1 and input.shape[3] >= 1
    _lib.check(pixels, op, ": input: expected at least one pixel per map, got ", tuple(input.shape))


@_lib.register_fake("separable_conv2d")
def _(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    pointwise_bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    geometry: list[int],
    depthwise_relu: bool,
    relu: bool,
    out_h: int,
    out_w: int,
    tf32: bool,
) -> Tensor:
    factors = _Factors(depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, scale, shift)
    _check(input, factors, geometry)
    size = (input.shape[0], pointwise_weight.shape[0], out_h, out_w)
    return new_features(input, size, is_channels_last(input))


_lib.register_no_gradient(_op)
_lib.register_folding_vmap(_op, 0)


def separable_conv2d_reference(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_bias: Tensor | None = None,
    pointwise_bias: Tensor | None = None,
    *,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    depthwise_activation: str | None = None,
    scale_shift: tuple[Tensor, Tensor] | None = None,
    activation: str | None = None,
) -> Tensor:
    """The definition of :func:`separable_conv2d` in plain PyTorch, for inputs with a batch dimension."""
    middle = functional.conv2d(input, depthwise_weight, depthwise_bias, 1, padding, dilation, input.shape[1])
    middle = functional.relu(middle) if depthwise_activation else middle
    out = functional.conv2d(middle, pointwise_weight, pointwise_bias)
    if scale_shift is not None:
        out = out * scale_shift[0][:, None, None] + scale_shift[1][:, None, None]
    return functional.relu(out) if activation else out
