"""The ground truth of every anchor."""

import torch
from fastvision import ops
from fastvision.ops.box_iou import box_iou_reference
from fastvision.ops.match_boxes import match_boxes_reference

from .. import inputs
from ..rivals import torchvision
from ..workload import Case, Workload

HIGH, LOW = 0.7, 0.3


def build(device: torch.device, boxes: int, truth: int) -> Case:
    candidates, gt = (torch.from_numpy(inputs.boxes(n, seed)).to(device) for seed, n in enumerate((boxes, truth)))
    # Shifted by fractions of their own, so that no two overlaps are equal but for rounding.
    candidates = candidates + inputs.normal((boxes, 4), device) * 0.1

    def with_torchvision() -> torch.Tensor:
        matcher = torchvision.models.detection._utils.Matcher(HIGH, LOW, allow_low_quality_matches=True)
        return matcher(torchvision.ops.box_iou(gt, candidates))  # type: ignore[no-any-return]

    def eager() -> tuple[torch.Tensor, torch.Tensor]:
        overlaps = box_iou_reference(gt, candidates)
        best, index = overlaps.max(0)
        match = torch.where(best >= HIGH, index, torch.where(best < LOW, -1, -2))
        most = overlaps.amax(1, keepdim=True)
        return torch.where(((overlaps == most) & (most > 0)).any(0), index, match), best

    return Case(
        ours=lambda: ops.match_boxes(gt, candidates, HIGH, LOW, allow_low_quality=True),
        expected=lambda: match_boxes_reference(
            gt.cpu().double(), candidates.cpu().double(), HIGH, LOW, allow_low_quality=True
        ),
        rivals={"torchvision": with_torchvision, "eager": eager},
        views={"torchvision": lambda match: (match, ops.match_boxes(gt, candidates, HIGH, LOW)[1])},
        bytes=16 * (boxes + truth) + 12 * boxes,
        operations=14 * boxes * truth,
    )


SMOKE = {"boxes": 300, "truth": 7}
WORKLOADS = [
    Workload("201,600 anchors x 50", build, {"boxes": 201_600, "truth": 50}, SMOKE),
    Workload("2000 proposals x 50", build, {"boxes": 2000, "truth": 50}, SMOKE),
    Workload("1M x 200", build, {"boxes": 1_000_000, "truth": 200}, SMOKE, device="cuda"),
]
