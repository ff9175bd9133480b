"""Boxes that are large enough, in plain PyTorch."""

import math

import torch
from torch import Tensor

from .box_convert import check_boxes


def remove_small_boxes(boxes: Tensor, min_size: float) -> Tensor:
    """Indices of the boxes of which no side is shorter than ``min_size``.

    Args:
        boxes: Boxes ``(N, 4)`` as (x1, y1, x2, y2), floating point or integer.
        min_size: The shortest side that stays.

    Returns:
        int64 ``(K,)``, ascending. A box with a NaN coordinate is removed. The number of indices depends on the data, so
        on CUDA this waits for the device; ``box_convert(boxes, "xyxy", "xywh")[:, 2:] >= min_size`` does not.

    Deterministic.

    Raises:
        ValueError: Wrong shape; a ``min_size`` that is NaN.

    torchvision wraps the sides of integer boxes.

    >>> remove_small_boxes(torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 1.0]]), 2.0)
    tensor([0])
    """
    check_boxes("remove_small_boxes", boxes)
    if boxes.dim() != 2:
        raise ValueError(f"remove_small_boxes: boxes: expected shape (N, 4), got {tuple(boxes.shape)}")
    if math.isnan(min_size):
        raise ValueError("remove_small_boxes: min_size: expected a number, got nan")
    wide = boxes if boxes.dtype == torch.float32 else boxes.double()
    keep = (wide[:, 2] - wide[:, 0] >= min_size) & (wide[:, 3] - wide[:, 1] >= min_size)
    return torch.where(keep)[0]
