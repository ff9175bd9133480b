"""What the bindings of deformable convolution check, for its fake kernels."""

from collections.abc import Sequence

from torch import Tensor

from .. import _lib
from . import _arguments


def check_arguments(
    op: str, input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Sequence[int]
) -> tuple[int, int, int, int]:
    """In the words of the bindings. Returns the shape of the result."""
    _arguments.all_floats(op, "input", input)
    _arguments.shape(input.dim() == 4, op, "input", input, "(N, C, H, W)")
    _arguments.same_dtype(op, "weight", weight, "input", input)
    _arguments.same_device(op, "weight", weight, "input", input)
    fits = weight.dim() == 4 and weight.shape[2] >= 1 and weight.shape[3] >= 1
    _arguments.shape(fits, op, "weight", weight, "of 4 dimensions, the last two at least 1")
    _arguments.steps(op, "stride", geometry[:2], 1)
    _arguments.steps(op, "padding", geometry[2:4], 0)
    _arguments.steps(op, "dilation", geometry[4:], 1)
    (n, c, h, w), (d, per_group, *kernel) = input.shape, weight.shape
    _lib.check(h >= 1 and w >= 1, op, ": input: expected at least one pixel per map, got ", tuple(input.shape))
    divides = (c > 0 and c % per_group == 0) if per_group > 0 else c == 0
    wanted = f"a number of channels that divides the {c} of input in place 1"
    _lib.check(divides, op, ": weight: expected shape with ", wanted, ", got ", tuple(weight.shape))
    groups = c // per_group if per_group > 0 else 1
    wanted = f"channels divisible by groups={groups}"
    _lib.check(d % groups == 0, op, ": weight: expected shape with ", wanted, ", got ", tuple(weight.shape))
    window = [geometry[4 + k] * (kernel[k] - 1) + 1 for k in (0, 1)]
    padded = [(h, w)[k] + 2 * geometry[2 + k] for k in (0, 1)]
    text = f"the effective kernel size {window[0]}x{window[1]}, got {padded[0]}x{padded[1]}"
    fits = padded[0] >= window[0] and padded[1] >= window[1]
    _lib.check(fits, op, ": input: expected a padded map of at least ", text)
    out_h, out_w = ((padded[k] - window[k]) // geometry[k] + 1 for k in (0, 1))
    taps = kernel[0] * kernel[1]
    _check_map(op, "offset", input, offset, 2 * taps, (out_h, out_w))
    offset_groups = offset.shape[1] // (2 * taps)
    wanted = f"a number of offset groups that divides the channels of input, {c}"
    _lib.check(c % offset_groups == 0, op, ": offset: expected ", wanted, ", got ", offset_groups)
    if mask is not None:
        _check_map(op, "mask", input, mask, taps, (out_h, out_w))
        fits = mask.shape[1] == offset_groups * taps
        shape = (n, offset_groups * taps, out_h, out_w)
        _lib.check(fits, op, ": mask: expected shape ", shape, ", got ", tuple(mask.shape))
    return n, d, out_h, out_w


def _check_map(op: str, name: str, input: Tensor, t: Tensor, channels: int, size: tuple[int, int]) -> None:
    wanted = _arguments.accumulated(input.dtype)
    dtypes = [str(d).removeprefix("torch.") for d in (wanted, input.dtype, t.dtype)]
    _lib.check(t.dtype == wanted, op, f": {name}: expected dtype {dtypes[0]} for input of {dtypes[1]}, got {dtypes[2]}")
    _arguments.same_device(op, name, t, "input", input)
    fits = t.dim() == 4 and t.shape[0] == input.shape[0] and t.shape[2] == size[0] and t.shape[3] == size[1]
    fits = fits and t.shape[1] % channels == 0 and t.shape[1] >= channels
    text = f"({input.shape[0]}, offset groups * {channels}, {size[0]}, {size[1]})"
    _lib.check(fits, op, ": ", name, ": expected shape ", text, ", got ", tuple(t.shape))
