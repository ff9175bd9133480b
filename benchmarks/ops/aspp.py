"""Atrous spatial pyramid pooling of DeepLab v3, for inference."""

import torch
from fastvision import ops
from fastvision.ops.aspp import aspp_reference
from torch import Tensor

from .. import inputs
from ..workload import Case, Workload


def build(
    device: torch.device,
    channels: int,
    out: int,
    size: int,
    rates: tuple[int, ...],
    images: int = 1,
    channels_last: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Case:
    x = inputs.normal((images, channels, size, size), device, dtype, channels_last=channels_last)
    branches = 2 + len(rates)

    def draw(seed: int, *shape: int) -> Tensor:
        scale: float = (shape[1] * shape[2] * shape[3]) ** -0.5
        return inputs.normal(shape, device, dtype, seed=seed) * scale

    one, pooling, projection = (
        draw(1, out, channels, 1, 1),
        draw(2, out, channels, 1, 1),
        draw(3, out, branches * out, 1, 1),
    )
    atrous = [draw(4 + i, out, channels, 3, 3) for i in range(len(rates))]
    met = sum((size + 2 * max(size - rate, 0)) ** 2 for rate in rates)  # pairs of pixels and taps
    exact = (x.double(), one.double(), [w.double() for w in atrous], pooling.double(), projection.double())
    return Case(
        ours=lambda: ops.aspp(x, one, atrous, pooling, projection, rates),
        expected=lambda: aspp_reference(*exact, rates),
        rivals={"eager": lambda: aspp_reference(x, one, atrous, pooling, projection, rates)},
        bytes=x.element_size() * (x.numel() + x.numel() // channels * out + (1 + 9 * len(rates)) * one.numel()),
        operations=2 * images * channels * out * (size**2 + met),
    )


SMOKE = {"channels": 4, "out": 3, "size": 9, "rates": (2, 10), "images": 1}
SIZE = {"channels": 2048, "out": 256, "size": 33, "rates": (6, 12, 18)}
WORKLOADS = [
    Workload("2048x33x33, NCHW", build, SIZE, SMOKE, device="cpu"),
    Workload("2048x33x33, NHWC", build, {**SIZE, "channels_last": True}, SMOKE, device="cpu"),
    Workload("2048x14x14, NCHW", build, {**SIZE, "size": 14}, SMOKE, device="cpu"),
    Workload(
        "8x2048x33x33, bfloat16",
        build,
        {**SIZE, "images": 8, "channels_last": True, "dtype": torch.bfloat16},
        SMOKE,
        device="cuda",
    ),
]
