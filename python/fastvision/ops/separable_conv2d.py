"""Separable convolution. Kernels: csrc/kernels/separable_conv2d.{h,cpp,cu}. Binding: csrc/torch, of the same name."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .. import _lib
from . import _arguments, _tf32
from ._convolution import check_algorithm, with_batch
from ._regions import is_channels_last, new_features
from ._separable_checks import Factors, check_arguments, output_size
from .conv2d import conv2d

_op = _lib.Op[Tensor]("separable_conv2d")
ACTIVATIONS = (None, "relu")


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
    factors = Factors(depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, scale, shift)
    batch, factors = _autocast(batch, factors)
    geometry = [*_arguments.pair(op, "padding", padding), *_arguments.pair(op, "dilation", dilation)]
    flags = (depthwise_activation == "relu", activation == "relu")
    try:
        check_arguments(batch, factors, geometry)
    except RuntimeError as error:
        raise _lib.translate(error) from None
    size = output_size(batch, depthwise_weight, geometry)
    out: Tensor
    own = algorithm == "fastvision" or batch.numel() == 0
    if own or (algorithm == "auto" and _fused_is_faster(batch, factors, geometry)):
        out = _op(batch, *factors, geometry, *flags, *size, _tf32.in_convolutions())
    else:
        out = _composed(batch, factors, geometry, *flags, algorithm)
    return out if input.dim() == 4 else out[0]


def _autocast(batch: Tensor, factors: Factors) -> tuple[Tensor, Factors]:
    """The tensors in the dtype of an enclosing autocast region, as torch's convolutions have it."""
    dtype = _arguments.autocast_dtype(batch.device)
    if dtype is None:
        return batch, factors

    def cast(t: Tensor) -> Tensor:
        return t if t.dtype == torch.float64 else t.to(dtype)

    depthwise, pointwise, *vectors = factors
    return cast(batch), Factors(cast(depthwise), cast(pointwise), *(None if v is None else cast(v) for v in vectors))


def _fused_is_faster(batch: Tensor, factors: Factors, geometry: Sequence[int]) -> bool:
    """By measurement (docs/kernels/separable_conv2d.md)."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (batch, *factors)):
        return False
    if not torch.compiler.is_compiling() and _lib.in_transform():
        return False
    if batch.device.type != "cpu" or batch.dtype not in (torch.float32, torch.float64):
        return False
    return min(geometry[2:]) >= 8 or batch.shape[1] <= 512


def _composed(
    batch: Tensor, factors: Factors, geometry: list[int], depthwise_relu: bool, relu: bool, algorithm: str
) -> Tensor:
    options = (1, geometry[:2], geometry[2:], batch.shape[1])
    middle = conv2d(batch, factors.depthwise_weight, factors.depthwise_bias, *options, algorithm=algorithm)
    middle = functional.relu(middle, inplace=True) if depthwise_relu else middle
    out = functional.conv2d(middle, factors.pointwise_weight, factors.pointwise_bias)
    if factors.scale is not None and factors.shift is not None:
        out = torch.addcmul(factors.shift[:, None, None], out, factors.scale[:, None, None])
    return functional.relu(out, inplace=True) if relu else out


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
    factors = Factors(depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, scale, shift)
    check_arguments(input, factors, geometry)
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
