"""What the functions of this package do with their arguments before they reach a native op.

The checks are for fake kernels, in the words of the native ones (csrc/torch/binding.h).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._lib import check

_HALVES = (torch.float16, torch.bfloat16)
_FLOATS = (*_HALVES, torch.float32, torch.float64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)


def widen(op: str, name: str, t: Tensor, other_name: str, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors, 16-bit floats as float32: the native ops on boxes compute in float32 or float64."""
    if t.dtype in _HALVES and other.dtype == t.dtype:
        return t.float(), other.float()
    if t.dtype in _INTEGERS:
        raise TypeError(
            f"{op}: {name}: expected dtype float16, bfloat16, float32 or float64, got {_name(t.dtype)}; "
            f"use {name}.float()"
        )
    return t, other


def group_names(op: str, name: str, t: Tensor) -> Tensor:
    """Group or class names as int64."""
    if t.dtype not in _INTEGERS:
        raise TypeError(f"{op}: {name}: expected dtype int64 or another integer, got {_name(t.dtype)}")
    return t.long()


def pair(op: str, argument: str, value: int | Sequence[int]) -> tuple[int, int]:
    """(vertical, horizontal) from one int or two."""
    if type(value) is int:
        return value, value
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(values) == 1:
        values *= 2
    if any(isinstance(n, bool) or not isinstance(n, (int, torch.SymInt)) for n in values):
        raise TypeError(f"{op}: {argument}: expected an int or 2 ints, got {value}")
    if len(values) != 2:
        raise ValueError(f"{op}: {argument}: expected an int or 2 ints, got {len(values)}")
    return values[0], values[1]


def steps(op: str, argument: str, values: Sequence[int], low: int) -> None:
    check(min(values) >= low, op, ": ", argument, ": expected an integer >= ", low, ", got ", min(values))
    check(max(values) < 2**31, op, ": ", argument, ": expected an integer < 2**31, got ", max(values))


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What an enclosing autocast region casts convolutions to; None without one. Of the devices that ops run on.

    torch.amp.is_autocast_available would know of more, but torch 2.11 cannot compile it.
    """
    enabled = device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if enabled else None


def accumulated(dtype: torch.dtype) -> torch.dtype:
    """What values of this dtype are computed in, and sums of them are returned in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def accumulated_dtype(op: str, argument: str, t: Tensor, like: Tensor) -> None:
    wanted = accumulated(like.dtype)
    check(t.dtype == wanted, op, ": ", argument, ": expected dtype ", _name(wanted), ", got ", _name(t.dtype))


def floats(op: str, argument: str, t: Tensor) -> None:
    ok = t.dtype in (torch.float32, torch.float64)
    check(ok, op, ": ", argument, ": expected dtype float32 or float64, got ", _name(t.dtype))


def all_floats(op: str, argument: str, t: Tensor) -> None:
    ok = t.dtype in _FLOATS
    check(ok, op, ": ", argument, ": expected dtype float16, bfloat16, float32 or float64, got ", _name(t.dtype))


def shape(ok: object, op: str, argument: str, t: Tensor, expected: str) -> None:
    check(ok, op, ": ", argument, ": expected shape ", expected, ", got ", tuple(t.shape))


def same_dtype(op: str, argument: str, t: Tensor, other: str, like: Tensor) -> None:
    ok = t.dtype == like.dtype
    check(ok, op, ": ", argument, ": expected dtype ", _name(like.dtype), " as ", other, ", got ", _name(t.dtype))


def same_device(op: str, argument: str, t: Tensor, other: str, like: Tensor) -> None:
    ok = t.device == like.device
    check(ok, op, ": ", argument, ": expected device ", like.device, " as ", other, ", got ", t.device)
