"""Boxes cut off at the borders of an image, in plain PyTorch."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .box_convert import check_boxes


def clip_boxes_to_image(boxes: Tensor, size: Sequence[float]) -> Tensor:
    """Move the corners of boxes to the nearest point of an image.

    Args:
        boxes: Boxes ``(..., 4)`` as (x1, y1, x2, y2), any dtype.
        size: ``(height, width)`` of the image.

    Returns:
        New tensor of the same shape and dtype. A NaN stays.

    Differentiable and deterministic.

    Raises:
        ValueError: A last dimension that is not 4; sizes that are not two finite numbers >= 0.

    >>> clip_boxes_to_image(torch.tensor([[-3.0, 2.0, 9.0, 30.0]]), (20, 8))
    tensor([[ 0.,  2.,  8., 20.]])
    """
    check_boxes("clip_boxes_to_image", boxes)
    if len(size) != 2:
        raise ValueError(f"clip_boxes_to_image: size: expected (height, width), got {len(size)} numbers")
    height, width = size
    if not all(side >= 0 and math.isfinite(side) for side in (height, width)):
        raise ValueError(f"clip_boxes_to_image: size: expected finite numbers >= 0, got {tuple(size)}")
    if not boxes.is_floating_point():  # an image may be larger than the largest of a small integer type
        largest = torch.iinfo(boxes.dtype).max
        height, width = min(int(height), largest), min(int(width), largest)
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack((x, y), -1).flatten(-2)
