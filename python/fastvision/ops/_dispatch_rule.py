"""The rule of ``algorithm="auto"`` of the convolutions, from measured tables: docs/kernels/dispatch.md."""

import torch

from ._dispatch_dense import is_faster_dense
from ._dispatch_problem import Problem

# Of 16 bits that the processor has to widen: so few that calls take longer, for torch in float16 and for a conversion.
FEWEST_PRODUCTS, FEW_PRODUCTS = 2**14, 2**19


def own_is_faster(p: Problem) -> bool:
    kernel, geometry, stride, dilation = p.kernel, p.geometry, min(p.geometry[:2]), min(p.geometry[4:])
    if p.device == "cuda":
        return p.depthwise and (p.which == "scatter" or max(geometry[4:]) > 1)
    if p.has_empty_windows:
        return True  # torch 2.13 may crash
    if p.slow and p.products < FEW_PRODUCTS:
        return p.products >= FEWEST_PRODUCTS or p.dtype == torch.bfloat16
    if _is_slow_in_torch(p):
        return True
    if not p.depthwise:
        if is_faster_dense(p):
            return True
        if not p.has_windows_side_by_side:
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
    kernel, small, large = p.kernel, p.weight[0] // p.groups, p.weight[1]
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
