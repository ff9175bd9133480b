"""Mask R-CNN (He et al., ICCV 2017): Faster R-CNN with a branch that predicts a mask for each detection.

Parameter names are torchvision's, so its checkpoints load as they are.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import ops
from ...nn import Conv2d, ImageBatch, ImageBatcher
from ..classification.resnet import BasicBlock, ResNetBody
from .faster_rcnn import (
    BoxPredictor,
    FasterRCNN,
    PyramidBackbone,
    RegionProposalNetwork,
    RoIHeads,
    Targets,
    TwoMLPHead,
    first_indices,
    resnet50_fpn_backbone,
    take,
)
from .results import Detections, PaddedDetections


class MaskHead(nn.Sequential):
    """3 x 3 convolutions on a pooled region."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        blocks = []
        for k in range(depth):
            conv = Conv2d(channels if k == 0 else width, width, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            blocks.append(nn.Sequential(conv, nn.ReLU(inplace=True)))
        super().__init__(*blocks)


class MaskPredictor(nn.Module):
    """Twice the resolution by a transposed convolution, then mask logits for every class."""

    def __init__(self, channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.conv5_mask = nn.ConvTranspose2d(channels, width, 2, 2)
        self.mask_fcn_logits = nn.Conv2d(width, num_classes, 1)
        for module in (self.conv5_mask, self.mask_fcn_logits):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.mask_fcn_logits(F.relu(self.conv5_mask(x), inplace=True))  # type: ignore[no-any-return]


class MaskRoIHeads(RoIHeads):
    """The second stage with a mask branch (section 3).

    Args:
        mask_head, mask_predictor: Finished modules.
        mask_pool_size: Bins per side of a region pooled for the mask branch.
        others: As :class:`RoIHeads`.
    """

    def __init__(
        self,
        box_head: nn.Module,
        box_predictor: nn.Module,
        mask_head: nn.Module,
        mask_predictor: nn.Module,
        scales: Sequence[float],
        *,
        mask_pool_size: int = 14,
        pool_size: int = 7,
        max_detections: int = 100,
        samples: int = 512,
        canonical_scale: float = 224.0,
    ) -> None:
        super().__init__(
            box_head,
            box_predictor,
            scales,
            pool_size=pool_size,
            max_detections=max_detections,
            samples=samples,
            canonical_scale=canonical_scale,
        )
        self.mask_head, self.mask_predictor, self.mask_pool_size = mask_head, mask_predictor, mask_pool_size

    def mask_logits(self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """``(B, K, m, m)`` for the class of each box."""
        logits = self.mask_predictor(self.mask_head(self.pool(maps, boxes, self.mask_pool_size)))
        own = take(logits, labels.clamp(min=0).flatten()[:, None])[:, 0]
        return own.view(*labels.shape, *own.shape[1:])

    def forward(self, maps: Sequence[Tensor], proposals: Tensor, count: Tensor, batch: ImageBatch) -> PaddedDetections:
        found = super().forward(maps, proposals, count, batch)
        logits = self.mask_logits(maps, found.boxes, found.labels)
        return PaddedDetections(found.boxes, found.scores, found.labels, found.count, logits)

    def mask_loss(
        self,
        maps: Sequence[Tensor],
        boxes: Tensor,
        classes: Tensor,
        match: Tensor,
        used: Tensor,
        masks: Sequence[Tensor],
        scales: Tensor,
    ) -> Tensor:
        """Binary cross entropy on the masks of positives, of their own class only (section 3)."""
        most = int(self.samples * self.positive_fraction)
        index, positive = first_indices(used & (classes > 0), most)
        boxes, classes, match = take(boxes, index), take(classes, index), take(match, index)
        logits = self.mask_logits(maps, boxes, classes)
        size = logits.shape[-1]
        wanted = torch.stack(
            [_cropped(image_masks, b / scale, m, size) for image_masks, b, m, scale in zip(masks, boxes, match, scales)]
        )
        loss = F.binary_cross_entropy_with_logits(logits, wanted.to(logits), reduction="none").mean((2, 3))
        return (loss * positive).sum() / positive.sum().clamp(min=1)


def _cropped(masks: Tensor, boxes: Tensor, match: Tensor, size: int) -> Tensor:
    """Ground truth masks ``(n, H, W)`` of the matched objects, cropped to the boxes: ``(K, size, size)``."""
    if len(masks) == 0:
        return boxes.new_zeros(len(boxes), size, size)
    rois = torch.cat([match.to(boxes)[:, None], boxes], 1)
    return ops.roi_align(masks[:, None].to(boxes), rois, size)[:, 0]


class MaskRCNN(FasterRCNN):
    """The detector with masks. Arguments as :class:`FasterRCNN`, with :class:`MaskRoIHeads`."""

    roi_heads: MaskRoIHeads

    def detections(self, padded: PaddedDetections, boxes: Tensor, i: int, n: int, batch: ImageBatch) -> Detections:
        assert padded.mask_logits is not None
        probabilities = padded.mask_logits[i, :n].float().sigmoid()
        masks = ops.paste_masks_in_image(probabilities, boxes[i, :n], batch.originals[i])
        return Detections(boxes[i, :n], padded.scores[i, :n], padded.labels[i, :n], masks)

    def loss(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Mapping[str, Tensor]],
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """As :meth:`FasterRCNN.loss`; targets also have ``masks (n, H, W)``, and there is a ``loss_mask``."""
        batch = self.batcher(images)
        padded_targets = Targets(batch, targets)
        for i, (target, (height, width)) in enumerate(zip(targets, batch.originals)):
            expected = (len(target["boxes"]), height, width)
            if "masks" not in target or target["masks"].shape != expected:
                got = tuple(target["masks"].shape) if "masks" in target else "none"
                raise ValueError(f"targets: expected masks of shape {expected} in place {i}, got {got}")
        maps = self.backbone(batch.pixels)
        losses, proposals, count = self.rpn.loss(maps, batch, padded_targets, generator)
        heads = self.roi_heads
        sampled = heads.sample(proposals, count, padded_targets, generator)
        losses |= heads.box_loss(maps, *sampled, padded_targets)
        losses["loss_mask"] = heads.mask_loss(maps, *sampled, [t["masks"] for t in targets], batch.scales())
        return losses


def maskrcnn_resnet50_fpn(num_classes: int = 91) -> MaskRCNN:
    """Mask R-CNN with ResNet-50 and FPN, as torchvision's; ``num_classes`` counts the background."""
    backbone = resnet50_fpn_backbone()
    rpn = RegionProposalNetwork(256, [[32], [64], [128], [256], [512]])
    heads = MaskRoIHeads(
        TwoMLPHead(256 * 7 * 7, 1024),
        BoxPredictor(1024, num_classes),
        MaskHead(256, 256, 4),
        MaskPredictor(256, 256, num_classes),
        (1 / 4, 1 / 8, 1 / 16, 1 / 32),
    )
    return MaskRCNN(backbone, rpn, heads)


def mask_rcnn_tiny(num_classes: int, *, image_size: int = 80) -> MaskRCNN:
    """A small Mask R-CNN for images of about 100 pixels, quick to train on a CPU; the model of ``fastvision demo``."""
    backbone = PyramidBackbone(ResNetBody(BasicBlock, (1, 1), width=32), 64)
    rpn = RegionProposalNetwork(
        64,
        [[16], [24], [36]],
        (1.0, 2.0),
        pre_nms=100,
        post_nms=50,
        training_pre_nms=200,
        training_post_nms=100,
        samples=64,
    )
    heads = MaskRoIHeads(
        TwoMLPHead(64 * 5 * 5, 128),
        BoxPredictor(128, num_classes),
        MaskHead(64, 64, 2),
        MaskPredictor(64, 64, num_classes),
        (1 / 4, 1 / 8),
        pool_size=5,
        mask_pool_size=10,
        max_detections=20,
        samples=24,
        canonical_scale=112.0,
    )
    return MaskRCNN(backbone, rpn, heads, ImageBatcher(image_size, 2 * image_size, divisor=16))
