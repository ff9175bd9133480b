"""Position-sensitive pooling (R-FCN: 21 classes, and the boxes of all) and RoIAlign (Light-Head R-CNN: 10 channels).

Forward and backward.
"""

import torch
from fastvision import ops
from fastvision.ops.ps_roi_align import ps_roi_align_reference
from fastvision.ops.ps_roi_pool import ps_roi_pool_reference
from torch import Tensor

from .. import inputs
from ..gradients import backward as gradient_of
from ..rivals import torchvision
from ..workload import Case, Workload

BINS, SAMPLES = 7, 2


def build(
    device: torch.device,
    kind: str,
    rois: int,
    channels: int,
    shape: tuple[int, int] = (50, 84),
    stride: int = 16,
    channels_last: bool = False,
    backward: bool = False,
) -> Case:
    x = inputs.normal((1, channels * BINS**2, *shape), device, channels_last=channels_last)
    regions = inputs.regions(rois, device)
    weight = inputs.normal((rois, channels, BINS, BINS), device, channels_last=channels_last, seed=9)

    def ours(x: Tensor) -> Tensor:
        if kind == "align":
            return ops.ps_roi_align(x, regions, BINS, 1 / stride, SAMPLES)
        return ops.ps_roi_pool(x, regions, BINS, 1 / stride, legacy_border=True)

    def theirs(x: Tensor) -> Tensor:
        if kind == "align":
            aligned: Tensor = torchvision.ops.ps_roi_align(x, regions, BINS, 1 / stride, SAMPLES)
            return aligned
        pooled: Tensor = torchvision.ops.ps_roi_pool(x, regions, BINS, 1 / stride)
        return pooled

    def plain(x: Tensor) -> Tensor:
        if kind == "align":
            return ps_roi_align_reference(x, regions.to(x), (BINS, BINS), 1 / stride, SAMPLES)
        # Where bins end depends on the rounding of their sizes, in the type of the boxes.
        return ps_roi_pool_reference(x, regions.cpu(), (BINS, BINS), 1 / stride, legacy_border=True)

    def expected() -> Tensor:
        first = x[:, : BINS**2].cpu().double()
        return gradient_of(plain, first, weight[:, :1].cpu().double())() if backward else plain(first)

    def part(result: Tensor) -> Tensor:
        return result[:, : BINS**2] if backward else result[:, :1]

    return Case(
        ours=gradient_of(ours, x, weight) if backward else lambda: ours(x),
        expected=expected,
        part=part,
        rivals={"torchvision": gradient_of(theirs, x, weight) if backward else lambda: theirs(x)},
        bytes=4 * (x.numel() + weight.numel()),
        operations=8.0 * weight.numel() * SAMPLES**2 if kind == "align" else 0.0,
    )


R_FCN, LIGHT_HEAD = {"kind": "pool", "rois": 300, "channels": 21}, {"kind": "align", "rois": 1000, "channels": 10}
SMOKE = {"rois": 5, "channels": 2, "shape": (10, 12), "stride": 80}
BOXES = {**R_FCN, "channels": 4}  # of all classes together
NHWC, BACKWARD = {"channels_last": True}, {"backward": True}
WORKLOADS = [
    Workload("pool 300 x 7x7 of 1029x50x84, NCHW", build, R_FCN, SMOKE),
    Workload("pool 300 x 7x7 of 1029x50x84, NHWC", build, {**R_FCN, **NHWC}, SMOKE),
    Workload("pool 300 x 7x7 of 1029x50x84, NCHW backward", build, {**R_FCN, **BACKWARD}, SMOKE),
    Workload("pool 300 x 7x7 of 196x50x84, NCHW", build, BOXES, SMOKE),
    Workload("pool 300 x 7x7 of 196x50x84, NHWC", build, {**BOXES, **NHWC}, SMOKE),
    Workload("pool 300 x 7x7 of 196x50x84, NCHW backward", build, {**BOXES, **BACKWARD}, SMOKE),
    Workload("align 1000 x 7x7 of 490x50x84, NCHW", build, LIGHT_HEAD, SMOKE),
    Workload("align 1000 x 7x7 of 490x50x84, NHWC", build, {**LIGHT_HEAD, **NHWC}, SMOKE),
    Workload("align 20 x 7x7 of 490x50x84, NHWC", build, {**LIGHT_HEAD, **NHWC, "rois": 20}, SMOKE),
    Workload("align 1000 x 7x7 of 490x50x84, NCHW backward", build, {**LIGHT_HEAD, **BACKWARD}, SMOKE),
]
