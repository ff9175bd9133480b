"""Masks of boxes into the image."""

from typing import Any

import torch
from fastvision import ops
from fastvision.ops.paste_masks import paste_masks_reference

from .. import inputs
from ..rivals import torchvision
from ..workload import Case, Workload
from .rle import from_rows

SIDE = 28


def build(device: torch.device, masks: int, size: tuple[int, int], out: str) -> Case:
    height, width = size
    # Smooth probabilities, so that few pixels lie on the threshold.
    coarse = inputs.normal((masks, 1, 4, 4), torch.device("cpu"))
    probabilities = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").sigmoid().to(device)
    boxes = torch.from_numpy(inputs.boxes(masks, height=height, width=width)).to(device)
    some = slice(0, None, max(1, masks // 20))
    per_pixel = {"uint8": 1.0, "packed": 1 / 8, "rle": 0.0}[out]

    def with_torchvision() -> Any:
        pasted = torchvision.models.detection.roi_heads.paste_masks_in_image(probabilities, boxes, size)
        return pasted[:, 0] > 0.5

    def expected() -> torch.Tensor:
        return paste_masks_reference(probabilities[some, 0].cpu().double(), boxes[some].cpu().double(), size)

    def dense(result: Any) -> torch.Tensor:
        if out == "packed":
            bits = result[some, :, :, None] >> torch.arange(8, device=device, dtype=torch.uint8) & 1
            return bits.flatten(2)[:, :, :width].bool()  # type: ignore[no-any-return]
        return ops.rle_decode(result[some]) if out == "rle" else result[some].bool()

    def without_ties(mask: torch.Tensor) -> torch.Tensor:
        """Pixels that the float64 reference puts within rounding of the threshold may fall either way."""
        return mask.bool().cpu() & ((reference - 0.5).abs() > 1e-5)

    reference = expected()
    return Case(
        ours=lambda: ops.paste_masks_in_image(probabilities, boxes, size, out=out),
        expected=lambda: without_ties(reference > 0.5),
        part=lambda result: without_ties(dense(result)),
        rivals={"torchvision": (lambda: from_rows(with_torchvision())) if out == "rle" else with_torchvision},
        views={"torchvision": lambda r: without_ties(ops.rle_decode(r[some]) if out == "rle" else r[some])},
        bytes=4 * probabilities.numel() + per_pixel * masks * height * width,
        operations=0,
    )


FULL, SMOKE = {"masks": 100, "size": (inputs.HEIGHT, inputs.WIDTH)}, {"masks": 3, "size": (60, 50)}
WORKLOADS = [
    Workload("100 into 800x1333, uint8", build, {**FULL, "out": "uint8"}, SMOKE),
    Workload("100 into 800x1333, packed", build, {**FULL, "out": "packed"}, SMOKE),
    Workload("100 into 800x1333, run lengths", build, {**FULL, "out": "rle"}, SMOKE),
]
