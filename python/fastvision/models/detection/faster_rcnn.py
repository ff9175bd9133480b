"""Faster R-CNN (Ren et al., NIPS 2015) with a feature pyramid (Lin et al., CVPR 2017).

Parameter names are torchvision's, so its checkpoints load as they are. Inference has fixed shapes from the images to
the padded detections: proposals and detections fill a fixed number of places and carry counts, so that it compiles
without a graph break and never waits for a GPU.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import ops
from ...nn import Conv2d, FeaturePyramidNetwork, FrozenBatchNorm2d, ImageBatch, ImageBatcher
from ...ops.multiclass_nms import stable_topk
from ..classification.resnet import Bottleneck, ResNetBody
from .results import Detections, PaddedDetections


class PyramidBackbone(nn.Module):
    """A convolutional body and the feature pyramid on all of its maps, which adds a coarser one."""

    def __init__(self, body: ResNetBody, out_channels: int) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(body.out_channels, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.fpn(self.body(x))  # type: ignore[no-any-return]


class Targets:
    """Ground truth of a batch, padded to the largest number of objects of an image."""

    def __init__(self, batch: ImageBatch, targets: Sequence[Mapping[str, Tensor]]) -> None:
        if len(targets) != len(batch.sizes):
            raise ValueError(f"targets: expected one per image ({len(batch.sizes)}), got {len(targets)}")
        for i, target in enumerate(targets):
            for name in ("boxes", "labels"):
                if name not in target:
                    raise ValueError(f"targets: expected key {name!r} in place {i}, got {sorted(target)}")
            boxes, labels = target["boxes"], target["labels"]
            if boxes.dim() != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
                shapes = f"{tuple(boxes.shape)} and {tuple(labels.shape)}"
                raise ValueError(f"targets: expected boxes (n, 4) and labels (n,) in place {i}, got {shapes}")
            if not (boxes[:, 2:] > boxes[:, :2]).all():
                raise ValueError(f"targets: expected boxes with positive width and height in place {i}")
        most, device = max(1, *(len(t["boxes"]) for t in targets)), batch.pixels.device
        self.boxes = torch.zeros(len(targets), most, 4, device=device)
        self.labels = torch.zeros(len(targets), most, dtype=torch.int64, device=device)
        self.valid = torch.zeros(len(targets), most, dtype=torch.bool, device=device)
        scales = batch.scales()
        for i, target in enumerate(targets):
            n = len(target["boxes"])
            self.boxes[i, :n] = target["boxes"].to(self.boxes) * scales[i]
            self.labels[i, :n] = target["labels"].to(device)
            self.valid[i, :n] = True


def take(values: Tensor, index: Tensor) -> Tensor:
    """``values[b, index[b]]`` for ``values (B, N, ...)`` and ``index (B, K)``."""
    rest = values.shape[2:]
    return values.gather(1, index.view(*index.shape, *[1] * len(rest)).expand(*index.shape, *rest))


def first_indices(mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Per row the indices of the first ``count`` true elements, and which of the ``count`` places hold one."""
    n = mask.shape[1]
    order = torch.where(mask, n - torch.arange(n, device=mask.device), 0)
    top = order.topk(min(count, n), dim=1)
    return top.indices, top.values > 0


def masked_mean(loss: Tensor, mask: Tensor) -> Tensor:
    return (loss * mask).sum() / mask.sum().clamp(min=1)


