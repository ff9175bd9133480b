"""What the region ops share: boxes as one tensor or one per image, output sizes, memory formats."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _lib
from . import _arguments


def output_size_pair(op: str, output_size: int | Sequence[int]) -> tuple[int, int]:
    """``(height, width)`` from one int or two."""
    if type(output_size) is int and output_size >= 1:
        return output_size, output_size
    sizes = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    if len(sizes) != 2:
        raise ValueError(f"{op}: output_size: expected an int or 2 ints, got {len(sizes)}")
    if any(isinstance(n, bool) or not isinstance(n, (int, torch.SymInt)) for n in sizes):
        raise TypeError(f"{op}: output_size: expected an int or 2 ints, got {sizes}")
    if any(n < 1 for n in sizes):
        raise ValueError(f"{op}: output_size: expected integers >= 1, got {sizes}")
    return sizes[0], sizes[1]


def as_rois(
    op: str,
    boxes: Tensor | Sequence[Tensor],
    images: int,
    features: torch.dtype,
    name: str = "boxes",
    columns: int = 4,
) -> Tensor:
    """Regions ``(K, 1 + columns)`` as (image index, box), in float32 or, beside float64 features, in float64."""
    if isinstance(boxes, Tensor):
        rois = _widened(op, boxes, features, name)
    else:
        if len(boxes) != images:
            raise ValueError(f"{op}: {name}: expected one tensor per image ({images}), got {len(boxes)}")
        for i, image_boxes in enumerate(boxes):
            if not isinstance(image_boxes, Tensor):
                raise TypeError(f"{op}: {name}: expected Tensor in place {i}, got {type(image_boxes).__name__}")
            if image_boxes.dim() != 2 or image_boxes.shape[1] != columns:
                shape = tuple(image_boxes.shape)
                raise ValueError(f"{op}: {name}: expected shape (k, {columns}) in place {i}, got {shape}")
        if not boxes:
            return torch.zeros(0, 1 + columns, dtype=_arguments.accumulated(features))
        wide = [_widened(op, image_boxes, features, name) for image_boxes in boxes]
        rois = torch.cat([torch.nn.functional.pad(b, (1, 0), value=float(i)) for i, b in enumerate(wide)])
    return rois


def _widened(op: str, boxes: Tensor, features: torch.dtype, name: str) -> Tensor:
    if not boxes.is_floating_point():
        got = str(boxes.dtype).removeprefix("torch.")
        raise TypeError(f"{op}: {name}: expected dtype float32 or that of the features, got {got}; use {name}.float()")
    return boxes.float() if boxes.dtype == features and features in (torch.float16, torch.bfloat16) else boxes


def is_channels_last(t: Tensor) -> bool:
    """The rule of csrc/torch/binding.h."""
    return bool(t.shape[1] > 1 and t.stride(1) < t.stride(3))


def memory_format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def new_features(like: Tensor, shape: Sequence[int], channels_last: bool) -> Tensor:
    """For fake kernels: an output in the input's memory format."""
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=memory_format(channels_last))


def check_rois(
    op: str, features_name: str, features: Tensor, rois: Tensor, name: str = "boxes", columns: int = 5
) -> None:
    """For fake kernels of region ops."""
    _arguments.all_floats(op, features_name, features)
    _arguments.shape(features.dim() == 4, op, features_name, features, "(N, C, H, W)")
    wanted = _arguments.accumulated(features.dtype)
    got = rois.dtype
    _lib.check(got == wanted, op, ": ", name, ": expected dtype ", wanted, " for these features, got ", got)
    _arguments.same_device(op, name, rois, features_name, features)
    _arguments.shape(rois.dim() == 2 and rois.shape[1] == columns, op, name, rois, f"(K, {columns})")


def refuse_box_gradient(op: str, asked: bool, name: str = "boxes") -> None:
    if asked:
        raise RuntimeError(f"{op}: {name}: no gradient; detach() them")


def save_argmax(ctx: Any, input: Tensor, rois: Tensor, argmax: Tensor) -> None:
    """For the gradient of a maximum: what it needs besides the numbers."""
    ctx.save_for_backward(rois, argmax)
    ctx.mark_non_differentiable(argmax)
    ctx.shape = input.shape
    ctx.channels_last = is_channels_last(input)
