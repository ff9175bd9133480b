"""RetinaNet's focal loss over all anchors and classes, forward and backward of the sum."""

import torch
from fastvision import ops
from fastvision.ops.sigmoid_focal_loss import sigmoid_focal_loss_reference
from torch import Tensor

from .. import inputs
from ..gradients import with_gradients
from ..rivals import torchvision
from ..workload import Case, Workload


def build(
    device: torch.device,
    anchors: int,
    labels: bool,
    classes: int = 80,
    backward: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Case:
    """One anchor in a hundred is an object. ``labels``: numbers of classes, where rivals get dense targets."""
    x = inputs.normal((anchors, classes), device, dtype)
    generator = torch.Generator().manual_seed(1)
    found = torch.randint(classes, (anchors,), generator=generator)
    numbers = torch.where(torch.rand(anchors, generator=generator) < 0.01, found, classes).to(device)
    dense = torch.nn.functional.one_hot(numbers, classes + 1)[:, :classes].to(dtype)
    targets = numbers.int() if labels else dense

    def ours(x: Tensor) -> Tensor:
        return ops.sigmoid_focal_loss(x, targets, reduction="sum")

    def theirs(x: Tensor) -> Tensor:
        loss: Tensor = torchvision.ops.sigmoid_focal_loss(x, dense, reduction="sum")
        return loss

    def plain(x: Tensor) -> Tensor:
        return sigmoid_focal_loss_reference(x, dense.to(x.dtype), reduction="sum")

    size = x.element_size()
    return Case(
        ours=with_gradients(ours, x) if backward else lambda: ours(x),
        expected=with_gradients(plain, x.double()) if backward else lambda: plain(x.double()),
        rivals={
            "torchvision": with_gradients(theirs, x) if backward else lambda: theirs(x),
            "eager": with_gradients(plain, x) if backward else lambda: plain(x),
        },
        bytes=size * x.numel() * (2 if backward else 1) + (4 * anchors if labels else size * x.numel()),
        operations=(40 if backward else 25) * x.numel(),
    )


SMOKE = {"anchors": 50, "classes": 7}
FULL, QUARTER, BATCH = {"anchors": 201_600}, {"anchors": 50_400}, {"anchors": 8 * 201_600}
LABELS, DENSE, BFLOAT16 = {"labels": True}, {"labels": False}, {"dtype": torch.bfloat16}
WORKLOADS = [
    Workload("50400 x 80, labels, forward + backward", build, {**QUARTER, **LABELS}, SMOKE),
    Workload("50400 x 80, dense, forward + backward", build, {**QUARTER, **DENSE}, SMOKE),
    Workload("50400 x 80, dense", build, {**QUARTER, **DENSE, "backward": False}, SMOKE),
    Workload("201600 x 80, labels, forward + backward", build, {**FULL, **LABELS}, SMOKE),
    Workload("201600 x 80, dense, forward + backward", build, {**FULL, **DENSE}, SMOKE),
    Workload("8 x 201600 x 80, labels, forward + backward", build, {**BATCH, **LABELS}, SMOKE, device="cuda"),
    Workload("8 x 201600 x 80, labels, bfloat16, both", build, {**BATCH, **LABELS, **BFLOAT16}, SMOKE, device="cuda"),
]