class RPNHead(nn.Module):
    """A 3 x 3 convolution, then objectness and box codes for every anchor of a cell."""

    def __init__(self, channels: int, anchors_per_cell: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Sequential(Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)))
        self.cls_logits = nn.Conv2d(channels, anchors_per_cell, 1)
        self.bbox_pred = nn.Conv2d(channels, 4 * anchors_per_cell, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level logits ``(B, n)`` and codes ``(B, n, 4)``, in the order row, column, anchor."""
        logits, codes = [], []
        for map in maps:
            hidden = self.conv(map)
            logits.append(self.cls_logits(hidden).permute(0, 2, 3, 1).flatten(1))
            codes.append(self.bbox_pred(hidden).permute(0, 2, 3, 1).reshape(len(map), -1, 4))
        return logits, codes


class RegionProposalNetwork(nn.Module):
    """Scores anchors and regresses boxes from them (section 3.1).

    Args:
        channels: Of the feature maps.
        anchor_sizes: For each level the sides of its square anchors.
        aspect_ratios: Height / width, the same for all levels.
        pre_nms, post_nms: Boxes per level before and per image after suppression, in inference.
        training_pre_nms, training_post_nms: Likewise in training.
        iou_threshold: Of the suppression.
        samples, positive_fraction: Anchors per image that the loss looks at.
        positive_iou, negative_iou: An anchor is positive from the one, negative below the other.
    """

    def __init__(
        self,
        channels: int,
        anchor_sizes: Sequence[Sequence[float]],
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        *,
        pre_nms: int = 1000,
        post_nms: int = 1000,
        training_pre_nms: int = 2000,
        training_post_nms: int = 2000,
        iou_threshold: float = 0.7,
        samples: int = 256,
        positive_fraction: float = 0.5,
        positive_iou: float = 0.7,
        negative_iou: float = 0.3,
    ) -> None:
        super().__init__()
        self.head = RPNHead(channels, len(anchor_sizes[0]) * len(aspect_ratios))
        self.anchor_sizes, self.aspect_ratios = anchor_sizes, aspect_ratios
        self.nms_sizes = {False: (pre_nms, post_nms), True: (training_pre_nms, training_post_nms)}
        self.iou_threshold, self.samples, self.positive_fraction = iou_threshold, samples, positive_fraction
        self.positive_iou, self.negative_iou = positive_iou, negative_iou

    def anchors(self, maps: Sequence[Tensor], batch: ImageBatch) -> Tensor:
        grids = [(map.shape[2], map.shape[3]) for map in maps]
        height, width = batch.pixels.shape[2:]
        # As torchvision has it: 58 and not 64 where the coarsest of a pyramid has 6 cells for 352 pixels.
        strides = [(height // rows, width // columns) for rows, columns in grids]
        ratios = [self.aspect_ratios] * len(grids)
        return ops.grid_anchors(grids, strides, self.anchor_sizes, ratios, device=batch.pixels.device)

    def forward(self, maps: Sequence[Tensor], batch: ImageBatch) -> tuple[Tensor, Tensor]:
        """Proposals ``(B, post_nms, 4)``, best first, and how many each image has."""
        logits, codes = self.head(maps)
        return self.proposals(self.anchors(maps, batch), logits, codes, batch, training=False)

    def proposals(
        self, anchors: Tensor, logits: Sequence[Tensor], codes: Sequence[Tensor], batch: ImageBatch, *, training: bool
    ) -> tuple[Tensor, Tensor]:
        pre_nms, post_nms = self.nms_sizes[training]
        boxes, scores, levels, start = [], [], [], 0
        for level, (level_logits, level_codes) in enumerate(zip(logits, codes)):
            n = level_logits.shape[1]
            best = stable_topk(level_logits, min(pre_nms, n))
            best_codes = take(level_codes.detach(), best).float()
            boxes.append(ops.decode_boxes(anchors[start : start + n][best], best_codes))
            scores.append(level_logits.detach().gather(1, best).float().sigmoid())
            levels.append(torch.full_like(best, level))
            start += n
        boxes_in = torch.minimum(torch.cat(boxes, 1).clamp(min=0), batch.limits()[:, None])
        large = ((boxes_in[..., 2:] - boxes_in[..., :2]) >= 1e-3).all(-1)
        keep, count = ops.nms_padded(
            boxes_in, torch.cat(scores, 1), self.iou_threshold, post_nms, idxs=torch.cat(levels, 1), valid=large
        )
        kept = take(boxes_in, keep.clamp(min=0))
        return torch.where((keep >= 0)[..., None], kept, 0), count

    def loss(
        self, maps: Sequence[Tensor], batch: ImageBatch, targets: Targets, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The two losses of section 3.1.2, and the proposals for the second stage."""
        logits, codes = self.head(maps)
        anchors = self.anchors(maps, batch)
        everywhere = anchors.expand(len(batch.sizes), -1, -1)
        match, _ = ops.match_boxes(
            targets.boxes,
            everywhere,
            self.positive_iou,
            self.negative_iou,
            allow_low_quality=True,
            valid=targets.valid,
        )
        labels = torch.where(match >= 0, 1, torch.where(match == -1, 0, -1))
        positive, negative = ops.sample_labels(labels, self.samples, self.positive_fraction, generator=generator)
        index, used = first_indices(positive | negative, self.samples)
        is_object = take(positive, index)
        predicted = take(torch.cat(logits, 1), index)
        objectness = F.binary_cross_entropy_with_logits(predicted, is_object.to(predicted), reduction="none")
        truth = take(targets.boxes, take(match, index).clamp(min=0))
        sampled = anchors[index]
        wanted = ops.encode_boxes(sampled, torch.where(is_object[..., None], truth, sampled))
        distance = F.smooth_l1_loss(take(torch.cat(codes, 1), index), wanted, beta=1 / 9, reduction="none").sum(-1)
        losses = {
            "loss_objectness": masked_mean(objectness, used),
            "loss_rpn_box_reg": (distance * is_object).sum() / used.sum().clamp(min=1),
        }
        boxes, count = self.proposals(anchors, logits, codes, batch, training=True)
        return losses, boxes, count


class TwoMLPHead(nn.Module):
    """Two fully connected layers on a pooled region."""

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.fc6, self.fc7 = nn.Linear(in_features, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)), inplace=True)), inplace=True)


