"""Unpooling as in SegNet's last decoder step, and its gradient; the rival has int64 positions in any case."""

import torch
from fastvision import ops
from torch import Tensor
from torch.nn import functional as F

from .. import inputs
from ..gradients import backward as gradient_of
from ..workload import Case, Workload


def build(
    device: torch.device,
    shape: tuple[int, ...],
    compact: bool,
    channels_last: bool = False,
    backward: bool = False,
) -> Case:
    full = inputs.normal(shape, device, channels_last=channels_last)
    x, positions = F.max_pool2d(full, 2, return_indices=True)
    taps = ops.max_pool2d(full, 2, return_indices=True, compact_indices=True)[1] if compact else positions
    weight = inputs.normal(shape, device, channels_last=channels_last, seed=1)

    def ours(x: Tensor) -> Tensor:
        return ops.max_unpool2d(x, taps, 2)

    def theirs(x: Tensor) -> Tensor:
        return F.max_unpool2d(x, positions, [2, 2])

    def expected() -> Tensor:
        few, places = x[:, :2].cpu().double(), positions[:, :2].cpu()
        if not backward:
            return F.max_unpool2d(few, places, [2, 2])
        return gradient_of(lambda t: F.max_unpool2d(t, places, [2, 2]), few, weight[:, :2].cpu().double())()

    return Case(
        ours=gradient_of(ours, x, weight) if backward else lambda: ours(x),
        expected=expected,
        part=lambda result: result[:, :2],
        rivals={"eager": gradient_of(theirs, x, weight) if backward else lambda: theirs(x)},
        bytes=x.numel() * (4 + (1 if compact else 8)) + 4 * full.numel(),
    )


SMOKE = {"shape": (1, 3, 6, 8)}
SEGNET = {"shape": (4, 64, 360, 480)}
TAPS, POSITIONS, NHWC, BACKWARD = {"compact": True}, {"compact": False}, {"channels_last": True}, {"backward": True}
WORKLOADS = [
    Workload("4x64x360x480, NCHW, uint8", build, {**SEGNET, **TAPS}, SMOKE),
    Workload("4x64x360x480, NCHW, int64", build, {**SEGNET, **POSITIONS}, SMOKE),
    Workload("4x64x360x480, NHWC, uint8", build, {**SEGNET, **TAPS, **NHWC}, SMOKE),
    Workload("4x64x360x480, NHWC, int64", build, {**SEGNET, **POSITIONS, **NHWC}, SMOKE),
    Workload("4x64x360x480, NCHW, uint8 backward", build, {**SEGNET, **TAPS, **BACKWARD}, SMOKE),
    Workload("4x64x360x480, NCHW, int64 backward", build, {**SEGNET, **POSITIONS, **BACKWARD}, SMOKE),
    Workload("4x64x360x480, NHWC, uint8 backward", build, {**SEGNET, **TAPS, **NHWC, **BACKWARD}, SMOKE),
    Workload("4x64x360x480, NHWC, int64 backward", build, {**SEGNET, **POSITIONS, **NHWC, **BACKWARD}, SMOKE),
]
