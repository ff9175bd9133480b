"""Where ``algorithm="auto"`` of the convolutions takes the own kernels: by shapes, dtype and format.

For 16 bits also by what this processor multiplies. The tables that were measured, and the command that measures them
again: docs/kernels/dispatch.md.
"""

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .. import _lib
from ._regions import is_channels_last

# Of 16 bits that the processor has to widen: so few that calls take longer, for torch in float16 and for a conversion.
_FEWEST_PRODUCTS, _FEW_PRODUCTS = 2**14, 2**19

# gather: convolution, and the gradient of transposed convolution by its input. scatter: transposed convolution, and the
# gradient of convolution by its input. product: the gradient of both by their weight.
Map = Literal["gather", "scatter", "product"]

# float32: of 16 bits, what is taken for float32, and its result rounded.
Choice = Literal["own", "torch", "float32"]

# How long torch takes on this processor for a product, with one of float32 as the unit. 0: not known, or out of reach.
_BFLOAT16 = {"float32": 3.0, "vectors": 0.5}.get(_lib.build_info()["cpu_bfloat16"], 0.0)
_FLOAT16 = {"float32": 5.0, "vectors": 0.5}.get(_lib.build_info()["cpu_float16"], 0.0)
_PRODUCT = {torch.float32: 1.0, torch.bfloat16: _BFLOAT16, torch.float16: _FLOAT16}


def choose(which: Map, algorithm: str, input: Tensor, weight: Tensor, geometry: Sequence[int], groups: int) -> Choice:
    """What computes a forward pass."""
    if algorithm == "fastvision" or input.numel() == 0 or weight.numel() == 0:
        return "own"
    if algorithm == "torch":
        return "torch"
    has_tangents = not torch.compiler.is_compiling() and forward_ad._current_level >= 0  # only torch's can have them
    if has_tangents:
        own = has_empty_windows(weight, geometry)
    else:
        own = own_is_faster(which, input, weight, geometry, groups)
    if own:
        return "own"
    if _is_faster_widened(input, weight, groups):
        return "float32"
    if not has_tangents and _own_for_gradients(which, input, weight, geometry, groups):
        return "own"
    return "torch"


class Problem(NamedTuple):
    """All that the rule looks at. ``input``: of the forward pass."""

    which: Map
    input: tuple[int, ...]
    weight: tuple[int, ...]
    geometry: tuple[int, ...]  # stride, padding and dilation, two numbers each
    groups: int
    dtype: torch.dtype
    device: str
    channels_last: bool
    has_plain_weight: bool  # not channels_last
    product: float  # of _PRODUCT

    @property
    def depthwise(self) -> bool:
        return self.groups == self.weight[0] and self.weight[1] == 1

    @property
    def slow(self) -> bool:
        """Whether these are 16 bits that the processor has to widen."""
        return self.product > 1

    @property
    def wide(self) -> bool:
        return self.dtype.itemsize > 2


def own_is_faster(which: Map, input: Tensor, weight: Tensor, geometry: Sequence[int], groups: int) -> bool:
    if torch.compiler.is_exporting():  # an exported program may run elsewhere
        return input.device.type != "cuda" and has_empty_windows(weight, geometry)
    problem = Problem(
        which,
        tuple(input.shape),
        tuple(weight.shape),
        tuple(geometry),
        groups,
        input.dtype,
        input.device.type,
        is_channels_last(input),
        weight.is_contiguous(),
        _PRODUCT.get(input.dtype, 0.0),
    )
    if torch.compiler.is_compiling():
        return _own_is_faster(problem)
    try:
        return _remembered(problem)
    except TypeError:  # sizes that are symbols
        return _own_is_faster(problem)


def _own_is_faster(p: Problem) -> bool:
    kernel, geometry, stride, dilation = p.weight[2:], p.geometry, min(p.geometry[:2]), min(p.geometry[4:])
    if p.device == "cuda":
        return p.depthwise and (p.which == "scatter" or max(geometry[4:]) > 1)
    if _has_empty_windows(kernel, geometry):
        return True  # torch 2.13 may crash
    products = _count_products(p.input, p.weight)
    if p.slow and products < _FEW_PRODUCTS:
        return products >= _FEWEST_PRODUCTS or p.dtype == torch.bfloat16
    if _is_slow_in_torch(p):
        return True
    if not p.depthwise:
        if _is_faster_dense(p):
            return True
        if not _has_windows_side_by_side(kernel, geometry):
            return False
        return (p.slow and p.groups == 1) or _is_faster_side_by_side(p)
    unit_stride = max(geometry[:2]) == 1
    if p.slow and (p.channels_last or unit_stride or p.dtype == torch.float16):
        return True
    if dilation > 1:
        return dilation >= 8 or p.which != "gather" or (unit_stride and not p.channels_last)
    if p.which == "product" and min(kernel) >= 5 and (unit_stride or p.channels_last):
        return True
    if p.which == "scatter" and not unit_stride and not p.wide and not p.slow:
        return True
    if unit_stride:
        narrowest = 14 if max(kernel) <= 3 else 28  # of the maps for which rows of a plane are long enough
        few_taps = 3 <= min(kernel) <= max(kernel) <= 5
        long_rows = all(size >= narrowest for size in p.input[2:])
        return p.which != "product" and not p.channels_last and few_taps and long_rows
    if stride == 1 or min(kernel) < 2 * stride - stride % 2:  # smaller than for bilinear upsampling
        return False
    if p.which == "gather":
        return stride >= (8 if p.wide else 16) and not p.channels_last
    has_runs = stride >= 4 and max(geometry[4:]) == 1 and all(k <= 2 * s for k, s in zip(kernel, geometry))
    return not (p.which == "scatter" and p.channels_last and p.wide) or has_runs


