"""The three losses of box pairs, forward and backward of the sum."""

import math

import torch
from fastvision import ops
from torch import Tensor

from .. import inputs
from ..gradients import with_gradients
from ..rivals import torchvision
from ..workload import Case, Workload

EPSILON = 1e-7
PENALTIES = ("generalized", "distance", "complete")


def reference(penalty: str, a: Tensor, b: Tensor) -> Tensor:
    """The sum of the losses in plain torch; a ratio has ``EPSILON`` below, the weight of the shapes no gradient."""
    sides_a, sides_b = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    shared = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    union = sides_a.prod(1) + sides_b.prod(1) - shared
    iou = shared / (union + EPSILON)
    if penalty == "generalized":
        return (1 - iou + (hull.prod(1) - union) / (hull.prod(1) + EPSILON)).sum()
    apart = ((a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2).square().sum(1)
    loss = 1 - iou + apart / (hull.square().sum(1) + EPSILON)
    if penalty == "complete":
        angle_a, angle_b = (torch.atan(sides[:, 0] / sides[:, 1]) for sides in (sides_a, sides_b))
        shape = 4 / math.pi**2 * (angle_b - angle_a).square()
        with torch.no_grad():
            weight = shape / (1 - iou + shape + EPSILON)
        loss = loss + weight * shape
    return loss.sum()


def build(device: torch.device, penalty: str, pairs: int) -> Case:
    """Each box beside one that is shifted by a tenth of its size; off the grid, so that no edges touch."""
    b = torch.from_numpy(inputs.boxes(pairs)).to(device)
    a = b + 0.1 * inputs.normal((pairs, 4), device) * (b[:, 2:] - b[:, :2]).repeat(1, 2)
    a = torch.cat([torch.minimum(a[:, :2], a[:, 2:]), torch.maximum(a[:, :2], a[:, 2:]) + 0.5], 1)
    ours = {
        "generalized": ops.generalized_box_iou_loss,
        "distance": ops.distance_box_iou_loss,
        "complete": ops.complete_box_iou_loss,
    }[penalty]

    def theirs(a: Tensor) -> Tensor:
        loss: Tensor = getattr(torchvision.ops, f"{penalty}_box_iou_loss")(a, b, reduction="sum")
        return loss

    return Case(
        ours=with_gradients(lambda a: ours(a, b, reduction="sum"), a),
        expected=with_gradients(lambda a: reference(penalty, a, b.double()), a.double()),
        rivals={
            "torchvision": with_gradients(theirs, a),
            "eager": with_gradients(lambda a: reference(penalty, a, b), a),
        },
        bytes=48 * pairs,
        operations={"generalized": 80, "distance": 90, "complete": 140}[penalty] * pairs,
    )


SMOKE = {"pairs": 50}
WORKLOADS = [
    *(Workload(f"{kind}, 10k pairs", build, {"penalty": kind, "pairs": 10_000}, SMOKE) for kind in PENALTIES),
    *(Workload(f"{kind}, 1M pairs", build, {"penalty": kind, "pairs": 1_000_000}, SMOKE) for kind in PENALTIES),
]
