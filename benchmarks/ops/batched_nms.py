"""Non-maximum suppression within classes, for one image and for a batch."""

import numpy as np
import torch
from fastvision import ops

from .. import inputs
from ..rivals import torchvision
from ..workload import Case, Workload

THRESHOLD = 0.5


def one_image(device: torch.device, boxes: int, classes: int) -> Case:
    corners, scores = inputs.clustered(boxes)
    groups = np.random.default_rng(2).integers(0, classes, boxes)
    kept, pairs = inputs.greedy_nms(corners, scores, THRESHOLD, groups)
    b, s, g = (torch.from_numpy(a).to(device) for a in (corners, scores, groups))
    return Case(
        ours=lambda: ops.batched_nms(b, s, g, THRESHOLD),
        expected=lambda: kept,
        rivals={"torchvision": lambda: torchvision.ops.batched_nms(b, s, g, THRESHOLD)},
        bytes=28 * boxes + 8 * len(kept),
        operations=12 * pairs,
    )


def batch(device: torch.device, images: int, boxes: int, classes: int) -> Case:
    """A result of fixed shape for all images at once; the rival takes them one by one."""
    drawn = [inputs.clustered(boxes, seed) for seed in range(images)]
    groups = np.random.default_rng(2).integers(0, classes, (images, boxes))
    results = [inputs.greedy_nms(*one, THRESHOLD, g) for one, g in zip(drawn, groups)]
    b, s = (torch.from_numpy(np.stack(column)).to(device) for column in zip(*drawn))
    g = torch.from_numpy(groups).to(device)

    def one_by_one() -> list[torch.Tensor]:
        return [torchvision.ops.batched_nms(*one, THRESHOLD) for one in zip(b, s, g)]

    def without_padding(result: tuple[torch.Tensor, torch.Tensor]) -> list[torch.Tensor]:
        return [keep[:count] for keep, count in zip(*result)]

    return Case(
        ours=lambda: ops.nms_padded(b, s, THRESHOLD, boxes, idxs=g),
        expected=lambda: [kept for kept, _ in results],
        part=without_padding,
        rivals={"torchvision": one_by_one},
        views={"torchvision": list},
        bytes=images * boxes * 36,
        operations=12 * sum(pairs for _, pairs in results),
    )


SMOKE = {"boxes": 200}
WORKLOADS = [
    Workload("8 images x 80 classes x 5000", batch, {"images": 8, "boxes": 5000, "classes": 80}, SMOKE),
    Workload("80 classes x 5000", one_image, {"boxes": 5000, "classes": 80}, SMOKE),
    Workload("80 classes x 1000", one_image, {"boxes": 1000, "classes": 80}, SMOKE),
    Workload("5 levels x 4741 (proposals)", one_image, {"boxes": 4741, "classes": 5}, SMOKE),
]
