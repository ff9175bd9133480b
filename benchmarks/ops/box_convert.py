"""Conversions between formats of boxes."""

import torch
from fastvision import ops

from .. import inputs
from ..rivals import torchvision
from ..workload import Case, Workload


def build(device: torch.device, boxes: int) -> Case:
    b = torch.from_numpy(inputs.boxes(boxes)).to(device)

    def expected() -> torch.Tensor:
        low, high = b.double().split(2, -1)
        return torch.cat([(low + high) / 2, high - low], -1)

    return Case(
        ours=lambda: ops.box_convert(b, "xyxy", "cxcywh"),
        expected=expected,
        rivals={"torchvision": lambda: torchvision.ops.box_convert(b, "xyxy", "cxcywh")},
        bytes=32 * boxes,
        operations=6 * boxes,
    )


WORKLOADS = [Workload("1M, corners to centres", build, {"boxes": 1_000_000}, {"boxes": 300})]
