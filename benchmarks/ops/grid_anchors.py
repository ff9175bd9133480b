"""Anchors of a feature pyramid."""

import torch
from fastvision import ops
from fastvision.ops.grid_anchors import grid_anchors_reference

from .. import inputs
from ..rivals import torchvision
from ..workload import Case, Workload

RATIOS = (0.5, 1.0, 2.0)


def build(device: torch.device, levels: dict[int, tuple[int, int]]) -> Case:
    grids, strides = list(levels.values()), [2**k for k in levels]
    sizes, ratios = [[8.0 * s] for s in strides], [RATIOS] * len(levels)

    def with_torchvision() -> torch.Tensor:
        anchors = torchvision.models.detection.anchor_utils.AnchorGenerator(tuple(map(tuple, sizes)), tuple(ratios))
        anchors.set_cell_anchors(torch.float32, device)
        steps = [[torch.tensor(s, device=device)] * 2 for s in strides]
        return torch.cat(anchors.grid_anchors(grids, steps))

    count = sum(rows * columns for rows, columns in grids) * len(RATIOS)
    return Case(
        ours=lambda: ops.grid_anchors(grids, strides, sizes, ratios, device=device),
        expected=lambda: grid_anchors_reference(grids, strides, sizes, ratios, dtype=torch.float64),
        rivals={"torchvision": with_torchvision},
        bytes=16 * count,
    )


WORKLOADS = [Workload("268,569 of 5 levels", build, {"levels": inputs.RPN}, {"levels": {2: (5, 7), 3: (3, 4)}})]
