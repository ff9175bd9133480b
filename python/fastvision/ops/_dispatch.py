"""Where ``algorithm="auto"`` of the convolutions takes the own kernels: by shapes alone, from measured tables.

The tables, and the command that measures them again: docs/kernels/dispatch.md.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .. import _lib
from ._regions import is_channels_last

# Of 16 bits that the processor has to widen: so few that calls take longer, for torch in float16 and for a conversion.
_FEWEST_PRODUCTS, _FEW_PRODUCTS = 2**14, 2**19

# gather: convolution, and the gradient of transposed convolution by its input. scatter: transposed convolution, and the
# gradient of convolution by its input. product: the gradient of both by their weight.
Map = Literal["gather", "scatter", "product"]

# How long torch takes on this processor for a product, with one of float32 as the unit. 0: not known, or out of reach.
_BFLOAT16 = {"float32": 3.0, "vectors": 0.5}.get(_lib.build_info()["cpu_bfloat16"], 0.0)
_FLOAT16 = {"float32": 5.0, "vectors": 0.5}.get(_lib.build_info()["cpu_float16"], 0.0)
_PRODUCT = {torch.float32: 1.0, torch.bfloat16: _BFLOAT16, torch.float16: _FLOAT16}


def own_is_faster(which: Map, input: Tensor, weight: Tensor, geometry: Sequence[int], groups: int) -> bool:
    """``geometry``: stride, padding and dilation, two numbers each. ``input``: of the forward pass."""
    kernel, stride, dilation = weight.shape[2:], min(geometry[:2]), min(geometry[4:])
    depthwise = groups == weight.shape[0] and weight.shape[1] == 1
    if input.device.type == "cuda":
        return depthwise and (which == "scatter" or max(geometry[4:]) > 1)
    if has_empty_windows(weight, geometry):
        return True  # torch 2.13 may crash
    if torch.compiler.is_exporting():
        return False  # an exported program may run elsewhere
    slow, products = _is_slow_product(input.dtype), _count_products(input, weight)
    if slow and products < _FEW_PRODUCTS:
        return products >= _FEWEST_PRODUCTS or input.dtype == torch.bfloat16
    if _is_slow_in_torch(which, input, groups, depthwise):
        return True
    channels_last, wide = is_channels_last(input), input.element_size() > 2
    if not depthwise:
        if _is_faster_dense(which, input, weight, geometry, groups):
            return True
        if not has_windows_side_by_side(weight, geometry):
            return False
        return (slow and groups == 1) or _is_faster_side_by_side(which, input, weight, groups, channels_last)
    unit_stride = max(geometry[:2]) == 1
    if slow and (channels_last or unit_stride or input.dtype == torch.float16):
        return True
    if dilation > 1:
        return dilation >= 8 or which != "gather" or (unit_stride and not channels_last)
    if which == "product" and min(kernel) >= 5 and (unit_stride or channels_last):
        return True
    if which == "scatter" and not unit_stride and not wide and not slow:
        return True
    if unit_stride:
        narrowest = 14 if max(kernel) <= 3 else 28  # of the maps for which rows of a plane are long enough
        few_taps = 3 <= min(kernel) <= max(kernel) <= 5
        long_rows = all(size >= narrowest for size in input.shape[2:])
        return which != "product" and not channels_last and few_taps and long_rows
    if stride == 1 or min(kernel) < 2 * stride - stride % 2:  # smaller than for bilinear upsampling
        return False
    if which == "gather":
        return stride >= (8 if wide else 16) and not channels_last
    has_runs = stride >= 4 and max(geometry[4:]) == 1 and all(k <= 2 * s for k, s in zip(kernel, geometry))
    return not (which == "scatter" and channels_last and wide) or has_runs


def is_faster_widened(input: Tensor, weight: Tensor, groups: int) -> bool:
    """Whether torch takes longer for 16 bits than for float32 and conversions: the processor has no such products."""
    if input.device.type != "cpu" or torch.compiler.is_exporting():
        return False
    depthwise = groups == weight.shape[0] and weight.shape[1] == 1
    if not _is_slow_product(input.dtype) or (depthwise and input.dtype == torch.bfloat16):
        return False
    return _count_products(input, weight) >= _FEWEST_PRODUCTS


def _is_slow_product(dtype: torch.dtype) -> bool:
    return _PRODUCT.get(dtype, 0.0) > 1


def _count_products(input: Tensor, weight: Tensor) -> int:
    """As if the stride were 1."""
    return input.shape[0] * input.shape[2] * input.shape[3] * weight.numel()


def own_for_gradients(which: Map, input: Tensor, weight: Tensor, geometry: Sequence[int], groups: int) -> bool:
    """Whether the own kernel is worth it for the sake of a gradient: torch's result has torch's gradients."""
    depthwise = groups == weight.shape[0] and weight.shape[1] == 1
    slow = _is_slow_in_torch("product", input, groups, depthwise)
    problem = (input, weight, geometry, groups)
    if not torch.is_grad_enabled():
        return False
    if not (depthwise or slow or has_windows_side_by_side(weight, geometry)):
        return weight.requires_grad and own_is_faster("product", *problem)
    by_input: Map = "scatter" if which == "gather" else "gather"
    return (input.requires_grad and own_is_faster(by_input, *problem)) or (
        weight.requires_grad and own_is_faster("product", *problem)
    )


def _is_faster_dense(which: Map, input: Tensor, weight: Tensor, geometry: Sequence[int], groups: int) -> bool:
    """With stride 1, where the own kernels have fewer products than torch's."""
    kernel = weight.shape[2:]
    if groups != 1 or max(geometry[:2]) > 1 or max(kernel) == 1:
        return False
    same = all(2 * p == d * (k - 1) for k, p, d in zip(kernel, geometry[2:4], geometry[4:]))
    wide = input.element_size() > 2
    if wide and same and input.shape[3] <= 4096 and _is_faster_by_tap(which, input, weight, geometry):
        return True
    return input.dtype in _PRODUCT and which != "product" and _is_winograd(input, weight, geometry)


