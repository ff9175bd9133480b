"""Deformable convolutions (v2) of ResNet stages at the sizes of detection, and their gradients."""

import torch
from fastvision import ops
from fastvision.ops.deform_conv2d import deform_conv2d_reference
from torch import Tensor

from .. import inputs
from ..gradients import with_gradients
from ..rivals import torchvision
from ..workload import Case, Workload


def build(
    device: torch.device,
    channels: int,
    size: tuple[int, int],
    channels_last: bool = False,
    backward: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Case:
    x = inputs.normal((1, channels, *size), device, dtype, channels_last=channels_last)
    offset = inputs.normal((1, 18, *size), device, dtype, seed=1)
    kernel = inputs.normal((channels, channels, 3, 3), device, dtype, seed=2) / (3 * channels**0.5)
    mask = inputs.normal((1, 9, *size), device, dtype, seed=3).sigmoid()
    weight = inputs.normal(x.shape, device, dtype, channels_last=channels_last, seed=4)

    def ours(x: Tensor, offset: Tensor, kernel: Tensor, mask: Tensor) -> Tensor:
        return ops.deform_conv2d(x, offset, kernel, padding=1, mask=mask)

    def theirs(x: Tensor, offset: Tensor, kernel: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = torchvision.ops.deform_conv2d(x, offset, kernel, padding=1, mask=mask)
        return out

    def plain(x: Tensor, offset: Tensor, kernel: Tensor, mask: Tensor) -> Tensor:
        return deform_conv2d_reference(x, offset, kernel, padding=1, mask=mask)

    leaves = (x, offset, kernel, mask)
    exact = [t.double() for t in leaves]
    products = 3 if backward else 1
    return Case(
        ours=with_gradients(ours, *leaves, weight=weight) if backward else lambda: ours(*leaves),
        expected=with_gradients(plain, *exact, weight=weight.double()) if backward else lambda: plain(*exact),
        rivals={"torchvision": with_gradients(theirs, *leaves, weight=weight) if backward else lambda: theirs(*leaves)},
        bytes=x.element_size() * (2 * x.numel() + kernel.numel() + offset.numel() + mask.numel()) * products,
        operations=18 * channels * x.numel() * products,
    )


SMOKE = {"channels": 4, "size": (5, 6)}
C4, C5 = {"channels": 256, "size": (50, 84)}, {"channels": 512, "size": (25, 42)}
NHWC, BACKWARD = {"channels_last": True}, {"backward": True}
WORKLOADS = [
    *(
        Workload(f"{name}, {layout}{' forward + backward' if back else ''}", build, {**sizes, **order, **back}, SMOKE)
        for name, sizes in (("256x50x84", C4), ("512x25x42", C5))
        for back in ({}, BACKWARD)
        for layout, order in (("NCHW", {}), ("NHWC", NHWC))
    ),
    Workload("256x50x84, bfloat16", build, {**C4, **NHWC, "dtype": torch.bfloat16}, SMOKE, device="cuda"),
]
