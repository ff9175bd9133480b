"""Atrous separable convolutions of DeepLab v3+ with what follows each stage, for inference."""

import torch
from fastvision import ops
from torch import Tensor
from torch.nn import functional as F

from .. import inputs
from ..workload import Case, Workload

EPS = 1e-5  # of the batch normalisation


def build(
    device: torch.device,
    channels: int,
    out: int,
    size: int,
    dilation: int,
    images: int = 1,
    channels_last: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Case:
    x = inputs.normal((images, channels, size, size), device, dtype, channels_last=channels_last)
    shapes = ((channels, 1, 3, 3), (out, channels, 1, 1), (channels,), (out,))
    depthwise, pointwise, bias, shift = (inputs.normal(s, device, dtype, seed=1 + i) for i, s in enumerate(shapes))
    scale = inputs.normal((channels,), device, dtype, seed=5)
    zeros, variance = torch.zeros_like(bias), torch.full_like(bias, 1 - EPS)
    folded = depthwise * scale[:, None, None, None]

    def theirs(x: Tensor, depthwise: Tensor, pointwise: Tensor, *vectors: Tensor) -> Tensor:
        """As eager models do it: a batch normalisation and a ReLU after the depthwise stage, a ReLU at the end."""
        middle = F.conv2d(x, depthwise, None, 1, dilation, dilation, channels)
        mean, variance, scale, bias, shift = vectors
        middle = F.relu(F.batch_norm(middle, mean, variance, scale, bias, eps=EPS))
        return F.relu(F.conv2d(middle, pointwise, shift))

    def ours() -> Tensor:
        return ops.separable_conv2d(
            x,
            folded,
            pointwise,
            bias,
            shift,
            padding=dilation,
            dilation=dilation,
            depthwise_activation="relu",
            activation="relu",
        )

    arguments = (x, depthwise, pointwise, zeros, variance, scale, bias, shift)
    exact = tuple(t.double() for t in arguments)
    return Case(
        ours=ours,
        expected=lambda: theirs(*exact),
        rivals={"eager": lambda: theirs(*arguments)},
        bytes=x.element_size() * (x.numel() + x.numel() // channels * out + pointwise.numel()),
        operations=2 * x.numel() * (9 + out),
    )


SMOKE = {"channels": 4, "out": 3, "size": 9, "dilation": 2, "images": 1}
SIZES = {
    "2048x33x33 -> 256, rate 12": {"channels": 2048, "out": 256, "size": 33, "dilation": 12},
    "304x129x129 -> 256, rate 1": {"channels": 304, "out": 256, "size": 129, "dilation": 1},
    "728x33x33 -> 728, rate 2": {"channels": 728, "out": 728, "size": 33, "dilation": 2},
}
EIGHT = {"images": 8, "dtype": torch.bfloat16, "channels_last": True}
WORKLOADS = [
    *(
        Workload(f"{name}, {layout}", build, {**size, "channels_last": layout == "NHWC"}, SMOKE, device="cpu")
        for name, size in SIZES.items()
        for layout in ("NCHW", "NHWC")
    ),
    *(Workload(f"8x{name}, bfloat16", build, {**size, **EIGHT}, SMOKE, device="cuda") for name, size in SIZES.items()),
]