class BoxPredictor(nn.Module):
    """Class logits, and a box code for every class."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score, self.bbox_pred = nn.Linear(in_features, num_classes), nn.Linear(in_features, 4 * num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x).unflatten(1, (-1, 4))


class RoIHeads(nn.Module):
    """The second stage: pools proposals, classifies them and refines their boxes.

    Args:
        box_head, box_predictor: Finished modules.
        scales: Of the pyramid levels that are pooled, finest first.
        pool_size: Bins per side of a pooled region.
        score_threshold, iou_threshold, max_detections: Of the detections.
        samples, positive_fraction: Proposals per image that the loss looks at.
        positive_iou: A proposal is positive from here, otherwise negative.
        canonical_scale: See :func:`fastvision.ops.multiscale_roi_align`.
    """

    CODE_WEIGHTS = (10.0, 10.0, 5.0, 5.0)

    def __init__(
        self,
        box_head: nn.Module,
        box_predictor: nn.Module,
        scales: Sequence[float],
        *,
        pool_size: int = 7,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        max_detections: int = 100,
        candidates: int = 4096,
        samples: int = 512,
        positive_fraction: float = 0.25,
        positive_iou: float = 0.5,
        canonical_scale: float = 224.0,
    ) -> None:
        super().__init__()
        self.box_head, self.box_predictor = box_head, box_predictor
        self.scales, self.pool_size, self.canonical_scale = tuple(scales), pool_size, canonical_scale
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold
        self.max_detections, self.candidates = max_detections, candidates
        self.samples, self.positive_fraction, self.positive_iou = samples, positive_fraction, positive_iou

    def pool(self, maps: Sequence[Tensor], boxes: Tensor, size: int) -> Tensor:
        """``(B, K, 4)`` boxes to ``(B * K, C, size, size)``."""
        images = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)
        rois = torch.cat([images[:, None, None].expand(-1, boxes.shape[1], 1), boxes], -1).flatten(0, 1)
        levels = maps[: len(self.scales)]
        return ops.multiscale_roi_align(levels, rois, size, self.scales, canonical_scale=self.canonical_scale)

    def forward(self, maps: Sequence[Tensor], proposals: Tensor, count: Tensor, batch: ImageBatch) -> PaddedDetections:
        b, p = proposals.shape[:2]
        logits, codes = self.box_predictor(self.box_head(self.pool(maps, proposals, self.pool_size)))
        scores = logits.float().softmax(-1).view(b, p, -1)[..., 1:]
        boxes = ops.decode_boxes(proposals, codes.float().view(b, p, -1, 4), self.CODE_WEIGHTS)[..., 1:, :]
        boxes = torch.minimum(boxes.clamp(min=0), batch.limits()[:, None, None])
        exists = torch.arange(p, device=count.device) < count[:, None]
        large = ((boxes[..., 2:] - boxes[..., :2]) >= 1e-2).all(-1)
        found = ops.multiclass_nms(
            boxes,
            torch.where(large & exists[..., None], scores, -1),
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            pre_topk=self.candidates,
            max_output=self.max_detections,
        )
        labels = torch.where(found.labels >= 0, found.labels + 1, -1)
        return PaddedDetections(found.boxes, found.scores, labels, found.count)

    def sample(
        self, proposals: Tensor, count: Tensor, targets: Targets, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of proposals and ground truth: boxes, their classes (0: background), ground truth indices, places used."""
        exists = torch.arange(proposals.shape[1], device=count.device) < count[:, None]
        boxes = torch.cat([proposals, targets.boxes], 1)
        exists = torch.cat([exists, targets.valid], 1)
        match, _ = ops.match_boxes(targets.boxes, boxes, self.positive_iou, self.positive_iou, valid=targets.valid)
        classes = torch.where(match >= 0, take(targets.labels, match.clamp(min=0)), 0)
        labels = torch.where(exists, classes, -1)
        positive, negative = ops.sample_labels(labels, self.samples, self.positive_fraction, generator=generator)
        index, used = first_indices(positive | negative, self.samples)
        return take(boxes, index), take(classes, index), take(match, index).clamp(min=0), used

    def loss(
        self,
        maps: Sequence[Tensor],
        proposals: Tensor,
        count: Tensor,
        targets: Targets,
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        boxes, classes, match, used = self.sample(proposals, count, targets, generator)
        return self.box_loss(maps, boxes, classes, match, used, targets)

    def box_loss(
        self, maps: Sequence[Tensor], boxes: Tensor, classes: Tensor, match: Tensor, used: Tensor, targets: Targets
    ) -> dict[str, Tensor]:
        logits, codes = self.box_predictor(self.box_head(self.pool(maps, boxes, self.pool_size)))
        classification = F.cross_entropy(logits, classes.flatten(), reduction="none")
        positive = used & (classes > 0)
        truth = torch.where(positive[..., None], take(targets.boxes, match), boxes)
        # An unused place may hold an empty box, whose code is not a number.
        wanted = torch.where(positive[..., None], ops.encode_boxes(boxes, truth, self.CODE_WEIGHTS), 0).flatten(0, 1)
        own = take(codes, classes.flatten()[:, None])[:, 0]
        distance = F.smooth_l1_loss(own, wanted, beta=1 / 9, reduction="none").sum(-1)
        return {
            "loss_classifier": masked_mean(classification, used.flatten()),
            "loss_box_reg": (distance * positive.flatten()).sum() / used.sum().clamp(min=1),
        }


class FasterRCNN(nn.Module):
    """The detector: a backbone, a region proposal network and the second stage, all finished modules.

    Args:
        backbone: Images to a list of maps, finest first.
        rpn: :class:`RegionProposalNetwork`.
        roi_heads: :class:`RoIHeads`.
        batcher: :class:`fastvision.nn.ImageBatcher`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rpn: RegionProposalNetwork,
        roi_heads: RoIHeads,
        batcher: ImageBatcher | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = backbone, rpn, roi_heads
        self.batcher = ImageBatcher() if batcher is None else batcher

    def padded(self, images: Sequence[Tensor]) -> tuple[PaddedDetections, ImageBatch]:
        """Detections with fixed shapes, in pixels of the batch. Compiles without a graph break."""
        batch = self.batcher(images)
        maps = self.backbone(batch.pixels)
        proposals, count = self.rpn(maps, batch)
        return self.roi_heads(maps, proposals, count, batch), batch

    def forward(self, images: Sequence[Tensor]) -> list[Detections]:
        """Detect objects.

        Args:
            images: ``(3, H, W)`` floats in [0, 1], of any sizes.

        Returns:
            One :class:`Detections` per image, in pixels of that image.
        """
        padded, batch = self.padded(images)
        boxes = padded.boxes / batch.scales()[:, None]
        return [self.detections(padded, boxes, i, n, batch) for i, n in enumerate(padded.count.tolist())]

    def detections(self, padded: PaddedDetections, boxes: Tensor, i: int, n: int, batch: ImageBatch) -> Detections:
        """Of image ``i``, which has ``n``."""
        return Detections(boxes[i, :n], padded.scores[i, :n], padded.labels[i, :n])

    def loss(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Mapping[str, Tensor]],
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The joint training losses (section 3.2); train on their sum.

        Args:
            images: As in :meth:`forward`.
            targets: Per image ``boxes (n, 4)`` xyxy in pixels and int64 ``labels (n,)`` from 1; n may be 0.
            generator: For the sampling of anchors and proposals.

        Returns:
            ``loss_objectness``, ``loss_rpn_box_reg``, ``loss_classifier`` and ``loss_box_reg``.
        """
        batch = self.batcher(images)
        padded_targets = Targets(batch, targets)
        maps = self.backbone(batch.pixels)
        losses, proposals, count = self.rpn.loss(maps, batch, padded_targets, generator)
        return losses | self.roi_heads.loss(maps, proposals, count, padded_targets, generator)


def resnet50_fpn_backbone() -> PyramidBackbone:
    return PyramidBackbone(ResNetBody(Bottleneck, (3, 4, 6, 3), norm=FrozenBatchNorm2d), 256)


def fasterrcnn_resnet50_fpn(num_classes: int = 91) -> FasterRCNN:
    """Faster R-CNN with ResNet-50 and FPN, as torchvision's; ``num_classes`` counts the background."""
    backbone = resnet50_fpn_backbone()
    rpn = RegionProposalNetwork(256, [[32], [64], [128], [256], [512]])
    heads = RoIHeads(TwoMLPHead(256 * 7 * 7, 1024), BoxPredictor(1024, num_classes), (1 / 4, 1 / 8, 1 / 16, 1 / 32))
    return FasterRCNN(backbone, rpn, heads)
