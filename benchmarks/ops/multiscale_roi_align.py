"""RoIAlign over a feature pyramid, forward and backward: Faster R-CNN's 7 x 7 and Mask R-CNN's 14 x 14."""

from collections.abc import Callable
from typing import Any

import torch
from fastvision import ops
from fastvision.ops.multiscale_roi_align import multiscale_roi_align_reference
from torch import Tensor

from .. import inputs
from ..rivals import torchvision
from ..workload import Case, Workload

SAMPLES = 2


def _draw(
    device: torch.device, rois: int, channels: int, dtype: torch.dtype, channels_last: bool, smallest: int
) -> tuple[dict[int, tuple[int, int]], list[float], list[Tensor], Tensor]:
    shapes = {k: shape for k, shape in inputs.FPN.items() if k >= smallest}
    maps = [
        inputs.normal((1, channels, *shape), device, dtype, channels_last=channels_last, seed=k)
        for k, shape in shapes.items()
    ]
    return shapes, [2.0**-k for k in shapes], maps, inputs.regions(rois, device)


def _theirs(maps: list[Tensor], rois: Tensor, bins: int) -> Callable[[], Tensor]:
    """The scales are given, or torchvision works them out from the images of the first call."""

    def run() -> Any:
        names = [str(i) for i in range(len(maps))]
        pooler = torchvision.ops.MultiScaleRoIAlign(names, bins, SAMPLES)
        sizes = [(inputs.HEIGHT, inputs.WIDTH)]
        return pooler(dict(zip(names, maps)), [rois[:, 1:].to(maps[0].dtype)], sizes)

    return run


def forward(
    device: torch.device,
    rois: int,
    bins: int,
    channels: int = 256,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    smallest: int = 2,
) -> Case:
    shapes, scales, maps, regions = _draw(device, rois, channels, dtype, channels_last, smallest)
    pixels, points = inputs.touched_pixels(regions, shapes, bins, SAMPLES)
    few = [m[:, :2].cpu().double() for m in maps]
    size = maps[0].element_size()
    return Case(
        ours=lambda: ops.multiscale_roi_align(maps, regions, bins, scales, sampling_ratio=SAMPLES),
        expected=lambda: multiscale_roi_align_reference(
            few, regions.cpu().double(), (bins, bins), scales, sampling_ratio=SAMPLES
        ),
        part=lambda pooled: pooled[:, :2],
        rivals={"torchvision": _theirs(maps, regions, bins)},
        bytes=size * channels * (pixels + rois * bins**2),
        operations=8.0 * points * channels,
    )


def backward(
    device: torch.device,
    rois: int,
    bins: int,
    channels: int = 256,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    smallest: int = 2,
) -> Case:
    shapes, scales, maps, regions = _draw(device, rois, channels, dtype, channels_last, smallest)
    _, points = inputs.touched_pixels(regions, shapes, bins, SAMPLES)
    gradient = inputs.normal((rois, channels, bins, bins), device, dtype, channels_last=channels_last, seed=9)

    def graph(run: Callable[[list[Tensor]], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        leaves = [m.detach().requires_grad_() for m in maps]
        made: list[Tensor] = []  # at the first call: a rival may not be there

        def call() -> tuple[Tensor, ...]:
            made[:] = made or [run(leaves)]
            return torch.autograd.grad(made[0], leaves, gradient, retain_graph=True, materialize_grads=True)

        return call

    def expected() -> tuple[Tensor, ...]:
        few = [m[:, :2].cpu().double().requires_grad_() for m in maps]
        pooled = multiscale_roi_align_reference(
            few, regions.cpu().double(), (bins, bins), scales, sampling_ratio=SAMPLES
        )
        return torch.autograd.grad(pooled, few, gradient[:, :2].cpu().double(), materialize_grads=True)

    ours = graph(lambda leaves: ops.multiscale_roi_align(leaves, regions, bins, scales, sampling_ratio=SAMPLES))
    return Case(
        ours=ours,
        expected=expected,
        part=lambda gradients: tuple(g[:, :2] for g in gradients),
        rivals={"torchvision": graph(lambda leaves: _theirs(leaves, regions, bins)())},
        bytes=maps[0].element_size() * channels * (sum(h * w for h, w in shapes.values()) + rois * bins**2),
        operations=8.0 * points * channels,
        # On a map 334 pixels wide float32 knows where a sample is to 3e-5 of a pixel, and so its weights.
        limit=3e-5,
    )


SMOKE = {"rois": 5, "channels": 4, "smallest": 4}
BOX, MASK = {"rois": 1000, "bins": 7}, {"rois": 100, "bins": 14}
LAST = {"channels_last": True}
HALF = {**LAST, "dtype": torch.bfloat16}
WORKLOADS = [
    Workload("1000 x 7x7, NHWC", forward, {**BOX, **LAST}, SMOKE),
    Workload("1000 x 7x7, NCHW", forward, BOX, SMOKE),
    Workload("1000 x 7x7, NHWC bf16", forward, {**BOX, **HALF}, SMOKE),
    Workload("100 x 14x14, NHWC", forward, {**MASK, **LAST}, SMOKE),
    Workload("100 x 14x14, NCHW", forward, MASK, SMOKE),
    Workload("1000 x 7x7, NHWC backward", backward, {**BOX, **LAST}, SMOKE),
    Workload("1000 x 7x7, NCHW backward", backward, BOX, SMOKE),
    Workload("1000 x 7x7, NHWC bf16 backward", backward, {**BOX, **HALF}, SMOKE),
    Workload("100 x 14x14, NHWC backward", backward, {**MASK, **LAST}, SMOKE),
]