def _is_faster_by_tap(which: Map, input: Tensor, weight: Tensor, geometry: Sequence[int]) -> bool:
    """With results as large as the input: where torch makes more products, or is slow."""
    (first, second), taps, (batch, _, *sides) = weight.shape[:2], tuple(weight.shape[2:]), input.shape
    pairs, channels_last = first * second, is_channels_last(input)
    met = everywhere = batch  # pairs of pixels and taps: those that meet, and all
    for size, count, padding, dilation in zip(sides, taps, geometry[2:4], geometry[4:]):
        met *= sum(max(size - abs(tap * dilation - padding), 0) for tap in range(count))
        everywhere *= count * size
    far = everywhere >= 1.5 * met
    if input.dtype == torch.float64:  # torch makes all products
        if which == "scatter":
            return min(first, second) >= 16 and everywhere >= 6500 and everywhere * pairs >= 2**24
        enough = everywhere >= 20_000 or (everywhere >= 6500 and everywhere >= 1.25 * met)
        return min(first, second) >= 64 and (enough if which == "gather" else everywhere >= 6500 and far)
    if taps != (3, 3):
        return False
    if which == "product":
        # oneDNN has no kernel where the window is higher than the map or its padding wide; weights that no cache holds.
        slow = far and (2 * geometry[4] >= sides[0] or geometry[3] > 28)
        many = channels_last and pairs >= 2**19 and min(geometry[4:]) >= 8 and everywhere <= 40_000
        return many or (slow and second >= 32 and (channels_last or sides[0] * sides[1] >= 400))
    if channels_last:
        return far and pairs >= 2**19 and met <= 6000 and weight.is_contiguous()
    # oneDNN has no kernel for rows in NCHW that begin with so much padding.
    slow = which == "gather" and geometry[3] >= 8 and first >= 128 and second >= 64 and sides[1] > 28
    own = min(_winograd_products(input, weight, geometry), (met + 900) * pairs)
    return slow and everywhere * pairs >= 1.2 * own


