"""RoI pooling as in Fast R-CNN on VGG16, and of a few regions of an image by itself."""

from collections.abc import Callable

import torch
from fastvision import ops
from fastvision.ops.roi_pool import roi_pool_reference
from torch import Tensor

from .. import inputs
from ..rivals import torchvision
from ..workload import Case, Workload

STRIDE = 21  # an image of 800 x 1333 on a map of 38 x 63


def build(
    device: torch.device,
    rois: int,
    channels: int,
    stride: int = STRIDE,
    bins: int = 7,
    channels_last: bool = False,
    taped: bool = False,
    backward: bool = False,
) -> Case:
    height, width = 800 // stride, 1333 // stride
    x = inputs.normal((1, channels, height, width), device, channels_last=channels_last)
    regions = inputs.regions(rois, device)
    gradient = inputs.normal((rois, channels, bins, bins), device, channels_last=channels_last, seed=9)
    some = slice(0, None, max(1, rois // 50))

    def graph(run: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        if not backward:
            return lambda: run(x.detach().requires_grad_(taped)).detach()
        leaf = x.detach().requires_grad_()
        made: list[Tensor] = []

        def call() -> Tensor:
            made[:] = made or [run(leaf)]
            return torch.autograd.grad(made[0], leaf, gradient, retain_graph=True)[0]

        return call

    def expected() -> Tensor:
        few = x[:, :2].cpu().double().requires_grad_(backward)
        if not backward:
            return roi_pool_reference(few, regions[some].cpu(), (bins, bins), 1 / stride)
        pooled = roi_pool_reference(few, regions.cpu(), (bins, bins), 1 / stride)
        return torch.autograd.grad(pooled, few, gradient[:, :2].cpu().double())[0]

    covered = min(height * width, int(ops.box_area(regions[:, 1:]).sum()) // stride**2)
    values, pooled = channels * (height * width if backward else covered), rois * channels * bins**2
    return Case(
        ours=graph(lambda t: ops.roi_pool(t, regions, bins, 1 / stride)),
        expected=expected,
        part=(lambda result: result[:, :2]) if backward else (lambda result: result[some, :2]),
        rivals={"torchvision": graph(lambda t: torchvision.ops.roi_pool(t, regions, bins, 1 / stride))},
        bytes=4 * (values + (2 if taped or backward else 1) * pooled),
    )


SIZE, SMOKE = {"rois": 2000, "channels": 512}, {"rois": 5, "channels": 4}
FEW = {"rois": 20, "channels": 3, "stride": 2, "bins": 14}
WORKLOADS = [
    Workload("2000 x 7x7, NCHW", build, SIZE, SMOKE),
    Workload("2000 x 7x7, NHWC", build, {**SIZE, "channels_last": True}, SMOKE),
    Workload("2000 x 7x7, NCHW taped", build, {**SIZE, "taped": True}, SMOKE),
    Workload("2000 x 7x7, NCHW backward", build, {**SIZE, "backward": True}, SMOKE),
    Workload("20 x 14x14 of an image, NCHW", build, FEW, SMOKE),
    Workload("20 x 14x14 of an image, NHWC", build, {**FEW, "channels_last": True}, SMOKE),
]
