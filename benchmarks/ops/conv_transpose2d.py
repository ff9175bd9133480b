"""Transposed convolutions: FCN's bilinear upsampling (FCN-32s, FCN-8s), and U-Net's with 2 x 2 and stride 2."""

import torch
from fastvision import ops
from torch import Tensor
from torch.nn import functional as F

from .. import inputs
from ..gradients import with_gradients
from ..workload import Case, Workload


def bilinear(device: torch.device, channels: int, size: int, stride: int, channels_last: bool = False) -> Case:
    x = inputs.normal((1, channels, size, size), device, channels_last=channels_last)
    kernel = ops.upsample_bilinear_kernel(channels, stride, device=device)
    return _case(x, kernel, stride, channels, backward=False)


def doubling(
    device: torch.device,
    channels: int,
    size: int,
    images: int = 1,
    backward: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Case:
    x = inputs.normal((images, channels, size, size), device, dtype)
    kernel = inputs.normal((channels, channels // 2, 2, 2), device, dtype, seed=1)
    return _case(x, kernel, 2, 1, backward)


def _case(x: Tensor, kernel: Tensor, stride: int, groups: int, backward: bool) -> Case:
    def ours(x: Tensor, kernel: Tensor) -> Tensor:
        return ops.conv_transpose2d(x, kernel, None, stride, groups=groups)

    def theirs(x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv_transpose2d(x, kernel, None, stride, groups=groups)

    shape = theirs(*(t.to("meta") for t in (x, kernel))).shape
    exact = x.double(), kernel.double()
    operations = 2 * x.numel() * kernel[0].numel()
    if not backward:
        return Case(
            ours=lambda: ours(x, kernel),
            expected=lambda: theirs(*exact),
            rivals={"eager": lambda: theirs(x, kernel)},
            bytes=x.element_size() * (x.numel() + kernel.numel() + shape.numel()),
            operations=operations,
        )
    weight = inputs.normal(shape, x.device, x.dtype, seed=2)
    return Case(
        ours=with_gradients(ours, x, kernel, weight=weight),
        expected=with_gradients(theirs, *exact, weight=weight.double()),
        rivals={"eager": with_gradients(theirs, x, kernel, weight=weight)},
        bytes=x.element_size() * 2 * (x.numel() + kernel.numel() + shape.numel()),
        operations=3 * operations,
    )


SMOKE = {"channels": 4, "size": 5}
FCN32, FCN8 = {"channels": 21, "size": 16, "stride": 32}, {"channels": 21, "size": 70, "stride": 8}
LAST_OF_UNET = {"channels": 64, "size": 256}
WORKLOADS = [
    Workload("bilinear 21x16x16, stride 32, NCHW", bilinear, FCN32, SMOKE),
    Workload("bilinear 21x16x16, stride 32, NHWC", bilinear, {**FCN32, "channels_last": True}, SMOKE),
    Workload("bilinear 21x70x70, stride 8, NCHW", bilinear, FCN8, SMOKE),
    Workload("bilinear 21x70x70, stride 8, NHWC", bilinear, {**FCN8, "channels_last": True}, SMOKE),
    *(
        Workload(f"2x2 {c}x{s}x{s} -> {c // 2}", doubling, {"channels": c, "size": s}, SMOKE, device="cpu")
        for c, s in ((256, 128), (128, 256), (64, 256))
    ),
    Workload(
        "2x2 64x256x256 -> 32, forward + backward", doubling, {**LAST_OF_UNET, "backward": True}, SMOKE, device="cpu"
    ),
    *(
        Workload(
            f"2x2 8x{c}x{s}x{s} -> {c // 2}, bfloat16",
            doubling,
            {"channels": c, "size": s, "images": 8, "dtype": torch.bfloat16},
            {**SMOKE, "images": 1},
            device="cuda",
        )
        for c, s in ((1024, 32), (512, 64), (256, 128), (128, 256))
    ),
]
