"""Focal loss of exclusive classes, for boxes and for the pixels of a segmentation, forward and backward of the mean."""

import torch
from fastvision import ops
from fastvision.ops.softmax_focal_loss import softmax_focal_loss_reference
from torch import Tensor

from .. import inputs
from ..gradients import with_gradients
from ..workload import Case, Workload


def build(
    device: torch.device, shape: tuple[int, ...], channels_last: bool = False, dtype: torch.dtype = torch.float32
) -> Case:
    x = inputs.normal(shape, device, dtype, channels_last=channels_last)
    labels = torch.randint(shape[1], (shape[0], *shape[2:]), generator=torch.Generator().manual_seed(1)).to(device)

    def ours(x: Tensor) -> Tensor:
        return ops.softmax_focal_loss(x, labels)

    def plain(x: Tensor) -> Tensor:
        return softmax_focal_loss_reference(x, labels)

    return Case(
        ours=with_gradients(ours, x),
        expected=with_gradients(plain, x.double()),
        rivals={"eager": with_gradients(plain, x)},
        bytes=3 * x.element_size() * x.numel() + 2 * 8 * labels.numel(),
        operations=30 * x.numel(),
    )


PIXELS, SMOKE_PIXELS = {"shape": (2, 21, 512, 512)}, {"shape": (2, 5, 6, 7)}
WORKLOADS = [
    Workload("50400 x 81", build, {"shape": (50_400, 81)}, {"shape": (50, 7)}),
    Workload("2x21x512x512, NCHW", build, PIXELS, SMOKE_PIXELS),
    Workload("2x21x512x512, NHWC", build, {**PIXELS, "channels_last": True}, SMOKE_PIXELS),
    Workload("8 x 201600 x 81", build, {"shape": (8 * 201_600, 81)}, {"shape": (50, 7)}, device="cuda"),
]
