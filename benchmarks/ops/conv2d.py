"""Atrous depthwise convolutions of DeepLab v3+ and dense 3 x 3 ones of detectors, and their gradients."""

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


def build_dense(
    device: torch.device,
    channels: int,
    size: tuple[int, int],
    dilation: int = 1,
    channels_last: bool = False,
    backward: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Case:
    x = inputs.normal((1, channels, *size), device, dtype, channels_last=channels_last)
    weight = inputs.normal((channels, channels, 3, 3), device, dtype, seed=1) / (9 * channels) ** 0.5
    bias = inputs.normal((channels,), device, dtype, seed=2)
    toward = inputs.normal(x.shape, device, dtype, channels_last=channels_last, seed=3)
    # torch is quicker where weights have the format of the input.
    same = weight.to(memory_format=torch.channels_last) if channels_last else weight

    def ours(x: Tensor, kernel: Tensor) -> Tensor:
        return ops.conv2d(x, kernel, bias, 1, dilation, dilation)

    def theirs(x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(x, kernel, bias.to(kernel), 1, dilation, dilation)

    exact = x.double(), weight.double()
    products = 4 if dtype == torch.float32 else 2.25  # for a result: 16 for 4 results, 36 for 16
    return Case(
        ours=with_gradients(ours, x, weight, weight=toward) if backward else lambda: ours(x, weight),
        expected=with_gradients(theirs, *exact, weight=toward.double()) if backward else lambda: theirs(*exact),
        rivals={"eager": with_gradients(theirs, x, same, weight=toward) if backward else lambda: theirs(x, same)},
        bytes=float(x.element_size() * ((3 if backward else 1) * weight.numel() + (4 if backward else 2) * x.numel())),
        operations=2.0 * products * x.numel() * channels * (3 if backward else 1),
    )


def build_atrous(
    device: torch.device, channels: int, out: int, size: int, dilation: int, channels_last: bool = False
) -> Case:
    """A branch of DeepLab's pyramid in training: the result and both gradients."""
    x = inputs.normal((1, channels, size, size), device, torch.float32, channels_last=channels_last)
    kernel = inputs.normal((out, channels, 3, 3), device, torch.float32, seed=1) / (9 * channels) ** 0.5
    toward = inputs.normal((1, out, size, size), device, torch.float32, channels_last=channels_last, seed=2)
    if channels_last:  # as in a model that is so as a whole
        kernel = kernel.to(memory_format=torch.channels_last)

    def ours(x: Tensor, kernel: Tensor) -> Tensor:
        return ops.conv2d(x, kernel, None, 1, dilation, dilation)

    def theirs(x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(x, kernel, None, 1, dilation, dilation)

    met = (size + 2 * max(size - dilation, 0)) ** 2  # pairs of pixels and taps
    return Case(
        ours=with_gradients(ours, x, kernel, weight=toward),
        expected=with_gradients(theirs, x.double(), kernel.double(), weight=toward.double()),
        rivals={"eager": with_gradients(theirs, x, kernel, weight=toward)},
        bytes=4.0 * (3 * kernel.numel() + 3 * x.numel() + 3 * toward.numel()),
        operations=6.0 * met * channels * out,
    )


SMOKE = {"channels": 4, "size": 9, "dilation": 2, "images": 1}
RATE_12, RATE_18 = {"channels": 2048, "dilation": 12}, {"channels": 1024, "dilation": 18}
NHWC, BACKWARD = {"channels_last": True}, {"backward": True}
EIGHT = {"images": 8, "dtype": torch.bfloat16, **NHWC}
FINE, MIDDLE, COARSE = ({"channels": 256, "size": size} for size in ((200, 336), (50, 84), (25, 42)))
DENSE_SMOKE = {"channels": 64, "size": (20, 17)}
ASPP = {"channels": 2048, "out": 256, "size": 33}
ASPP_SMOKE = {"channels": 64, "out": 16, "size": 15, "dilation": 9}
WORKLOADS = [
    Workload("dense 256x200x336, NCHW", build_dense, FINE, DENSE_SMOKE),
    Workload("dense 256x200x336, NHWC", build_dense, {**FINE, **NHWC}, DENSE_SMOKE),
    Workload("dense 256x50x84, NCHW", build_dense, MIDDLE, DENSE_SMOKE),
    Workload("dense 256x50x84, NHWC", build_dense, {**MIDDLE, **NHWC}, DENSE_SMOKE),
    Workload("dense 256x50x84, NCHW forward + backward", build_dense, {**MIDDLE, **BACKWARD}, DENSE_SMOKE),
    Workload("dense 256x50x84, NHWC forward + backward", build_dense, {**MIDDLE, **NHWC, **BACKWARD}, DENSE_SMOKE),
    Workload("dense 256x50x84, NHWC, bfloat16", build_dense, {**MIDDLE, **NHWC, "dtype": torch.bfloat16}, DENSE_SMOKE),
    Workload("dense 256x50x84, NHWC, float16", build_dense, {**MIDDLE, **NHWC, "dtype": torch.float16}, DENSE_SMOKE),
    Workload("dense 256x25x42, NHWC", build_dense, {**COARSE, **NHWC}, DENSE_SMOKE),
    Workload("dense 64x200x336, NHWC", build_dense, {**FINE, "channels": 64, **NHWC}, DENSE_SMOKE),
    Workload("dense 512x25x42, NHWC", build_dense, {**COARSE, "channels": 512, **NHWC}, DENSE_SMOKE),
    Workload(
        "dense 512x65x65, rate 2, NHWC",
        build_dense,
        {"channels": 512, "size": (65, 65), "dilation": 2, **NHWC},
        DENSE_SMOKE,
    ),
    Workload(
        "dense 2048x33x33 -> 256, rate 12, NCHW forward + backward", build_atrous, {**ASPP, "dilation": 12}, ASPP_SMOKE
    ),
    Workload(
        "dense 2048x33x33 -> 256, rate 18, NCHW forward + backward", build_atrous, {**ASPP, "dilation": 18}, ASPP_SMOKE
    ),
    Workload(
        "dense 2048x33x33 -> 256, rate 18, NHWC forward + backward",
        build_atrous,
        {**ASPP, "dilation": 18, **NHWC},
        ASPP_SMOKE,
    ),
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
