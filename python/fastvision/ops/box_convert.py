"""Conversions between box formats, in plain PyTorch."""

import torch
from torch import Tensor

_FORMATS = ("xyxy", "xywh", "cxcywh")


def box_convert(boxes: Tensor, in_fmt: str, out_fmt: str) -> Tensor:
    """Convert boxes between formats.

    Args:
        boxes: Boxes ``(..., 4)``, any dtype.
        in_fmt: ``"xyxy"`` (two corners), ``"xywh"`` (corner and sides) or ``"cxcywh"`` (centre and sides).
        out_fmt: Likewise.

    Returns:
        New tensor of the same shape and dtype, but float32 where integer boxes have or get a centre.

    Raises:
        ValueError: An unknown format or a last dimension that is not 4.

    >>> box_convert(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), "xywh", "xyxy")
    tensor([[1., 2., 4., 6.]])
    """
    for name, value in (("in_fmt", in_fmt), ("out_fmt", out_fmt)):
        if value not in _FORMATS:
            raise ValueError(f"box_convert: {name}: expected one of {', '.join(_FORMATS)}, got {value!r}")
    if boxes.dim() == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"box_convert: boxes: expected shape (..., 4), got {tuple(boxes.shape)}")
    if in_fmt == out_fmt:
        return boxes.clone()
    if "cxcywh" in (in_fmt, out_fmt) and not boxes.is_floating_point():
        return box_convert(boxes.double(), in_fmt, out_fmt).float()  # sums of integers may not fit their dtype
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
