"""Non-maximum suppression of one set of rotated boxes."""

import torch
from fastvision import ops
from fastvision.ops.box_iou_rotated import box_iou_rotated_reference
from torch import Tensor

from .. import inputs
from ..workload import Case, Workload


def greedy(boxes: Tensor, scores: Tensor, threshold: float) -> tuple[Tensor, int]:
    """Kept indices by the definition, a box at a time, and how many pairs that compares."""
    order = scores.argsort(descending=True, stable=True)
    kept, compared = [], 0
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        compared += len(order)
        overlaps = box_iou_rotated_reference(boxes[best, None], boxes[order])[0]
        order = order[overlaps <= threshold]
    return torch.stack(kept), compared


def build(device: torch.device, boxes: int, threshold: float = 0.5) -> Case:
    """About 25 boxes around each object, which have nearly its angle."""
    corners, scores = (torch.from_numpy(a) for a in inputs.clustered(boxes))
    sides = corners[:, 2:] - corners[:, :2]
    angles = (corners.sum(1, keepdim=True) / 40) % 180 - 90
    b, s = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, sides, angles], 1).to(device), scores.to(device)
    kept, compared = greedy(b.cpu().double(), scores.double(), threshold)
    return Case(
        ours=lambda: ops.nms_rotated(b, s, threshold),
        expected=lambda: kept,
        rivals={"eager": lambda: greedy(b, s, threshold)[0]},
        bytes=24 * boxes + 8 * len(kept),
        operations=20 * compared,  # most pairs are apart
    )


SMOKE = {"boxes": 60}
WORKLOADS = [
    Workload("1000 boxes", build, {"boxes": 1000}, SMOKE),
    Workload("5000 boxes", build, {"boxes": 5000}, SMOKE),
]
