"""RoIAlign on one map, and its gradient where regions are few."""

import torch
from fastvision import ops
from fastvision.ops.roi_align import roi_align_reference
from torch import Tensor

from .. import inputs
from ..gradients import backward
from ..rivals import torchvision
from ..workload import Case, Workload


def build(
    device: torch.device,
    rois: int,
    bins: int,
    samples: int,
    channels: int,
    shape: tuple[int, int] = (50, 84),
    stride: int = 16,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    mode: str = "avg",
) -> Case:
    x = inputs.normal((1, channels, *shape), device, dtype, channels_last=channels_last)
    regions = inputs.regions(rois, device)
    size = (regions[:, 3:] - regions[:, 1:3]) / (stride * bins)
    per_bin = size.ceil().prod(1).double() if samples <= 0 else torch.full((rois,), float(samples**2))
    points = float(per_bin.sum()) * bins**2

    def plain(x: Tensor) -> Tensor:
        return roi_align_reference(x, regions.to(x), (bins, bins), 1 / stride, samples, mode=mode)

    def theirs() -> Tensor:
        pooled: Tensor = torchvision.ops.roi_align(x, regions.to(dtype), bins, 1 / stride, samples)
        return pooled

    return Case(
        ours=lambda: ops.roi_align(x, regions, bins, 1 / stride, samples, mode=mode),
        expected=lambda: plain(x[:, :2].cpu().double()),
        part=lambda pooled: pooled[:, :2],
        rivals={"torchvision": theirs} if mode == "avg" else {"eager": lambda: plain(x)},
        bytes=x.element_size() * channels * (shape[0] * shape[1] + rois * bins**2),
        operations=8.0 * points * channels,
    )


def gradient(
    device: torch.device, rois: int, channels: int, shape: tuple[int, int], stride: int, channels_last: bool = False
) -> Case:
    x = inputs.normal((1, channels, *shape), device, channels_last=channels_last)
    regions = inputs.regions(rois, device)
    weight = inputs.normal((rois, channels, 14, 14), device, channels_last=channels_last, seed=1)
    given = (14, 1 / stride, 2)

    def expected() -> Tensor:
        few = x[:, :2].cpu().double()
        return backward(
            lambda t: roi_align_reference(t, regions.cpu().to(t), (14, 14), *given[1:]),
            few,
            weight[:, :2].cpu().double(),
        )()

    return Case(
        ours=backward(lambda t: ops.roi_align(t, regions, *given), x, weight),
        expected=expected,
        part=lambda result: result[:, :2],
        rivals={"torchvision": backward(lambda t: torchvision.ops.roi_align(t, regions, *given), x, weight)},
        bytes=4 * (x.numel() + weight.numel()),
        operations=8.0 * 4 * weight.numel(),
        limit=3e-5,  # of coordinates up to 336 in float32, whose fractions are the weights
    )


SMOKE = {"rois": 5, "channels": 4, "shape": (10, 12), "stride": 80}
C4 = {"rois": 300, "bins": 7, "channels": 1024}
MAXIMUM = {"rois": 300, "bins": 7, "channels": 256, "samples": 2, "mode": "max"}
FEW = {"rois": 16, "channels": 256, "shape": (200, 336), "stride": 4}
FEW_SMOKE = {"rois": 3, "channels": 4, "shape": (40, 60), "stride": 20}
WORKLOADS = [
    Workload("300 x 7x7 of 1024x50x84, NHWC", build, {**C4, "samples": 2, "channels_last": True}, SMOKE),
    Workload("300 x 7x7 of 1024x50x84, NCHW", build, {**C4, "samples": 2}, SMOKE),
    Workload("300 x 7x7, adaptive, NHWC", build, {**C4, "samples": 0, "channels_last": True}, SMOKE),
    Workload("300 x 7x7, adaptive, NCHW", build, {**C4, "samples": 0}, SMOKE),
    Workload("300 x 7x7 of 256x50x84, maximum, NHWC", build, {**MAXIMUM, "channels_last": True}, SMOKE),
    Workload("300 x 7x7 of 256x50x84, maximum, NCHW", build, MAXIMUM, SMOKE),
    Workload("16 x 14x14 of 256x200x336, NCHW backward", gradient, FEW, FEW_SMOKE),
    Workload("16 x 14x14 of 256x200x336, NHWC backward", gradient, {**FEW, "channels_last": True}, FEW_SMOKE),
]
