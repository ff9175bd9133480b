"""Maximum pooling as in SegNet's first encoder step and after ResNet's first convolution, and its gradient.

Unpooling is in max_unpool2d.
"""

import torch
from fastvision import ops
from torch import Tensor
from torch.nn import functional as F

from .. import inputs
from ..gradients import backward
from ..workload import Case, Workload

Window = tuple[int, int, int]  # kernel, stride, padding


def pool(device: torch.device, shape: tuple[int, ...], window: Window = (2, 2, 0), channels_last: bool = False) -> Case:
    x = inputs.normal(shape, device, channels_last=channels_last)
    return Case(
        ours=lambda: ops.max_pool2d(x, *window),
        expected=lambda: F.max_pool2d(x[:, :2].cpu().double(), *window),
        part=lambda pooled: pooled[:, :2],
        rivals={"eager": lambda: F.max_pool2d(x, *window)},
        bytes=4 * x.numel() * 5 / 4,
    )


def gradient(
    device: torch.device, shape: tuple[int, ...], window: Window = (2, 2, 0), channels_last: bool = False
) -> Case:
    x = inputs.normal(shape, device, channels_last=channels_last)
    weight = inputs.normal((*shape[:2], shape[2] // 2, shape[3] // 2), device, channels_last=channels_last, seed=1)

    def ours(x: Tensor) -> Tensor:
        pooled = ops.max_pool2d(x, *window)
        assert isinstance(pooled, Tensor)
        return pooled

    def theirs(x: Tensor) -> Tensor:
        return F.max_pool2d(x, *window)

    return Case(
        ours=backward(ours, x, weight),
        expected=backward(theirs, x[:, :2].cpu().double(), weight[:, :2].cpu().double()),
        part=lambda gradient: gradient[:, :2],
        rivals={"eager": backward(theirs, x, weight)},
        bytes=4 * x.numel() * 5 / 4 + x.numel() / 4,  # with a byte for the place of each maximum
    )


SMOKE: dict[str, object] = {"shape": (1, 3, 6, 8)}
SEGNET: dict[str, object] = {"shape": (4, 64, 360, 480)}
RESNET: dict[str, object] = {"shape": (1, 64, 400, 672), "window": (3, 2, 1)}
WORKLOADS = [
    Workload("4x64x360x480, NCHW", pool, SEGNET, SMOKE),
    Workload("4x64x360x480, NHWC", pool, {**SEGNET, "channels_last": True}, SMOKE),
    Workload("4x64x360x480, NCHW backward", gradient, SEGNET, SMOKE),
    Workload("4x64x360x480, NHWC backward", gradient, {**SEGNET, "channels_last": True}, SMOKE),
    Workload("3x3 stride 2 of 64x400x672, NCHW", pool, RESNET, SMOKE),
    Workload("3x3 stride 2 of 64x400x672, NHWC", pool, {**RESNET, "channels_last": True}, SMOKE),
    Workload("3x3 stride 2 of 64x400x672, NCHW backward", gradient, RESNET, SMOKE),
    Workload("3x3 stride 2 of 64x400x672, NHWC backward", gradient, {**RESNET, "channels_last": True}, SMOKE),
]
