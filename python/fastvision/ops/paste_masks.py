"""Masks of boxes into the image. Kernels: csrc/kernels/paste_masks.{h,cpp,cu}. Binding: csrc/torch/paste_masks.cpp."""

from typing import Any

import torch
from torch import Tensor

from .. import _lib
from . import _arguments

_op = _lib.Op[Tensor]("paste_masks")


def paste_masks_in_image(
    masks: Tensor,
    boxes: Tensor,
    image_shape: tuple[int, int],
    threshold: float = 0.5,
    *,
    padding: int = 1,
    out: str = "bool",
) -> Any:
    """Put the mask predicted for each box into the image: bilinear inside the box, then a threshold.

    The geometry is torchvision's: ``padding`` samples of 0 around the mask, the box grown accordingly and cut to
    integers, one pixel added to its far sides.

    Args:
        masks: Probabilities ``(N, 1, h, w)`` or ``(N, h, w)``, floating point.
        boxes: ``(N, 4)``, xyxy, in pixels of the image; in the dtype of ``masks`` or, beside 16-bit masks, in float32.
        image_shape: ``(height, width)``.
        threshold: A pixel belongs to the mask if its probability is strictly greater.
        padding: See above.
        out: ``"bool"`` or ``"uint8"`` (0 and 1): ``(N, height, width)``; ``"packed"``: uint8
            ``(N, height, ceil(width / 8))``, eight pixels to a byte, the first in the lowest bit, zeros behind the last
            of a row, as :func:`mask_iou` reads them; ``"rle"``: a list of run lengths as :func:`rle_encode` makes them,
            never more than 16 MiB of packed masks, or one, in memory at a time.

    Returns:
        As ``out`` says. A box with a coordinate that is not finite or beyond 2**30 gives an empty mask.

    Deterministic, no gradient. Writes each byte of the result once and no probabilities.

    Raises:
        TypeError, ValueError: Dtypes, shapes or numbers that do not fit, an unknown ``out``.

    torchvision returns N x height x width float32 and loops over the masks.

    >>> paste_masks_in_image(torch.ones(1, 1, 2, 2), torch.tensor([[1.0, 0.0, 3.0, 2.0]]), (3, 5)).int()
    tensor([[[0, 0, 1, 0, 0],
             [0, 1, 1, 1, 0],
             [0, 0, 1, 0, 0]]], dtype=torch.int32)
    """
    if out not in ("bool", "uint8", "packed", "rle"):
        raise ValueError(f"paste_masks_in_image: out: expected one of bool, uint8, packed, rle, got {out!r}")
    if masks.dim() == 4 and masks.shape[1] == 1:
        masks = masks[:, 0]
    height, width = image_shape
    if boxes.dtype == masks.dtype and masks.dtype in (torch.float16, torch.bfloat16):
        boxes = boxes.float()
    if out == "rle":
        from .rle import rle_encode_packed

        few = max(1, 2**27 // max(height * width, 1))
        groups = zip(masks.split(few), boxes.split(few)) if len(masks) else ()
        in_turn = (_op(m, b, height, width, threshold, padding, True) for m, b in groups)
        return [rle for group in in_turn for rle in rle_encode_packed(group, width)]
    pasted = _op(masks, boxes, height, width, threshold, padding, out == "packed")
    return pasted.view(torch.uint8) if out == "uint8" else pasted


@_lib.register_fake("paste_masks")
def _(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float, padding: int, packed: bool) -> Tensor:
    op = "paste_masks_in_image"
    _arguments.all_floats(op, "masks", masks)
    _arguments.shape(masks.dim() == 3, op, "masks", masks, "(N, h, w)")
    _arguments.same_device(op, "boxes", boxes, "masks", masks)
    fits = boxes.dim() == 2 and boxes.shape[1] == 4 and boxes.shape[0] == masks.shape[0]
    _arguments.shape(fits, op, "boxes", boxes, "(N, 4), one per mask")
    columns = (width + 7) // 8 if packed else width
    return masks.new_empty((masks.shape[0], height, columns), dtype=torch.uint8 if packed else torch.bool)


def paste_masks_reference(masks: Tensor, boxes: Tensor, image_shape: tuple[int, int], *, padding: int = 1) -> Tensor:
    """The probabilities that :func:`paste_masks_in_image` compares with its threshold, in plain PyTorch."""
    height, width = image_shape
    pasted = masks.new_zeros(len(masks), height, width)
    padded = torch.nn.functional.pad(masks, (padding,) * 4)
    for out, mask, box in zip(pasted, padded, boxes):
        middle, half = (box[2:] + box[:2]) * 0.5, (box[2:] - box[:2]) * 0.5
        half = half * (torch.tensor(mask.shape).flip(0).to(box) / torch.tensor(masks.shape[1:]).flip(0).to(box))
        if not torch.cat([middle - half, middle + half]).abs().lt(2**30).all():
            continue
        (x1, y1), (x2, y2) = (middle - half).long().tolist(), (middle + half).long().tolist()
        w, h = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        shown = torch.nn.functional.interpolate(mask[None, None], (h, w), mode="bilinear", align_corners=False)[0, 0]
        top, bottom = max(y1, 0), min(y1 + h, height)
        left, right = max(x1, 0), min(x1 + w, width)
        if bottom > top and right > left:
            out[top:bottom, left:right] = shown[top - y1 : bottom - y1, left - x1 : right - x1]
    return pasted
