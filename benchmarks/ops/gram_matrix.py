"""Gram matrices of VGG-16's relu1_1 to relu5_1 for an image of 512 x 512, of images and maps of few channels, their
gradient, and losses of style."""

import torch
from fastvision import ops
from fastvision.ops.gram_loss import gram_loss_reference
from fastvision.ops.gram_matrix import gram_matrix_reference
from torch import Tensor
from torch.nn import functional

from .. import inputs
from ..gradients import with_gradients
from ..workload import Case, Workload


def product(x: Tensor) -> Tensor:
    return torch.bmm(x.flatten(2), x.flatten(2).mT)


def build(
    device: torch.device,
    channels: int,
    size: int,
    images: int = 1,
    channels_last: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Case:
    x = inputs.normal((images, channels, size, size), device, dtype, channels_last=channels_last)
    return Case(
        ours=lambda: ops.gram_matrix(x),
        expected=lambda: gram_matrix_reference(x.double()),
        rivals={"eager": lambda: product(x)},
        bytes=x.element_size() * x.numel() + 4 * images * channels**2,
        operations=images * channels**2 * size**2,  # of the symmetric result one half
    )


def gradient(device: torch.device, channels: int, size: int) -> Case:
    x = inputs.normal((1, channels, size, size), device)
    weight = inputs.normal((1, channels, channels), device, seed=1)
    return Case(
        ours=with_gradients(ops.gram_matrix, x, weight=weight),
        expected=with_gradients(gram_matrix_reference, x.double(), weight=weight.double()),
        rivals={"eager": with_gradients(product, x, weight=weight)},
        bytes=4 * 3 * x.numel() + 2 * 4 * channels**2,
        operations=3 * channels**2 * size**2,
    )


def style(device: torch.device, channels: int, size: int) -> Case:
    x = inputs.normal((1, channels, size, size), device)
    target = inputs.normal((1, channels, channels), device, seed=1)
    return Case(
        ours=with_gradients(lambda x: ops.gram_loss(x, target, normalize=True), x),
        expected=with_gradients(lambda x: gram_loss_reference(x, target.double(), normalize=True).mean(), x.double()),
        rivals={"eager": with_gradients(lambda x: functional.mse_loss(product(x) / x.numel(), target), x)},
        bytes=4 * 3 * x.numel() + 2 * 4 * channels**2,
        operations=3 * channels**2 * size**2,
    )


SMOKE = {"channels": 8, "size": 6}
LAYERS = [(64, 512), (128, 256), (256, 128), (512, 64), (512, 32)]
FEW_CHANNELS = [(4, 16, 100), (1, 32, 256)]
BFLOAT16 = {"dtype": torch.bfloat16}
WORKLOADS = [
    *(Workload(f"{c}x{s}x{s}, NCHW", build, {"channels": c, "size": s}, SMOKE) for c, s in LAYERS),
    *(
        Workload(f"{c}x{s}x{s}, NHWC", build, {"channels": c, "size": s, "channels_last": True}, SMOKE)
        for c, s in LAYERS
    ),
    *(
        Workload(f"{c}x{s}x{s}, bfloat16", build, {"channels": c, "size": s, **BFLOAT16}, SMOKE, device="cuda")
        for c, s in LAYERS
    ),
    *(
        Workload(
            f"{n}x{c}x{s}x{s}, {'NHWC' if last else 'NCHW'}",
            build,
            {"images": n, "channels": c, "size": s, "channels_last": last},
            SMOKE,
        )
        for n, c, s in FEW_CHANNELS
        for last in (False, True)
    ),
    Workload("256x128x128, forward + backward", gradient, {"channels": 256, "size": 128}, SMOKE),
    *(Workload(f"{c}x{s}x{s}, style loss", style, {"channels": c, "size": s}, SMOKE) for c, s in LAYERS),
]
