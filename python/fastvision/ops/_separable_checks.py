"""What the binding of separable convolution checks, for its fake kernel and its other algorithm."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .. import _lib
from . import _arguments


class Factors(NamedTuple):
    depthwise_weight: Tensor
    pointwise_weight: Tensor
    depthwise_bias: Tensor | None
    pointwise_bias: Tensor | None
    scale: Tensor | None
    shift: Tensor | None


def check_arguments(input: Tensor, factors: Factors, geometry: Sequence[int]) -> None:
    """In the words of the binding."""
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


def output_size(batch: Tensor, weight: Tensor, geometry: Sequence[int]) -> list[int]:
    kernel = [geometry[2 + k] * (weight.shape[2 + k] - 1) + 1 for k in (0, 1)]
    size = [batch.shape[2 + k] + 2 * geometry[k] - kernel[k] + 1 for k in (0, 1)]
    if min(size) < 1:
        padded = [batch.shape[2 + k] + 2 * geometry[k] for k in (0, 1)]
        text = f"the effective kernel size {kernel[0]}x{kernel[1]}, got {padded[0]}x{padded[1]}"
        raise ValueError(f"separable_conv2d: input: expected a padded map of at least {text}")
    return size
