"""Boxes around masks, in plain PyTorch."""

import torch
from torch import Tensor


def masks_to_boxes(masks: Tensor) -> Tensor:
    """The smallest box that holds all pixels of each mask.

    Args:
        masks: ``(N, H, W)``, bool or any other dtype, where pixels that differ from 0 belong to the mask.

    Returns:
        float32 ``(N, 4)`` as (x1, y1, x2, y2), the first and last column and row of the mask, both included: a mask of
        one pixel has ``x1 == x2``. Zeros for an empty mask.

    Not differentiable; deterministic.

    Raises:
        ValueError: Wrong shape.

    torchvision loses the rows of masks without pixels.

    >>> masks_to_boxes(torch.tensor([[[0, 0, 0, 0], [0, 1, 1, 0]]]))
    tensor([[1., 1., 2., 1.]])
    """
    if masks.dim() != 3:
        raise ValueError(f"masks_to_boxes: masks: expected shape (N, H, W), got {tuple(masks.shape)}")
    if masks.shape[1] == 0 or masks.shape[2] == 0:
        return torch.zeros(masks.shape[0], 4, device=masks.device)
    y1, y2 = _first_and_last(masks.any(2))
    x1, x2 = _first_and_last(masks.any(1))
    return torch.stack((x1, y1, x2, y2), -1).float()


def _first_and_last(present: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row: the first and the last column that is not 0, or 0 and 0."""
    columns = torch.arange(present.shape[1], device=present.device)
    last = torch.where(present.bool(), columns, 0).amax(1)
    return torch.where(present.bool(), columns, last[:, None]).amin(1), last
