"""Detectors from images to detections, with random weights and as many detections as a trained one finds."""

import copy
import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from fastvision import models
from fastvision.nn import FrozenBatchNorm2d, fold_batch_norm
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .. import inputs
from ..rivals import torchvision
from ..workload import Case, Workload

# Random weights give 91 classes the same score; this lets about a hundred detections pass.
SCORE = 0.012


@torch.no_grad()
def calibrated(name: str, shortest: int) -> Any:
    """Features of ordinary size and boxes that overlap, which the initial weights do not give."""
    torch.manual_seed(0)
    model = getattr(models.detection, name)().eval()
    model.roi_heads.score_threshold = SCORE
    model.batcher.min_size = shortest

    def take_statistics(norm: Any, given: tuple[Tensor, ...]) -> None:
        norm.running_mean.copy_(given[0].mean((0, 2, 3)))
        norm.running_var.copy_(given[0].var((0, 2, 3)))

    hooks = [
        m.register_forward_pre_hook(take_statistics)
        for m in model.modules()
        if isinstance(m, (FrozenBatchNorm2d, nn.BatchNorm2d))
    ]
    scale = model.backbone(torch.randn(2, 3, 256, 256))[0].std()
    for hook in hooks:
        hook.remove()
    for block in model.backbone.fpn.layer_blocks:
        block[0].weight /= scale
    for part, factor in (("cls_logits", 10.0), ("rpn.head.bbox_pred", 5.0), ("cls_score.weight", 3.0)):
        for parameter_name, parameter in model.named_parameters():
            if part in parameter_name:
                parameter *= factor
    return model


def with_torchvision(name: str, weights: dict[str, Tensor], shortest: int) -> Any:
    theirs = getattr(torchvision.models.detection, name)(
        weights=None, weights_backbone=None, box_score_thresh=SCORE, min_size=shortest
    )
    theirs.load_state_dict(weights)
    return theirs.eval()


def unmatched(found: list[dict[str, Tensor]], expected: list[dict[str, Tensor]]) -> float:
    """The share of expected detections without one of the same class, box and score: rounding reorders a few."""
    missing = total = 0
    for one, other in zip(found, expected):
        near = torch.cdist(other["boxes"].double(), one["boxes"].double(), p=torch.inf) < 0.5
        same = other["labels"][:, None] == one["labels"][None]
        alike = (other["scores"][:, None].double() - one["scores"][None].double()).abs() < 1e-3
        missing += int((~(near & same & alike).any(1)).sum())
        total += len(other["labels"])
    return missing / max(total, 1)


def convolution_operations(input: Any, weight: Any, *others: Any, out_shape: Any) -> int:
    """Of direct summation, as torch counts its own convolutions. All arguments are shapes."""
    return int(2 * math.prod(out_shape) * math.prod(weight[1:]))


def unlike(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest relative error of a map, by norms."""
    return max(float((f.double() - e).norm() / e.norm()) for f, e in zip(found, expected, strict=True))


def build(
    device: torch.device, name: str, size: tuple[int, int], folded: bool = False, dtype: torch.dtype = torch.float32
) -> Case:
    """``folded``: ours has its normalisations folded into convolutions, and channels_last weights.

    ``dtype``: of our weights and images; torchvision's remain in float32, since its RoI align has no bfloat16 on the
    CPU. Random weights multiply the rounding errors of 16 bits until other detections come first, so that instead of
    these the feature maps are compared: they may not be further from float64 than torchvision's in the same type.
    """
    model = calibrated(name, min(size))
    weights = copy.deepcopy(model.state_dict())  # folding changes the model
    images = [torch.rand(3, *size, generator=torch.Generator().manual_seed(0))]
    if folded:
        model = fold_batch_norm(model).to(memory_format=torch.channels_last)
    formulas: Any = {torch.ops.fastvision.conv2d: convolution_operations}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        model(images)

    def as_dicts(detections: Any) -> list[dict[str, Tensor]]:
        return [{key: getattr(d, key).cpu() for key in ("boxes", "labels", "scores")} for d in detections]

    @functools.cache
    def reference() -> list[dict[str, Tensor]]:
        """torchvision's model in float64; ours takes float32 images."""
        if torchvision is None:
            raise ImportError("torchvision")
        exact = with_torchvision(name, weights, min(size)).double()
        with torch.no_grad():
            return exact([image.double() for image in images])  # type: ignore[no-any-return]

    def agrees(found: list[dict[str, Tensor]]) -> bool:
        return unmatched(found, reference()) <= 0.02 and len(found[0]["labels"]) > 20

    @torch.no_grad()
    def ours_agree(found: list[dict[str, Tensor]]) -> bool:
        if dtype == torch.float32:
            return agrees(found)
        if torchvision is None:
            raise ImportError("torchvision")
        x = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
        exact, rounded = (
            with_torchvision(name, weights, min(size)).to(t).backbone(x.to(t)).values() for t in (torch.float64, dtype)
        )
        features = [level.cpu() for level in model.backbone(x.to(device, dtype))]
        limit = 1.1 * unlike(list(rounded), list(exact))
        return unlike(features, list(exact)) <= limit < 1 and len(found[0]["labels"]) > 20

    model, moved = model.to(device, dtype), [image.to(device) for image in images]
    theirs = with_torchvision(name, weights, min(size)).to(device) if torchvision else None
    return Case(
        ours=torch.no_grad()(lambda: model([image.to(dtype) for image in moved])),
        expected=lambda: len(reference()) > 0,
        part=lambda detections: ours_agree(as_dicts(detections)),
        rivals={"torchvision": torch.no_grad()(lambda: theirs(moved))},  # type: ignore[misc]
        views={"torchvision": lambda found: agrees([{k: v.cpu() for k, v in one.items()} for one in found])},
        bytes=float(sum(p.numel() * p.element_size() for p in model.parameters())),
        operations=float(counter.get_total_flops()),  # of convolutions and matrix products
    )


SMOKE = {"size": (64, 96)}
FULL = {"size": (inputs.HEIGHT, inputs.WIDTH)}
WORKLOADS = [
    Workload(f"{title}{suffix}", build, {"name": name, **options, **FULL}, SMOKE)
    for title, name in (
        ("Mask R-CNN R50-FPN 800x1333", "maskrcnn_resnet50_fpn"),
        ("Faster R-CNN R50-FPN 800x1333", "fasterrcnn_resnet50_fpn"),
    )
    for suffix, options in (
        ("", {}),
        (", folded NHWC", {"folded": True}),
        (", folded NHWC bfloat16", {"folded": True, "dtype": torch.bfloat16}),
    )
]
