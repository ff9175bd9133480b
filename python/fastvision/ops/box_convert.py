"""Conversions between box formats, in plain PyTorch; upright float boxes alone, where nothing has to know what is done,
by a kernel: csrc/kernels/box_convert.{h,cpp,cu}, csrc/torch/box_convert.cpp."""

import functools

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .. import _lib
from . import _arguments

_op = _lib.Op[Tensor]("box_convert")

PLAIN_FORMATS = ("xyxy", "xywh", "cxcywh")
_ROTATED_FORMATS = {"xywhr": 5, "cxcywhr": 5, "xyxyxyxy": 8}


def box_convert(boxes: Tensor, in_fmt: str, out_fmt: str) -> Tensor:
    """Convert boxes between formats, either of upright or of rotated boxes.

    Args:
        boxes: Boxes ``(..., 4)``, or rotated ``(..., 5)`` or ``(..., 8)``, any dtype.
        in_fmt: ``"xyxy"`` (two corners), ``"xywh"`` (corner and sides) or ``"cxcywh"`` (centre and sides). Of rotated
            boxes ``"xywhr"`` (first corner and sides), ``"cxcywhr"`` (centre and sides), both with an angle in degrees
            that turns them counterclockwise on the screen, or ``"xyxyxyxy"`` (four corners, clockwise).
        out_fmt: Likewise.

    Returns:
        New tensor of the same dtype, but float32 where upright integer boxes have or get a centre; rotated integer
        boxes are computed in float64 and rounded.

    Differentiable and deterministic.

    Raises:
        ValueError: An unknown format, a last dimension that does not fit it, or an upright and a rotated format.

    >>> box_convert(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), "xywh", "xyxy")
    tensor([[1., 2., 4., 6.]])
    """
    formats = tuple(_ROTATED_FORMATS) if in_fmt in _ROTATED_FORMATS else PLAIN_FORMATS
    check_boxes("box_convert", boxes, "in_fmt", in_fmt, (*PLAIN_FORMATS, *_ROTATED_FORMATS))
    if out_fmt not in formats:
        raise ValueError(f"box_convert: out_fmt: expected one of {', '.join(formats)}, got {out_fmt!r}")
    if in_fmt == out_fmt:
        return boxes.clone()
    if in_fmt in _ROTATED_FORMATS:
        return _convert_rotated(boxes, in_fmt, out_fmt)
    if "cxcywh" in (in_fmt, out_fmt) and not boxes.is_floating_point():
        return box_convert(boxes.double(), in_fmt, out_fmt).float()  # sums of integers may not fit their dtype
    if has_kernel(boxes):
        return _op(boxes, PLAIN_FORMATS.index(in_fmt), PLAIN_FORMATS.index(out_fmt))
    a, b, c, d = boxes.unbind(-1)
    if in_fmt == "xywh":
        a, b, c, d = a, b, a + c, b + d
    elif in_fmt == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if out_fmt == "xywh":
        a, b, c, d = a, b, c - a, d - b
    elif out_fmt == "cxcywh":
        a, b, c, d = (a + c) / 2, (b + d) / 2, c - a, d - b
    return torch.stack((a, b, c, d), -1)


@functools.cache
def _has_kernel_on(device: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        f"fastvision::{_op.name}", torch._C._dispatch_key_for_device(device)
    )


def has_kernel(boxes: Tensor) -> bool:
    """Whether kernels have dtype and device of the boxes, and no gradients, torch.compile or torch.func look on."""
    return (
        boxes.dtype in (torch.float32, torch.float64)
        and not (boxes.requires_grad and torch.is_grad_enabled())
        and not torch.compiler.is_compiling()
        and not _lib.in_transform()
        and forward_ad._current_level < 0
        and _has_kernel_on(boxes.device.type)
    )


@_lib.register_fake("box_convert")
def _(boxes: Tensor, in_format: int, out_format: int) -> Tensor:
    _arguments.floats("box_convert", "boxes", boxes)
    _arguments.shape(boxes.dim() >= 1 and boxes.shape[-1] == 4, "box_convert", "boxes", boxes, "(..., 4)")
    for format in (in_format, out_format):
        check_format("box_convert", format)
    return boxes.new_empty(boxes.shape)


_lib.register_no_gradient(_op)
_lib.register_batch_vmap(_op, 1)


def _convert_rotated(boxes: Tensor, in_fmt: str, out_fmt: str) -> Tensor:
    dtype = boxes.dtype
    wide = boxes.float() if dtype in (torch.float16, torch.bfloat16) else boxes
    wide = wide if wide.is_floating_point() else wide.double()
    if in_fmt == "xyxyxyxy":
        x, y, x2, y2, x3, y3 = wide[..., :6].unbind(-1)
        w, h = torch.hypot(x2 - x, y2 - y), torch.hypot(x3 - x2, y3 - y2)
        angle = torch.rad2deg(torch.atan2(y - y2, x2 - x))
    else:
        x, y, w, h, angle = wide.unbind(-1)
    cos, sin = torch.deg2rad(angle).cos(), torch.deg2rad(angle).sin()
    to_centre_x, to_centre_y = (w * cos + h * sin) / 2, (h * cos - w * sin) / 2
    if in_fmt == "cxcywhr":
        x, y = x - to_centre_x, y - to_centre_y
    if out_fmt == "xywhr":
        parts = [x, y, w, h, angle]
    elif out_fmt == "cxcywhr":
        parts = [x + to_centre_x, y + to_centre_y, w, h, angle]
    else:
        across, down = (w * cos, -w * sin), (h * sin, h * cos)
        parts = [x, y, x + across[0], y + across[1]]
        parts += [x + across[0] + down[0], y + across[1] + down[1], x + down[0], y + down[1]]
    result = torch.stack(parts, -1)
    return (result if dtype.is_floating_point else result.round()).to(dtype)


def check_boxes(
    op: str, boxes: Tensor, name: str = "fmt", fmt: str = "xyxy", formats: tuple[str, ...] = PLAIN_FORMATS
) -> None:
    """That the format is known and that the boxes have as many numbers as it says."""
    if fmt not in formats:
        raise ValueError(f"{op}: {name}: expected one of {', '.join(formats)}, got {fmt!r}")
    columns = _ROTATED_FORMATS.get(fmt, 4)
    if boxes.dim() == 0 or boxes.shape[-1] != columns:
        raise ValueError(f"{op}: boxes: expected shape (..., {columns}), got {tuple(boxes.shape)}")


def check_format(op: str, format: int) -> None:
    """What the bindings check, in their words."""
    expected = "expected 0 to 2 (corners, corner and sides, centre and sides)"
    _lib.check(0 <= format <= 2, op, ": format: ", expected, ", got ", format)
