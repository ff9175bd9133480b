"""Areas of boxes, in plain PyTorch; of float boxes, where nothing has to know what is done, by a kernel:
csrc/kernels/box_area.{h,cpp,cu}, csrc/torch/box_area.cpp."""

import torch
from torch import Tensor

from .. import _lib
from . import _arguments
from .box_convert import PLAIN_FORMATS, check_boxes, check_format, has_kernel

_op = _lib.Op[Tensor]("box_area")


def box_area(boxes: Tensor, fmt: str = "xyxy") -> Tensor:
    """Areas of boxes.

    Args:
        boxes: Boxes ``(..., 4)``, floating point or integer.
        fmt: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``, see :func:`box_convert`.

    Returns:
        ``(...)``: float32 for 16-bit and float32 boxes, float64 for float64, int64 for integers, where coordinates
        count up to 2**62 and areas up to 2**63 - 1. A side is ``max(x2 - x1, 0)``; finite coordinates never give NaN.
        Sides below the smallest normal number of the dtype lose their last bit.

    Differentiable and deterministic.

    Raises:
        ValueError: An unknown format or a last dimension that is not 4.

    torchvision gives inverted boxes a negative area, and int32 boxes wrap.

    >>> box_area(torch.tensor([[0.0, 0.0, 2.0, 3.0], [5.0, 5.0, 4.0, 9.0]]))
    tensor([6., 0.])
    """
    check_boxes("box_area", boxes, "fmt", fmt, PLAIN_FORMATS)
    if boxes.is_floating_point():
        wide = boxes.to(_arguments.accumulated(boxes.dtype))
        if has_kernel(wide):
            return _op(wide, PLAIN_FORMATS.index(fmt))
        width, height = _sides(wide / 2, fmt)  # halves: a side of finite coordinates stays finite
        return 4 * (width * height)
    width, height = _sides(boxes.long().clamp(-(2**62), 2**62 - 1), fmt)
    largest = torch.iinfo(torch.int64).max
    return torch.where(width.double() * height.double() < largest, width * height, largest)


def _sides(boxes: Tensor, fmt: str) -> tuple[Tensor, Tensor]:
    a, b, c, d = boxes.unbind(-1)
    width, height = (c - a, d - b) if fmt == "xyxy" else (c, d)
    return width.clamp(min=0), height.clamp(min=0)


@_lib.register_fake("box_area")
def _(boxes: Tensor, format: int) -> Tensor:
    _arguments.floats("box_area", "boxes", boxes)
    _arguments.shape(boxes.dim() >= 1 and boxes.shape[-1] == 4, "box_area", "boxes", boxes, "(..., 4)")
    check_format("box_area", format)
    return boxes.new_empty(boxes.shape[:-1])


_lib.register_no_gradient(_op)
_lib.register_batch_vmap(_op, 1)