def _winograd_products(input: Tensor, weight: Tensor, geometry: Sequence[int]) -> int:
    """Of the tiles, and for the transforms of these and of the weights: by panels, in a cache, in none."""
    first, second = weight.shape[:2]
    side = 4 if input.element_size() == 2 else 2  # of a tile
    pairs, tiles = first * second, input.shape[0]
    for size, padding, dilation in zip(input.shape[2:], geometry[2:4], geometry[4:]):
        if padding < dilation:
            size = max(size - 2 * (dilation - padding), 0)
        tiles *= size // (side * dilation) * dilation + min(size % (side * dilation), dilation)
    by_weight = 8 if pairs <= 2**14 else 16 if tiles <= 96 else 24 if side == 2 else 60
    return (side + 2) ** 2 * (tiles * (pairs + 18 * (first + second)) + by_weight * pairs)


def _is_winograd(input: Tensor, weight: Tensor, geometry: Sequence[int]) -> bool:
    """3 x 3: the own kernel has fewer products, if its transforms pay."""
    if tuple(weight.shape[2:]) != (3, 3):
        return False
    pairs, met = weight.shape[0] * weight.shape[1], input.shape[0]
    for size, padding, dilation in zip(input.shape[2:], geometry[2:4], geometry[4:]):
        if padding < dilation:
            size = max(size - 2 * (dilation - padding), 0)
        met *= 3 * size - 2 * min(padding, size)
    own = _winograd_products(input, weight, geometry)
    margin = 1.05 if is_channels_last(input) else 1.2 if max(geometry[4:]) == 1 else 1.6
    return pairs <= 2**20 and _PRODUCT[input.dtype] * met * pairs >= margin * own > 0


def _is_slow_in_torch(which: Map, input: Tensor, groups: int, depthwise: bool) -> bool:
    """What oneDNN has no kernels for on the CPU: torch's take up to hundreds of times as long."""
    if input.device.type != "cpu":
        return False
    if _is_slow_product(input.dtype):
        return which == "product" and not depthwise
    if input.dtype == torch.float16:
        return which == "product" or (which == "scatter" and groups > 1)
    return input.dtype == torch.float64 and depthwise


def _is_faster_side_by_side(which: Map, input: Tensor, weight: Tensor, groups: int, channels_last: bool) -> bool:
    kernel, small, large = list(weight.shape[2:]), weight.shape[0] // groups, weight.shape[1]
    pixels, two_by_two = input.shape[2] * input.shape[3], kernel == [2, 2]
    many = pixels >= 2**14 and input.shape[1] * pixels >= 2**22  # numbers that no near cache holds
    if input.dtype == torch.float16:
        if which == "gather":
            return groups == 1 and two_by_two and min(small, large) >= 8 and pixels >= 512
        return groups == 1 and input.shape[0] * pixels >= 256
    if input.dtype == torch.float64:
        if which == "scatter" and not channels_last and two_by_two and large <= 64:
            return True
        most = 64 if which == "product" else 128
        return two_by_two and many and min(small, large) >= 32 and large <= most and not (channels_last and groups > 1)
    if input.dtype != torch.float32:
        return False
    if which == "scatter" and not channels_last:
        return large <= 256 and (max(kernel) > 2 or pixels >= 512 or input.shape[0] * pixels >= 3072)
    if not two_by_two or min(small, large) < 32:
        return False
    if channels_last:
        return which == "product" and groups == 1 and large <= 256 and pixels >= 2**12
    return large <= 128 and many


def has_windows_side_by_side(weight: Tensor, geometry: Sequence[int]) -> bool:
    """Whether windows cover the map without a gap, each pixel once, and have more than a pixel."""
    kernel = list(weight.shape[2:])
    return kernel == list(geometry[:2]) and list(geometry[2:]) == [0, 0, 1, 1] and max(kernel) > 1


def has_empty_windows(weight: Tensor, geometry: Sequence[int]) -> bool:
    """Whether windows may lie in the padding with all their taps."""
    return any(geometry[2 + k] > geometry[4 + k] * (weight.shape[2 + k] - 1) for k in (0, 1))
