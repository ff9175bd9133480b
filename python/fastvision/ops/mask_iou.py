"""Intersection over union of masks. Kernels: csrc/kernels/mask_iou.{h,cpp,cu}. Binding: csrc/torch/mask_iou.cpp."""

import torch
from torch import Tensor

from .. import _lib
from . import _arguments

_op = _lib.Op[Tensor]("mask_iou")


def mask_iou(masks1: Tensor, masks2: Tensor, *, crowd: Tensor | None = None) -> Tensor:
    """Intersection over union of all pairs of two sets of masks.

    Args:
        masks1: N masks: dense, bool ``(..., N, H, W)``, or packed, uint8 ``(..., N, H, ceil(W / 8))`` with eight pixels
            to a byte, the first in the lowest bit, and zeros behind the last pixel of a row, as
            ``paste_masks_in_image(out="packed")`` makes them. uint8 masks with a byte of 0 and 1, or 0 and 255, per
            pixel have the same result, but take longer.
        masks2: M masks of the same size and leading dimensions, dense or packed.
        crowd: bool or integer ``(..., M)``, for each of ``masks2`` whether it is a crowd; the intersection is then
            divided by the area of ``masks1`` alone.

    Returns:
        float32 ``(..., N, M)`` in [0, 1], 0 for two empty masks. Pixels are counted in integers: deterministic, exact
        but for one rounding, the same bits on every backend. No gradient.

    Dense masks are packed first. Time is that of reading the masks once and an eighth of a byte per pixel and pair;
    memory is an eighth of a byte per pixel.

    Raises:
        TypeError: Another dtype.
        ValueError: Sizes or devices that do not fit together, or 2**32 pixels and more per mask.

    >>> masks = torch.tensor([[[1, 1, 0]], [[0, 1, 1]]], dtype=torch.bool)
    >>> mask_iou(masks, masks)
    tensor([[1.0000, 0.3333],
            [0.3333, 1.0000]])
    """
    if crowd is not None and crowd.dtype != torch.bool:
        crowd = _arguments.group_names("mask_iou", "crowd", crowd).bool()
    return _op(masks1, masks2, crowd)


def check_masks(op: str, argument: str, masks: Tensor) -> None:
    """For fake kernels, as checked_masks in csrc/torch/mask_bits.h."""
    ok = masks.dtype in (torch.bool, torch.uint8)
    got = str(masks.dtype).removeprefix("torch.")
    _lib.check(ok, op, ": ", argument, ": expected dtype bool, or uint8 for packed bits, got ", got)
    _arguments.shape(masks.dim() >= 3, op, argument, masks, "(..., N, H, W)")


def _row_bytes(masks: Tensor) -> int:
    return (masks.shape[-1] + 7) // 8 if masks.dtype == torch.bool else masks.shape[-1]


@_lib.register_fake("mask_iou")
def _(masks1: Tensor, masks2: Tensor, crowd: Tensor | None) -> Tensor:
    check_masks("mask_iou", "masks1", masks1)
    check_masks("mask_iou", "masks2", masks2)
    _arguments.same_device("mask_iou", "masks2", masks2, "masks1", masks1)
    fits = masks1.dim() == masks2.dim() and masks1.shape[:-3] == masks2.shape[:-3]
    fits = fits and masks1.shape[-2] == masks2.shape[-2] and _row_bytes(masks1) == _row_bytes(masks2)
    fits = fits and (masks1.dtype != masks2.dtype or masks1.shape[-1] == masks2.shape[-1])
    wanted = f"the size and leading dimensions of masks1 {tuple(masks1.shape)}"
    _lib.check(fits, "mask_iou: masks2: expected ", wanted, ", got shape ", tuple(masks2.shape))
    if crowd is not None:
        got = f"shape {tuple(crowd.shape)} for masks {tuple(masks2.shape)}"
        same = crowd.shape == masks2.shape[:-2]
        _lib.check(same, "mask_iou: crowd: expected one per mask of masks2, got ", got)
        _arguments.same_device("mask_iou", "crowd", crowd, "masks1", masks1)
    return masks1.new_empty((*masks1.shape[:-2], masks2.shape[-3]), dtype=torch.float32)


_lib.register_batch_vmap(_op, 3)


def mask_iou_reference(masks1: Tensor, masks2: Tensor, *, crowd: Tensor | None = None) -> Tensor:
    """The definition of :func:`mask_iou` in plain PyTorch, on dense masks."""
    a, b = masks1.flatten(-2).double(), masks2.flatten(-2).double()
    inter = a @ b.transpose(-1, -2)
    area_a, area_b = a.sum(-1)[..., :, None], b.sum(-1)[..., None, :]
    total = area_a + area_b - inter
    if crowd is not None:
        total = torch.where(crowd.bool()[..., None, :], area_a, total)
    return torch.where(total > 0, inter / torch.where(total > 0, total, 1), 0).float()
