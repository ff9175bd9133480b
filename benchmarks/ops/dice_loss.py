"""Dice loss of a segmentation, forward and backward of the mean."""

import torch
from fastvision import ops
from fastvision.ops.dice_loss import dice_loss_reference
from torch import Tensor
from torch.nn import functional as F

from .. import inputs
from ..gradients import with_gradients
from ..workload import Case, Workload


def build(
    device: torch.device,
    shape: tuple[int, int, int, int],
    activation: str = "sigmoid",
    channels_last: bool = False,
    labels: bool = False,
) -> Case:
    x = inputs.normal(shape, device, channels_last=channels_last)
    numbers = torch.randint(shape[1], (shape[0], *shape[2:]), generator=torch.Generator().manual_seed(1)).to(device)
    dense = F.one_hot(numbers, shape[1]).movedim(-1, 1).to(x).contiguous()
    dense = dense.contiguous(memory_format=torch.channels_last) if channels_last else dense
    targets = numbers if labels else dense

    def ours(x: Tensor) -> Tensor:
        return ops.dice_loss(x, targets, activation=activation)

    def plain(x: Tensor) -> Tensor:
        return dice_loss_reference(x, dense.to(x.dtype), activation).mean()

    return Case(
        ours=with_gradients(ours, x),
        expected=with_gradients(plain, x.double()),
        rivals={"eager": with_gradients(plain, x)},
        bytes=3 * 4 * x.numel() + 2 * (8 * numbers.numel() if labels else 4 * x.numel()),
        operations=30 * x.numel(),
    )


SMOKE = {"shape": (2, 3, 5, 6)}
PIXELS, SOFTMAX = {"shape": (2, 21, 512, 512)}, {"activation": "softmax"}
WORKLOADS = [
    Workload("2x21x512x512, sigmoid, dense", build, PIXELS, SMOKE),
    Workload("2x21x512x512, softmax, labels", build, {**PIXELS, **SOFTMAX, "labels": True}, SMOKE),
    Workload(
        "2x21x512x512, softmax, labels, NHWC",
        build,
        {**PIXELS, **SOFTMAX, "labels": True, "channels_last": True},
        SMOKE,
    ),
    Workload("100x1x28x28, sigmoid, dense", build, {"shape": (100, 1, 28, 28)}, SMOKE),
]
