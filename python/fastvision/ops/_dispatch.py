"""Where ``algorithm="auto"`` of the convolutions takes the own kernels: by shapes alone, from measured tables.

The tables, and the command that measures them again: docs/kernels/dispatch.md.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ._regions import is_channels_last

# gather: convolution, and the gradient of transposed convolution by its input. scatter: transposed convolution, and the
# gradient of convolution by its input. product: the gradient of both by their weight.
Map = Literal["gather", "scatter", "product"]
FAR = 8  # pixels of stride or dilation from which torch has no quick kernel for one channel per group


def own_is_faster(which: Map, input: Tensor, weight: Tensor, geometry: Sequence[int], groups: int) -> bool:
    """``geometry``: stride, padding and dilation, two numbers each. ``input``: of the forward pass."""
    stride, dilation = geometry[:2], geometry[4:]
    depthwise = groups == weight.shape[0] and weight.shape[1] == 1
    if input.device.type == "cuda":
        return depthwise and (which == "scatter" or max(dilation) > 1 or max(stride) >= FAR)
    if has_empty_windows(weight, geometry):
        return True  # torch 2.13 may crash
    if depthwise and min(dilation) >= FAR:
        return True
    if depthwise and min(stride) >= FAR:
        return which == "product" or not is_channels_last(input)
    if which != "scatter" or is_channels_last(input) or input.dtype not in (torch.float32, torch.float64):
        return False
    return (depthwise and min(stride) > 1) or (_doubles(weight, geometry) and weight.shape[1] <= 128)


def own_with_gradients(input: Tensor, weight: Tensor, geometry: Sequence[int], groups: int) -> bool:
    """Whether the own kernels are worth it for the sake of the gradient by the weight."""
    needed = weight.requires_grad and torch.is_grad_enabled()
    return needed and own_is_faster("product", input, weight, geometry, groups)


def has_empty_windows(weight: Tensor, geometry: Sequence[int]) -> bool:
    """Whether windows may lie in the padding with all their taps."""
    return any(geometry[2 + k] > geometry[4 + k] * (weight.shape[2 + k] - 1) for k in (0, 1))


def _doubles(weight: Tensor, geometry: Sequence[int]) -> bool:
    return list(weight.shape[2:]) == [2, 2] and list(geometry) == [2, 2, 0, 0, 1, 1]
