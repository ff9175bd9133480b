"""Overlaps of all pairs of boxes, and their gradient."""

from collections.abc import Callable

import torch
from fastvision import ops
from fastvision.ops.box_iou import box_iou_reference, complete_box_iou_reference
from torch import Tensor

from .. import inputs
from ..rivals import torchvision
from ..workload import Case, Workload


def pairs(device: torch.device, boxes: int, others: int) -> Case:
    a, b = (torch.from_numpy(inputs.boxes(n, seed)).to(device) for seed, n in enumerate((boxes, others)))
    some = slice(0, None, max(1, boxes // 10_000))
    return Case(
        ours=lambda: ops.box_iou(a, b),
        expected=lambda: box_iou_reference(a[some].double(), b.double()),
        part=lambda overlaps: overlaps[some],
        rivals={"torchvision": lambda: torchvision.ops.box_iou(a, b), "eager": lambda: box_iou_reference(a, b)},
        bytes=16 * (boxes + others) + 4 * boxes * others,
        operations=12 * boxes * others,
    )


def complete(device: torch.device, boxes: int, others: int) -> Case:
    a, b = (torch.from_numpy(inputs.boxes(n, seed)).to(device) for seed, n in enumerate((boxes, others)))
    return Case(
        ours=lambda: ops.complete_box_iou(a, b),
        expected=lambda: complete_box_iou_reference(a.double(), b.double()),
        rivals={
            "torchvision": lambda: torchvision.ops.complete_box_iou(a, b),
            "eager": lambda: complete_box_iou_reference(a, b),
        },
        bytes=16 * (boxes + others) + 4 * boxes * others,
        operations=40 * boxes * others,
    )


def gradient(device: torch.device, boxes: int, others: int) -> Case:
    a, b = (torch.from_numpy(inputs.boxes(n, seed)).to(device) for seed, n in enumerate((boxes, others)))
    # Off the grid: where edges of two boxes touch there is no gradient, but a choice of one.
    a = (a + 0.1 * inputs.normal((boxes, 4), device)).requires_grad_()
    weight = inputs.normal((boxes, others), device)

    def of(function: Callable[..., Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.autograd.grad(function(a.to(dtype), b.to(dtype)), a, weight.to(dtype))[0]

    return Case(
        ours=lambda: of(ops.box_iou),
        expected=lambda: of(box_iou_reference, torch.float64),
        rivals={"torchvision": lambda: of(torchvision.ops.box_iou), "eager": lambda: of(box_iou_reference)},
        bytes=32 * (boxes + others) + 12 * boxes * others,
        operations=40 * boxes * others,
    )


SMOKE = {"boxes": 300, "others": 20}
WORKLOADS = [
    Workload("100k x 200", pairs, {"boxes": 100_000, "others": 200}, SMOKE, device="cpu"),
    Workload("1M x 200", pairs, {"boxes": 1_000_000, "others": 200}, SMOKE, device="cuda"),
    Workload("1000 x 1000", pairs, {"boxes": 1000, "others": 1000}, SMOKE),
    Workload("complete, 5000 x 200", complete, {"boxes": 5000, "others": 200}, SMOKE),
    Workload("10k x 200, forward + backward", gradient, {"boxes": 10_000, "others": 200}, SMOKE),
]
