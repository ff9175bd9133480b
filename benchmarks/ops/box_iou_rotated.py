"""Overlaps of all pairs of rotated boxes, and their gradient."""

import torch
from fastvision import ops
from fastvision.ops.box_iou_rotated import box_iou_rotated_reference

from .. import inputs
from ..gradients import with_gradients
from ..workload import Case, Workload


def pairs(device: torch.device, boxes: int, others: int) -> Case:
    a, b = (inputs.rotated(n, device, seed) for seed, n in enumerate((boxes, others)))
    some = slice(0, None, max(1, boxes // 200))
    return Case(
        ours=lambda: ops.box_iou_rotated(a, b),
        expected=lambda: box_iou_rotated_reference(a[some].double(), b.double()),
        part=lambda overlaps: overlaps[some],
        rivals={"eager": lambda: box_iou_rotated_reference(a, b)},
        bytes=20 * (boxes + others) + 4 * boxes * others,
        operations=200 * boxes * others,  # of a pair that overlaps; most are apart, which costs about ten
    )


def aligned(device: torch.device, boxes: int) -> Case:
    """A loss over pairs of a box and one that is near."""
    a = inputs.rotated(boxes, device)
    b = a + inputs.normal((boxes, 5), device, seed=1)
    b[:, 2:4].clamp_(min=2)
    weight = inputs.normal((boxes,), device, seed=2)
    return Case(
        ours=with_gradients(lambda a: ops.box_iou_rotated(a, b, aligned=True), a, weight=weight),
        expected=with_gradients(
            lambda a: box_iou_rotated_reference(a, b.double(), aligned=True), a.double(), weight=weight.double()
        ),
        part=lambda results: results,
        rivals={"eager": with_gradients(lambda a: box_iou_rotated_reference(a, b, aligned=True), a, weight=weight)},
        bytes=68 * boxes,
        operations=600 * boxes,
    )


SMOKE = {"boxes": 30, "others": 20}
WORKLOADS = [
    Workload("2000 x 100", pairs, {"boxes": 2000, "others": 100}, SMOKE),
    Workload("1000 x 1000", pairs, {"boxes": 1000, "others": 1000}, SMOKE),
    Workload("10k pairs, forward + backward", aligned, {"boxes": 10_000}, {"boxes": 30}),
    Workload("100k x 100", pairs, {"boxes": 100_000, "others": 100}, SMOKE, device="cuda"),
]
