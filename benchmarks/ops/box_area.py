"""Areas of boxes: of the anchors of an image, and of a detector's results."""

import torch
from fastvision import ops
from torch import Tensor

from .. import inputs
from ..rivals import torchvision
from ..workload import Case, Workload


def build(device: torch.device, boxes: int) -> Case:
    b = torch.from_numpy(inputs.boxes(boxes)).to(device)

    def expected() -> Tensor:
        sides = b.double()[:, 2:] - b.double()[:, :2]
        return sides.prod(1)

    return Case(
        ours=lambda: ops.box_area(b),
        expected=expected,
        rivals={"torchvision": lambda: torchvision.ops.box_area(b)},
        bytes=20 * boxes,
        operations=3 * boxes,
    )


SMOKE = {"boxes": 300}
WORKLOADS = [
    Workload("268,569", build, {"boxes": 268_569}, SMOKE),
    Workload("1000", build, {"boxes": 1000}, SMOKE),
]