_remembered = functools.lru_cache(maxsize=4096)(_own_is_faster)


def _is_faster_widened(input: Tensor, weight: Tensor, groups: int) -> bool:
    """Whether torch takes longer for 16 bits than for float32 and conversions: the processor has no such products."""
    if _PRODUCT.get(input.dtype, 0.0) <= 1 or input.device.type != "cpu" or torch.compiler.is_exporting():
        return False
    depthwise = groups == weight.shape[0] and weight.shape[1] == 1
    if depthwise and input.dtype == torch.bfloat16:
        return False
    return _count_products(input.shape, weight.shape) >= _FEWEST_PRODUCTS


def _count_products(input: Sequence[int], weight: Sequence[int]) -> int:
    """As if the stride were 1."""
    return input[0] * input[2] * input[3] * weight[0] * weight[1] * weight[2] * weight[3]


def _own_for_gradients(which: Map, input: Tensor, weight: Tensor, geometry: Sequence[int], groups: int) -> bool:
    """Whether the own kernel is worth it for the sake of a gradient: torch's result has torch's gradients."""
    if not torch.is_grad_enabled() or not (input.requires_grad or weight.requires_grad):
        return False
    by_weight = weight.requires_grad and own_is_faster("product", input, weight, geometry, groups)
    depthwise = groups == weight.shape[0] and weight.shape[1] == 1
    slow = input.device.type == "cpu" and (input.dtype == torch.float16 or (input.dtype == torch.float64 and depthwise))
    if by_weight or not (depthwise or slow or has_windows_side_by_side(weight, geometry)):
        return by_weight
    by_input: Map = "scatter" if which == "gather" else "gather"
    return input.requires_grad and own_is_faster(by_input, input, weight, geometry, groups)


def _is_faster_dense(p: Problem) -> bool:
    """With stride 1, where the own kernels have fewer products than torch's."""
    if p.groups != 1 or max(p.geometry[:2]) > 1 or max(p.weight[2:]) == 1:
        return False
    same = all(2 * n == d * (k - 1) for k, n, d in zip(p.weight[2:], p.geometry[2:4], p.geometry[4:]))
    if p.wide and same and p.input[3] <= 4096 and _is_faster_by_tap(p):
        return True
    return p.product > 0 and p.which != "product" and _is_winograd(p)


def _is_faster_by_tap(p: Problem) -> bool:
    """With results as large as the input: where torch makes more products, or is slow."""
    (first, second), taps, (batch, _, *sides), geometry = p.weight[:2], p.weight[2:], p.input, p.geometry
    pairs = first * second
    met = everywhere = batch  # pairs of pixels and taps: those that meet, and all
    for size, count, padding, dilation in zip(sides, taps, geometry[2:4], geometry[4:]):
        met *= sum(max(size - abs(tap * dilation - padding), 0) for tap in range(count))
        everywhere *= count * size
    far = everywhere >= 1.5 * met
    if p.dtype == torch.float64:  # torch makes all products
        if p.which == "scatter":
            return min(first, second) >= 16 and everywhere >= 6500 and everywhere * pairs >= 2**24
        enough = everywhere >= 20_000 or (everywhere >= 6500 and everywhere >= 1.25 * met)
        return min(first, second) >= 64 and (enough if p.which == "gather" else everywhere >= 6500 and far)
    if taps != (3, 3):
        return False
    if p.which == "product":
        # oneDNN has no kernel where the window is higher than the map or its padding wide; weights that no cache holds.
        slow = far and (2 * geometry[4] >= sides[0] or geometry[3] > 28)
        many = p.channels_last and pairs >= 2**19 and min(geometry[4:]) >= 8 and everywhere <= 40_000
        return many or (slow and second >= 32 and (p.channels_last or sides[0] * sides[1] >= 400))
    if p.channels_last:
        return far and pairs >= 2**19 and met <= 6000 and p.has_plain_weight
    # oneDNN has no kernel for rows in NCHW that begin with so much padding.
    slow = p.which == "gather" and geometry[3] >= 8 and first >= 128 and second >= 64 and sides[1] > 28
    own = min(_Winograd(p).products, (met + 900) * pairs)
    return slow and everywhere * pairs >= 1.2 * own


