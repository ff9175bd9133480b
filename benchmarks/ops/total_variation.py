"""Total variation of a map, and its gradient."""

import torch
from fastvision import ops
from fastvision.ops.total_variation import total_variation_reference
from torch import Tensor

from .. import inputs
from ..gradients import with_gradients
from ..workload import Case, Workload


def differences(x: Tensor) -> Tensor:
    return (x[..., 1:, :] - x[..., :-1, :]).abs().sum() + (x[..., 1:] - x[..., :-1]).abs().sum()


def build(device: torch.device, shape: tuple[int, ...], channels_last: bool = False, backward: bool = False) -> Case:
    x = inputs.normal(shape, device, channels_last=channels_last)

    def reference(x: Tensor) -> Tensor:
        return total_variation_reference(x).sum()

    return Case(
        ours=with_gradients(ops.total_variation, x) if backward else lambda: ops.total_variation(x),
        expected=with_gradients(reference, x.double()) if backward else lambda: reference(x.double()),
        rivals={"eager": with_gradients(differences, x) if backward else lambda: differences(x)},
        bytes=(3 if backward else 1) * 4 * x.numel(),
        operations=(12 if backward else 6) * x.numel(),
    )


SMOKE = {"shape": (1, 3, 7, 9)}
RELU = {"shape": (1, 256, 128, 128)}
WORKLOADS = [
    Workload("256x128x128, NCHW", build, RELU, SMOKE),
    Workload("256x128x128, NCHW forward + backward", build, {**RELU, "backward": True}, SMOKE),
    Workload("256x128x128, NHWC", build, {**RELU, "channels_last": True}, SMOKE),
    Workload("256x128x128, NHWC forward + backward", build, {**RELU, "channels_last": True, "backward": True}, SMOKE),
    Workload("3x512x512 forward + backward", build, {"shape": (1, 3, 512, 512), "backward": True}, SMOKE),
]
