"""Checks for fake kernels, in the words of the native ones (csrc/torch/binding.h)."""

from torch import Tensor

from .._lib import check


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def floats(op: str, argument: str, t: Tensor) -> None:
    ok = _name(t.dtype) in ("float32", "float64")
    check(ok, op, ": ", argument, ": expected dtype float32 or float64, got ", _name(t.dtype))


def all_floats(op: str, argument: str, t: Tensor) -> None:
    ok = _name(t.dtype) in ("float16", "bfloat16", "float32", "float64")
    check(ok, op, ": ", argument, ": expected dtype float16, bfloat16, float32 or float64, got ", _name(t.dtype))


def shape(ok: object, op: str, argument: str, t: Tensor, expected: str) -> None:
    check(ok, op, ": ", argument, ": expected shape ", expected, ", got ", tuple(t.shape))


def same_dtype(op: str, argument: str, t: Tensor, other: str, like: Tensor) -> None:
    ok = t.dtype == like.dtype
    check(ok, op, ": ", argument, ": expected dtype ", _name(like.dtype), " as ", other, ", got ", _name(t.dtype))


def same_device(op: str, argument: str, t: Tensor, other: str, like: Tensor) -> None:
    ok = t.device == like.device
    check(ok, op, ": ", argument, ": expected device ", like.device, " as ", other, ", got ", t.device)
