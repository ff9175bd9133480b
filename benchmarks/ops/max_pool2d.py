"""Maximum pooling as in SegNet's first encoder step, and its gradient. Unpooling is in max_unpool2d."""

import torch
from fastvision import ops
from torch import Tensor
from torch.nn import functional as F

from .. import inputs
from ..gradients import backward
from ..workload import Case, Workload


def pool(device: torch.device, shape: tuple[int, ...], channels_last: bool = False) -> Case:
    x = inputs.normal(shape, device, channels_last=channels_last)
    return Case(
        ours=lambda: ops.max_pool2d(x, 2),
        expected=lambda: F.max_pool2d(x[:, :2].cpu().double(), 2),
        part=lambda pooled: pooled[:, :2],
        rivals={"eager": lambda: F.max_pool2d(x, 2)},
        bytes=4 * x.numel() * 5 / 4,
    )


def gradient(device: torch.device, shape: tuple[int, ...], channels_last: bool = False) -> Case:
    x = inputs.normal(shape, device, channels_last=channels_last)
    weight = inputs.normal((*shape[:2], shape[2] // 2, shape[3] // 2), device, channels_last=channels_last, seed=1)

    def ours(x: Tensor) -> Tensor:
        pooled = ops.max_pool2d(x, 2)
        assert isinstance(pooled, Tensor)
        return pooled

    def theirs(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2)

    return Case(
        ours=backward(ours, x, weight),
        expected=backward(theirs, x[:, :2].cpu().double(), weight[:, :2].cpu().double()),
        part=lambda gradient: gradient[:, :2],
        rivals={"eager": backward(theirs, x, weight)},
        bytes=4 * x.numel() * 5 / 4 + x.numel() / 4,  # with a byte for the place of each maximum
    )


SMOKE = {"shape": (1, 3, 6, 8)}
SEGNET = {"shape": (4, 64, 360, 480)}
WORKLOADS = [
    Workload("4x64x360x480, NCHW", pool, SEGNET, SMOKE),
    Workload("4x64x360x480, NHWC", pool, {**SEGNET, "channels_last": True}, SMOKE),
    Workload("4x64x360x480, NCHW backward", gradient, SEGNET, SMOKE),
    Workload("4x64x360x480, NHWC backward", gradient, {**SEGNET, "channels_last": True}, SMOKE),
]
