"""Atrous depthwise convolutions of DeepLab v3+, and their gradients."""

import torch
from fastvision import ops
from torch import Tensor
from torch.nn import functional as F

from .. import inputs
from ..gradients import with_gradients
from ..workload import Case, Workload


def build(
    device: torch.device,
    channels: int,
    dilation: int,
    size: int = 33,
    images: int = 1,
    channels_last: bool = False,
    backward: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Case:
    x = inputs.normal((images, channels, size, size), device, dtype, channels_last=channels_last)
    kernel = inputs.normal((channels, 1, 3, 3), device, dtype, seed=1)
    weight = inputs.normal(x.shape, device, dtype, channels_last=channels_last, seed=2)

    def ours(x: Tensor, kernel: Tensor) -> Tensor:
        return ops.conv2d(x, kernel, None, 1, dilation, dilation, channels)

    def theirs(x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(x, kernel, None, 1, dilation, dilation, channels)

    exact = x.double(), kernel.double()
    gradients = 3 if backward else 1
    return Case(
        ours=with_gradients(ours, x, kernel, weight=weight) if backward else lambda: ours(x, kernel),
        expected=with_gradients(theirs, *exact, weight=weight.double()) if backward else lambda: theirs(*exact),
        rivals={"eager": with_gradients(theirs, x, kernel, weight=weight) if backward else lambda: theirs(x, kernel)},
        bytes=x.element_size() * (2 * kernel.numel() + (4 if backward else 2) * x.numel()),
        operations=18 * x.numel() * gradients,
    )


SMOKE = {"channels": 4, "size": 9, "dilation": 2, "images": 1}
RATE_12, RATE_18 = {"channels": 2048, "dilation": 12}, {"channels": 1024, "dilation": 18}
NHWC, BACKWARD = {"channels_last": True}, {"backward": True}
EIGHT = {"images": 8, "dtype": torch.bfloat16, **NHWC}
WORKLOADS = [
    Workload("2048x33x33, rate 12, NCHW", build, RATE_12, SMOKE),
    Workload("2048x33x33, rate 12, NHWC", build, {**RATE_12, **NHWC}, SMOKE),
    Workload("2048x33x33, rate 12, NCHW forward + backward", build, {**RATE_12, **BACKWARD}, SMOKE),
    Workload("2048x33x33, rate 12, NHWC forward + backward", build, {**RATE_12, **NHWC, **BACKWARD}, SMOKE),
    Workload("1024x33x33, rate 18, NCHW", build, RATE_18, SMOKE),
    Workload("1024x33x33, rate 18, NHWC", build, {**RATE_18, **NHWC}, SMOKE),
    Workload("1024x33x33, rate 18, NCHW forward + backward", build, {**RATE_18, **BACKWARD}, SMOKE),
    Workload("1024x33x33, rate 18, NHWC forward + backward", build, {**RATE_18, **NHWC, **BACKWARD}, SMOKE),
    Workload("8x2048x33x33, rate 12, bfloat16", build, {**RATE_12, **EIGHT}, SMOKE, device="cuda"),
    Workload("8x728x33x33, rate 2, bfloat16", build, {"channels": 728, "dilation": 2, **EIGHT}, SMOKE, device="cuda"),
    Workload(
        "8x304x129x129, rate 1, bfloat16",
        build,
        {"channels": 304, "dilation": 1, "size": 129, **EIGHT},
        SMOKE,
        device="cuda",
    ),
]
