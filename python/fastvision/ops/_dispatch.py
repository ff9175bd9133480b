"""What computes a convolution with ``algorithm="auto"``: the own kernels or torch's, by shapes, dtype and format.

For 16 bits also by what this processor multiplies. The rule is _dispatch_rule.py; what was measured, and the command
that measures it again: docs/kernels/dispatch.md.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .. import _lib
from . import _dispatch_rule
from ._dispatch_problem import Map, Problem
from ._regions import is_channels_last

# float32: of 16 bits, what is taken for float32, and its result rounded.
Choice = Literal["own", "torch", "float32"]

# Problem.product on this processor.
_BFLOAT16 = {"float32": 3.0, "vectors": 0.5}.get(_lib.build_info()["cpu_bfloat16"], 0.0)
_FLOAT16 = {"float32": 5.0, "vectors": 0.5}.get(_lib.build_info()["cpu_float16"], 0.0)
_PRODUCT = {torch.float32: 1.0, torch.bfloat16: _BFLOAT16, torch.float16: _FLOAT16}

Compute = Callable[[Tensor, Tensor, Tensor | None], Tensor]

_remembered = functools.lru_cache(maxsize=4096)(_dispatch_rule.own_is_faster)


def forward(
    which: Map,
    algorithm: str,
    own: Compute,
    torchs: Compute,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Sequence[int],
    groups: int,
) -> Tensor:
    """What ``own`` or ``torchs`` returns for input, weight and bias."""
    choice = choose(which, algorithm, input, weight, geometry, groups)
    if choice != "float32":
        return (own if choice == "own" else torchs)(input, weight, bias)
    with torch.autocast("cpu", enabled=False):
        wide = input.float(), weight.float(), None if bias is None else bias.float()
        return forward(which, algorithm, own, torchs, *wide, geometry, groups).to(input.dtype)


def choose(which: Map, algorithm: str, input: Tensor, weight: Tensor, geometry: Sequence[int], groups: int) -> Choice:
    """What computes a forward pass."""
    if algorithm == "fastvision" or input.numel() == 0 or weight.numel() == 0:
        return "own"
    if algorithm == "torch":
        return "torch"
    p = _problem(which, input, weight, geometry, groups)
    has_tangents = not torch.compiler.is_compiling() and forward_ad._current_level >= 0  # only torch's can have them
    if p.has_empty_windows if has_tangents else _is_faster(p):
        return "own"
    if _is_faster_widened(p):
        return "float32"
    if not has_tangents and torch.is_grad_enabled() and _is_faster_for_gradients(p, input, weight):
        return "own"
    return "torch"


def own_is_faster(which: Map, input: Tensor, weight: Tensor, geometry: Sequence[int], groups: int) -> bool:
    return _is_faster(_problem(which, input, weight, geometry, groups))


def _problem(which: Map, input: Tensor, weight: Tensor, geometry: Sequence[int], groups: int) -> Problem:
    shapes, dtype = (tuple(input.shape), tuple(weight.shape), tuple(geometry), groups), input.dtype
    formats = is_channels_last(input), weight.is_contiguous()
    return Problem(which, *shapes, dtype, input.device.type, *formats, _PRODUCT.get(dtype, 0.0))


def _is_faster(p: Problem) -> bool:
    if torch.compiler.is_exporting():  # an exported program may run elsewhere
        return p.device != "cuda" and p.has_empty_windows
    if torch.compiler.is_compiling():
        return _dispatch_rule.own_is_faster(p)
    try:
        return _remembered(p)
    except TypeError:  # sizes that are symbols
        return _dispatch_rule.own_is_faster(p)


def _is_faster_widened(p: Problem) -> bool:
    """Whether torch takes longer for 16 bits than for float32 and conversions: the processor has no such products."""
    if not p.slow or p.device != "cpu" or torch.compiler.is_exporting():
        return False
    return p.products >= _dispatch_rule.FEWEST_PRODUCTS and not (p.depthwise and p.dtype == torch.bfloat16)


def _is_faster_for_gradients(p: Problem, input: Tensor, weight: Tensor) -> bool:
    """Whether the own kernel is worth it for the sake of a gradient: torch's result has torch's gradients."""
    by_weight = weight.requires_grad and _is_faster(p._replace(which="product"))
    slow = p.device == "cpu" and (p.dtype == torch.float16 or (p.dtype == torch.float64 and p.depthwise))
    if by_weight or not (p.depthwise or slow or p.has_windows_side_by_side):
        return by_weight
    return input.requires_grad and _is_faster(p._replace(which="scatter" if p.which == "gather" else "gather"))
