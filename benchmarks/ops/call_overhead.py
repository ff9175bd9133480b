"""What a call costs where there is next to nothing to compute: a few boxes, regions of a map of 16 pixels, 12 logits.

"taped" is the forward pass with a tensor that requires a gradient. Rivals do the same through their own Python.
"""

from collections.abc import Callable

import torch
from fastvision import ops
from fastvision.ops.box_iou import box_iou_reference
from fastvision.ops.nms import nms_reference
from fastvision.ops.roi_align import roi_align_reference
from fastvision.ops.sigmoid_focal_loss import sigmoid_focal_loss_reference
from torch import Tensor

from ..rivals import torchvision
from ..workload import Case, Workload

_BOXES = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [3.0, 3.0, 4.0, 4.0]]


def suppress(device: torch.device) -> Case:
    boxes, scores = torch.tensor(_BOXES, device=device), torch.tensor([0.5, 0.9, 0.7], device=device)
    return Case(
        ours=lambda: ops.nms(boxes, scores, 0.5),
        expected=lambda: nms_reference(boxes.double(), scores.double(), 0.5),
        rivals={"torchvision": lambda: torchvision.ops.nms(boxes, scores, 0.5)},
        bytes=20 * 3 + 8 * 2,
    )


def overlap(device: torch.device, taped: bool) -> Case:
    boxes = torch.tensor(_BOXES, device=device)
    a = boxes.clone().requires_grad_(taped)
    return Case(
        ours=lambda: ops.box_iou(a, boxes),
        expected=lambda: box_iou_reference(boxes.double(), boxes.double()),
        rivals={"torchvision": lambda: torchvision.ops.box_iou(a, boxes), "eager": lambda: box_iou_reference(a, boxes)},
        bytes=16 * 6 + 4 * 9,
    )


def crop(device: torch.device, taped: bool) -> Case:
    x = torch.arange(16.0, device=device).view(1, 1, 4, 4).requires_grad_(taped)
    region = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]], device=device)

    def of(function: Callable[..., Tensor]) -> Tensor:
        return function(x, region, 2, 1.0, 2, True)

    return Case(
        ours=lambda: of(ops.roi_align),
        expected=lambda: roi_align_reference(x.detach().double(), region.double(), (2, 2), 1.0, 2, True),
        rivals={"torchvision": lambda: of(torchvision.ops.roi_align)},
        bytes=4 * (16 + 5 + 4),
    )


def loss(device: torch.device, taped: bool) -> Case:
    targets = torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 3, device=device)
    x = torch.arange(-6.0, 6.0, device=device).view(3, 4).requires_grad_(taped)
    return Case(
        ours=lambda: ops.sigmoid_focal_loss(x, targets),
        expected=lambda: sigmoid_focal_loss_reference(x.detach().double(), targets.double()),
        rivals={
            "torchvision": lambda: torchvision.ops.sigmoid_focal_loss(x, targets),
            "eager": lambda: sigmoid_focal_loss_reference(x, targets),
        },
        bytes=4 * 12 * 3,
    )


_TAPED = (("", False), (", taped", True))
WORKLOADS = [
    Workload("nms", suppress, {}, {}),
    *[Workload(f"box_iou{name}", overlap, {"taped": taped}, {}) for name, taped in _TAPED],
    *[Workload(f"roi_align{name}", crop, {"taped": taped}, {}) for name, taped in _TAPED],
    *[Workload(f"sigmoid_focal_loss{name}", loss, {"taped": taped}, {}) for name, taped in _TAPED],
]
