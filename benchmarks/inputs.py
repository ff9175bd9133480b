"""Inputs of the size and kind that detectors have, the same on every machine."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

HEIGHT, WIDTH = 800, 1333
# Maps of an 800 x 1344 input: level k has pixels of size 2**k.
FPN = {2: (200, 336), 3: (100, 168), 4: (50, 84), 5: (25, 42)}
RPN = {**FPN, 6: (13, 21)}


def boxes(count: int, seed: int = 0, *, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Like proposals: the square root of the area log-normal around 96 pixels, aspect 1/2 to 2, centres anywhere.

    Coordinates are multiples of half a pixel, so that areas and overlaps are exact in float32.
    """
    rng = np.random.default_rng(seed)
    side = np.clip(np.exp(rng.normal(math.log(96), 0.8, count)), 8, 760)
    aspect = np.exp(rng.uniform(-math.log(2), math.log(2), count) / 2)
    center = rng.uniform((0, 0), (width, height), (count, 2))
    half = np.stack([side * aspect, side / aspect], 1) / 2
    corners = np.concatenate([center - half, center + half], 1).clip(0, (width, height, width, height))
    corners = np.round(corners * 2) / 2
    corners[(corners[:, 2:] - corners[:, :2] < 2).any(1)] = (10, 10, 60, 60)
    return corners.astype(np.float32)


def clustered(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores of a detector: 25 around each object, shifted by 15 % of its size; no two scores alike."""
    rng = np.random.default_rng(seed)
    objects = boxes(max(1, count // 25), seed + 1)
    found = objects[rng.integers(0, len(objects), count)]
    found = found + rng.normal(0, 0.15, (count, 4)) * np.tile(found[:, 2:] - found[:, :2], 2)
    low, high = np.minimum(found[:, :2], found[:, 2:]), np.maximum(found[:, :2], found[:, 2:]) + 1
    corners = np.round(np.concatenate([low, high], 1) * 2) / 2
    return corners.astype(np.float32), ((rng.permutation(count) + 1) / (count + 1)).astype(np.float32)


def rotated(count: int, device: torch.device, seed: int = 0) -> Tensor:
    """``(count, 5)``: centre, sides and an angle in degrees."""
    corners = torch.from_numpy(boxes(count, seed))
    angles = torch.from_numpy(np.random.default_rng(seed).uniform(-90, 90, (count, 1)).astype(np.float32))
    return torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2], angles], 1).to(device)


def regions(count: int, device: torch.device, *, images: int = 1, seed: int = 0) -> Tensor:
    """``(count, 5)``: image index and box."""
    index = np.arange(count, dtype=np.float32)[:, None] % images
    return torch.from_numpy(np.concatenate([index, boxes(count, seed)], 1)).to(device)


def normal(
    shape: Sequence[int],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    channels_last: bool = False,
    seed: int = 0,
) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
    return values.contiguous(memory_format=torch.channels_last) if channels_last else values


def level_of(rois: Tensor, levels: Sequence[int], scale: float = 224.0, level: int = 4) -> Tensor:
    """The pyramid level of each region (Lin et al., FPN)."""
    area = (rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])
    return (level + (area.sqrt() / scale).log2() + 1e-6).floor().long().clamp(min(levels), max(levels))


def touched_pixels(rois: Tensor, shapes: dict[int, tuple[int, int]], bins: int, samples: int) -> tuple[int, int]:
    """How many pixels of the maps a RoIAlign reads, and at how many points it samples."""
    regions_, level = rois.cpu().double().numpy(), level_of(rois.cpu(), list(shapes)).numpy()
    count = 0
    for k, (height, width) in shapes.items():
        seen = np.zeros((height, width), bool)
        for box in regions_[level == k, 1:] / 2**k:
            axes = []
            for low, high, size in ((box[1], box[3], height), (box[0], box[2], width)):
                points = low + (np.arange(bins * samples) + 0.5) * max(high - low, 1) / (bins * samples)
                first = points[(points >= -1) & (points <= size)].clip(0, size - 1).astype(int)
                axes.append(np.unique(np.concatenate([first, np.minimum(first + 1, size - 1)])))
            seen[np.ix_(*axes)] = True
        count += int(seen.sum())
    return count, len(rois) * (bins * samples) ** 2


def greedy_nms(
    corners: np.ndarray, scores: np.ndarray, threshold: float, groups: np.ndarray | None = None
) -> tuple[Tensor, int]:
    """Kept indices by the definition of non-maximum suppression in float64, and how many pairs it had to compare.

    The reference of the op makes a matrix of all pairs, which a large workload has no room for.
    """
    order = np.argsort(-scores, kind="stable")
    if groups is not None:
        kept, pairs = [], 0
        for group in np.unique(groups):
            members = np.flatnonzero(groups == group)
            keep, compared = greedy_nms(corners[members], scores[members], threshold)
            kept.append(members[keep.numpy()])
            pairs += compared
        together = np.concatenate(kept)
        return torch.from_numpy(together[np.argsort(-scores[together], kind="stable")]), pairs
    left = corners[order].astype(np.float64)
    result, pairs = [], 0
    while len(order):
        result.append(order[0])
        order, best, left = order[1:], left[0], left[1:]
        pairs += len(order)
        sides = np.minimum(left[:, 2:], best[2:]) - np.maximum(left[:, :2], best[:2])
        inter = sides.clip(0).prod(1)
        union = (left[:, 2:] - left[:, :2]).prod(1) + (best[2:] - best[:2]).prod() - inter
        apart = inter <= threshold * union
        order, left = order[apart], left[apart]
    return torch.tensor(np.array(result, dtype=np.int64)), pairs
