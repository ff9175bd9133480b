"""Anchors. Kernels: csrc/kernels/grid_anchors.{h,cpp,cu}. Binding: csrc/torch/grid_anchors.cpp."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _lib

_op = _lib.Op[Tensor]("grid_anchors")


def grid_anchors(
    grid_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int | tuple[int, int]],
    sizes: Sequence[Sequence[float]],
    aspect_ratios: Sequence[Sequence[float]],
    *,
    offset: float = 0.0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Anchor boxes of all levels of a feature pyramid (Ren et al., Faster R-CNN, NIPS 2015), in one launch.

    Args:
        grid_sizes: ``(rows, columns)`` of each level, at most 8 levels.
        strides: Pixels between neighbouring cells of each level, one number or (vertical, horizontal).
        sizes: For each level the sides of its square anchors, in pixels, at most 16.
        aspect_ratios: For each level the ratios height / width, at most 16.
        offset: Of the anchors' centres from the top left corners of their cells, in strides.
        dtype: float32 or float64.
        device: Of the result.

    Returns:
        ``(anchors of all levels, 4)``, xyxy, level by level in the order row, column, ratio, size. Corners relative to
        the centre are rounded to integers, halves to even, as torchvision does.

    Deterministic; the same bits on every device.

    Raises:
        TypeError, ValueError: Levels that do not fit together, numbers that are not positive, another dtype.

    >>> grid_anchors([(1, 2)], [16], [[32]], [[0.5, 1.0]])
    tensor([[-23., -11.,  23.,  11.],
            [-16., -16.,  16.,  16.],
            [ -7., -11.,  39.,  11.],
            [  0., -16.,  32.,  16.]])
    """
    levels = len(grid_sizes)
    for name, values in (("strides", strides), ("sizes", sizes), ("aspect_ratios", aspect_ratios)):
        if len(values) != levels:
            raise ValueError(f"grid_anchors: {name}: expected one entry per level ({levels}), got {len(values)}")
    layout = [
        n
        for (rows, columns), stride, side, ratio in zip(grid_sizes, strides, sizes, aspect_ratios)
        for n in (rows, columns, *_pair(stride), len(side), len(ratio))
    ]
    all_sizes = [float(s) for level in sizes for s in level]
    all_ratios = [float(r) for level in aspect_ratios for r in level]
    like = torch.empty(0, dtype=dtype, device=device)
    return _op(like, layout, all_sizes, all_ratios, offset)


def _pair(stride: int | tuple[int, int]) -> tuple[int, int]:
    return stride if isinstance(stride, tuple) else (stride, stride)


@_lib.register_fake("grid_anchors")
def _(like: Tensor, layout: list[int], sizes: list[float], ratios: list[float], offset: float) -> Tensor:
    total = sum(
        rows * columns * side * ratio for rows, columns, _, _, side, ratio in zip(*(layout[k::6] for k in range(6)))
    )
    return like.new_empty(total, 4)


def grid_anchors_reference(
    grid_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int | tuple[int, int]],
    sizes: Sequence[Sequence[float]],
    aspect_ratios: Sequence[Sequence[float]],
    *,
    offset: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The definition of :func:`grid_anchors` in plain PyTorch."""
    levels = [torch.zeros(0, 4, dtype=dtype)]
    for (rows, columns), stride, side, ratio in zip(grid_sizes, strides, sizes, aspect_ratios):
        tall, s = torch.tensor(ratio, dtype=dtype).sqrt(), torch.tensor(side, dtype=dtype)
        w, h = ((1 / tall)[:, None] * s).flatten(), (tall[:, None] * s).flatten()
        base = (torch.stack([-w, -h, w, h], 1) / 2).round()
        y = (torch.arange(rows, dtype=dtype) + offset) * _pair(stride)[0]
        x = (torch.arange(columns, dtype=dtype) + offset) * _pair(stride)[1]
        y, x = torch.meshgrid(y, x, indexing="ij")
        levels.append((torch.stack([x, y, x, y], -1).reshape(-1, 1, 4) + base).reshape(-1, 4))
    return torch.cat(levels)