class _Winograd:
    """What a 3 x 3 convolution costs by tiles of the map (csrc/kernels/winograd_shape.h)."""

    products: int  # of the tiles, and for the transforms of these and of the weights
    saves: bool  # whether tiles surely have fewer than the taps inside of the map; else the own kernel is another one
    met: int  # pairs of a pixel and a tap inside of the map

    def __init__(self, p: Problem) -> None:
        side = 2 if p.wide else 4
        first, second = p.weight[:2]
        pairs, tiles, most, self.met = first * second, p.input[0], p.input[0], p.input[0]
        for size, padding, dilation in zip(p.input[2:], p.geometry[2:4], p.geometry[4:]):
            border = 2 * max(dilation - padding, 0)
            inner = max(size - border, 0)
            tiles *= _count_tiles(inner, side, dilation)
            most *= _count_tiles(size + border, side, dilation)  # of the larger map of a transposed convolution
            self.met *= 3 * inner - 2 * min(padding, inner)
        parts = (side + 2) ** 2
        # In a cache, by panels, or in none.
        by_weight = 8 if pairs <= 2**14 else 16 if tiles <= 96 else 24 if side == 2 else 60
        self.products = parts * (tiles * (pairs + 18 * (first + second)) + by_weight * pairs)
        self.saves = min(first, second) >= 8 and self.met >= parts * most


def _count_tiles(size: int, side: int, dilation: int) -> int:
    return size // (side * dilation) * dilation + min(size % (side * dilation), dilation)


def _is_winograd(p: Problem) -> bool:
    """3 x 3: the own kernel has fewer products, if its transforms pay."""
    if p.weight[2:] != (3, 3):
        return False
    pairs, own = p.weight[0] * p.weight[1], _Winograd(p)
    margin = 1.05 if p.channels_last else 1.2 if max(p.geometry[4:]) == 1 else 1.6
    if p.slow and not own.saves:  # else the products below say so
        return False
    return pairs <= 2**20 and p.product * own.met * pairs >= margin * own.products > 0


def _is_slow_in_torch(p: Problem) -> bool:
    """What oneDNN has no kernels for on the CPU: torch's take up to hundreds of times as long."""
    if p.device != "cpu":
        return False
    if p.slow:
        return p.which == "product" and not p.depthwise
    if p.dtype == torch.float16:
        return p.which == "product" or (p.which == "scatter" and p.groups > 1)
    return p.dtype == torch.float64 and p.depthwise


def _is_faster_side_by_side(p: Problem) -> bool:
    kernel, small, large = p.weight[2:], p.weight[0] // p.groups, p.weight[1]
    pixels, two_by_two = p.input[2] * p.input[3], kernel == (2, 2)
    many = pixels >= 2**14 and p.input[1] * pixels >= 2**22  # numbers that no near cache holds
    if p.dtype == torch.float16:
        if p.which == "gather":
            return p.groups == 1 and two_by_two and min(small, large) >= 8 and pixels >= 512
        return p.groups == 1 and p.input[0] * pixels >= 256
    if p.dtype == torch.float64:
        if p.which == "scatter" and not p.channels_last and two_by_two and large <= 64:
            return True
        most, grouped = 64 if p.which == "product" else 128, p.channels_last and p.groups > 1
        return two_by_two and many and min(small, large) >= 32 and large <= most and not grouped
    if p.dtype != torch.float32:
        return False
    if p.which == "scatter" and not p.channels_last:
        return large <= 256 and (max(kernel) > 2 or pixels >= 512 or p.input[0] * pixels >= 3072)
    if not two_by_two or min(small, large) < 32:
        return False
    if p.channels_last:
        return p.which == "product" and p.groups == 1 and large <= 256 and pixels >= 2**12
    return large <= 128 and many


def has_windows_side_by_side(weight: Tensor, geometry: Sequence[int]) -> bool:
    """Whether windows cover the map without a gap, each pixel once, and have more than a pixel."""
    return _has_windows_side_by_side(weight.shape[2:], geometry)


def has_empty_windows(weight: Tensor, geometry: Sequence[int]) -> bool:
    """Whether windows may lie in the padding with all their taps."""
    return _has_empty_windows(weight.shape[2:], geometry)


def _has_windows_side_by_side(kernel: Sequence[int], geometry: Sequence[int]) -> bool:
    return list(kernel) == list(geometry[:2]) and list(geometry[2:]) == [0, 0, 1, 1] and max(kernel) > 1


def _has_empty_windows(kernel: Sequence[int], geometry: Sequence[int]) -> bool:
    return any(geometry[2 + k] > geometry[4 + k] * (kernel[k] - 1) for k in (0, 1))
