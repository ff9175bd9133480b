"""Non-maximum suppression of one set of boxes."""

import numpy as np
import torch
from fastvision import ops

from .. import inputs
from ..rivals import torchvision
from ..workload import Case, Workload


def clustered(device: torch.device, boxes: int, threshold: float) -> Case:
    return _case(device, *inputs.clustered(boxes), threshold)


def apart(device: torch.device, boxes: int, threshold: float) -> Case:
    """The worst case: no box suppresses another."""
    corners, scores = inputs.clustered(boxes)
    columns = 100
    for i, box in enumerate(corners):
        box[:2] = 20 * (i % columns), 20 * (i // columns)
        box[2:] = box[:2] + 16
    return _case(device, corners, scores, threshold)


def _case(device: torch.device, corners: np.ndarray, scores: np.ndarray, threshold: float) -> Case:
    kept, pairs = inputs.greedy_nms(corners, scores, threshold)
    b, s = torch.from_numpy(corners).to(device), torch.from_numpy(scores).to(device)
    return Case(
        ours=lambda: ops.nms(b, s, threshold),
        expected=lambda: kept,
        rivals={"torchvision": lambda: torchvision.ops.nms(b, s, threshold)},
        bytes=20 * len(corners) + 8 * len(kept),
        operations=12 * pairs,
    )


SMOKE = {"boxes": 300}
WORKLOADS = [
    Workload("5000 boxes", clustered, {"boxes": 5000, "threshold": 0.5}, SMOKE),
    Workload("1000 boxes", clustered, {"boxes": 1000, "threshold": 0.5}, SMOKE),
    Workload("20k boxes", clustered, {"boxes": 20_000, "threshold": 0.5}, SMOKE),
    Workload("100k boxes", clustered, {"boxes": 100_000, "threshold": 0.5}, SMOKE),
    Workload("5000 boxes apart", apart, {"boxes": 5000, "threshold": 0.5}, SMOKE),
]
