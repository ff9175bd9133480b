"""RoIAlign of rotated regions on one map, forward and backward."""

import torch
from fastvision import ops
from fastvision.ops.roi_align_rotated import roi_align_rotated_reference
from torch import Tensor

from .. import inputs
from ..gradients import backward as gradient_of
from ..workload import Case, Workload

BINS, SAMPLES = 7, 2


def build(
    device: torch.device,
    rois: int,
    channels: int,
    shape: tuple[int, int] = (50, 84),
    stride: int = 16,
    channels_last: bool = False,
    backward: bool = False,
) -> Case:
    x = inputs.normal((1, channels, *shape), device, channels_last=channels_last)
    regions = torch.cat([torch.zeros(rois, 1, device=device), inputs.rotated(rois, device)], 1)
    weight = inputs.normal((rois, channels, BINS, BINS), device, channels_last=channels_last, seed=9)

    def ours(x: Tensor) -> Tensor:
        return ops.roi_align_rotated(x, regions, BINS, 1 / stride, SAMPLES)

    def plain(x: Tensor) -> Tensor:
        return roi_align_rotated_reference(x, regions.to(x), (BINS, BINS), 1 / stride, SAMPLES)

    def expected() -> Tensor:
        few = x[:, :2].cpu().double()
        return gradient_of(plain, few, weight[:, :2].cpu().double())() if backward else plain(few)

    pooled = rois * channels * BINS**2
    return Case(
        ours=gradient_of(ours, x, weight) if backward else lambda: ours(x),
        expected=expected,
        part=lambda result: result[:, :2],
        rivals={"eager": gradient_of(plain, x, weight) if backward else lambda: plain(x)},
        bytes=4 * (x.numel() + pooled),
        operations=8.0 * pooled * SAMPLES**2,
    )


SIZE = {"rois": 300, "channels": 256}
SMOKE = {"rois": 5, "channels": 4, "shape": (10, 12), "stride": 80}
WORKLOADS = [
    Workload("300 x 7x7 of 256x50x84, NHWC", build, {**SIZE, "channels_last": True}, SMOKE),
    Workload("300 x 7x7 of 256x50x84, NCHW", build, SIZE, SMOKE),
    Workload("300 x 7x7 of 256x50x84, NHWC backward", build, {**SIZE, "channels_last": True, "backward": True}, SMOKE),
    Workload("300 x 7x7 of 256x50x84, NCHW backward", build, {**SIZE, "backward": True}, SMOKE),
]
