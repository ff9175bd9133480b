"""Overlaps of all pairs of masks."""

import torch
from fastvision import ops
from fastvision.ops.mask_iou import mask_iou_reference
from torch import Tensor

from .. import inputs
from ..rivals import pycocotools
from ..workload import Case, Workload


def blobs(masks: int, size: tuple[int, int], device: torch.device, seed: int = 0) -> Tensor:
    """Smooth shapes, each within a box, as instances are."""
    height, width = size
    coarse = inputs.normal((masks, 1, 6, 6), torch.device("cpu"), seed=seed)
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic")[:, 0] > 0
    x1, y1, x2, y2 = torch.from_numpy(inputs.boxes(masks, seed, height=height, width=width)).T[..., None, None]
    y, x = torch.arange(height)[:, None], torch.arange(width)
    shapes: Tensor = smooth & (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
    return shapes.to(device)


def build(device: torch.device, masks: int, others: int, size: tuple[int, int]) -> Case:
    a, b = blobs(masks, size, device), blobs(others, size, device, seed=1)

    def with_pycocotools() -> Tensor:
        """From dense masks, as ours; encoding is most of it."""
        encoded = [pycocotools.mask.encode(m.permute(1, 2, 0).cpu().numpy().astype("uint8", order="F")) for m in (a, b)]
        return torch.from_numpy(pycocotools.mask.iou(*encoded, [0] * others)).float()

    def eager() -> Tensor:
        x, y = a.flatten(1).float(), b.flatten(1).float()
        inter = x @ y.T
        return inter / (x.sum(1)[:, None] + y.sum(1) - inter).clamp(min=1)

    return Case(
        ours=lambda: ops.mask_iou(a, b),
        expected=lambda: mask_iou_reference(a, b).double(),
        rivals={"pycocotools": with_pycocotools, "eager": eager},
        bytes=a.numel() + b.numel() + 4 * masks * others,
        operations=masks * others * a[0].numel() / 32,
    )


SMOKE = {"masks": 5, "others": 3, "size": (20, 30)}
WORKLOADS = [
    Workload("100 x 20, 800x1333", build, {"masks": 100, "others": 20, "size": (800, 1333)}, SMOKE),
    Workload("100 x 100, 200x336", build, {"masks": 100, "others": 100, "size": (200, 336)}, SMOKE),
]
