"""Our detectors against torchvision's, with the same random weights."""

import copy

import pytest
import torch
from fastvision import nn, ops
from fastvision.models import classification, detection
from fastvision.models.classification.resnet import BasicBlock, ResNetBody
from fastvision.models.detection import faster_rcnn, mask_rcnn

CLASSES = 11
SIZES = [[12], [24], [36], [48], [96]]
SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


def calibrated(torchvision, model, size):
    """Features of ordinary size and predictions that differ, from random weights."""
    torch.manual_seed(0)
    for key, value in model.state_dict().items():
        fan = value[0].numel() if value.dim() > 1 else 1
        value.copy_(torch.ones_like(value) if "running_var" in key else torch.randn(value.shape) / fan**0.5)

    def take_statistics(norm, inputs):
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(inputs[0].var((0, 2, 3)))

    norms = [m for m in model.modules() if isinstance(m, torchvision.ops.FrozenBatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(take_statistics) for norm in norms]
    with torch.no_grad():
        scale = model.backbone(torch.randn(2, 3, size, size))["0"].std()
        for block in model.backbone.fpn.layer_blocks:
            block[0].weight /= scale
        for name, factor in (("bbox_pred", 0.2), ("cls_score", 2.0)):
            for parameter_name, parameter in model.named_parameters():
                if name in parameter_name:
                    parameter *= factor
    for hook in hooks:
        hook.remove()
    return model.eval()


def small(torchvision, kind):
    """The same small detector of torchvision and of ours."""
    theirs = torchvision.models.detection
    norm = torchvision.ops.FrozenBatchNorm2d
    resnet = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], norm_layer=norm)
    layers = {f"layer{k + 1}": str(k) for k in range(4)}
    backbone = theirs.backbone_utils.BackboneWithFPN(resnet, layers, [64, 128, 256, 512], 32)
    anchors = theirs.anchor_utils.AnchorGenerator(tuple(map(tuple, SIZES)), ((0.5, 1.0, 2.0),) * 5)
    parts = {
        "rpn_anchor_generator": anchors,
        "box_head": theirs.faster_rcnn.TwoMLPHead(32 * 49, 64),
        "box_predictor": theirs.faster_rcnn.FastRCNNPredictor(64, CLASSES),
        "min_size": 96,
        "rpn_pre_nms_top_n_test": 200,
        "rpn_post_nms_top_n_test": 100,
    }
    if kind == "MaskRCNN":
        parts["mask_head"] = theirs.mask_rcnn.MaskRCNNHeads(32, [32, 32], 1)
        parts["mask_predictor"] = theirs.mask_rcnn.MaskRCNNPredictor(32, 32, CLASSES)
    model = calibrated(torchvision, getattr(theirs, kind)(backbone, **parts), 96)

    body = ResNetBody(BasicBlock, (1, 1, 1, 1), norm=nn.FrozenBatchNorm2d)
    rpn = detection.faster_rcnn.RegionProposalNetwork(32, SIZES, pre_nms=200, post_nms=100)
    box = faster_rcnn.TwoMLPHead(32 * 49, 64), faster_rcnn.BoxPredictor(64, CLASSES)
    if kind == "MaskRCNN":
        mask = mask_rcnn.MaskHead(32, 32, 2), mask_rcnn.MaskPredictor(32, 32, CLASSES)
        heads = mask_rcnn.MaskRoIHeads(*box, *mask, SCALES)
    else:
        heads = faster_rcnn.RoIHeads(*box, SCALES)
    ours = getattr(detection, kind)(faster_rcnn.PyramidBackbone(body, 32), rpn, heads, nn.ImageBatcher(96))
    return ours, model


def full(torchvision):
    """Mask R-CNN with ResNet-50, as the builders make it but for the number of boxes."""
    theirs = torchvision.models.detection
    with torch.device("meta"):
        backbone = theirs.backbone_utils.resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=torchvision.ops.FrozenBatchNorm2d, trainable_layers=5
        )
        limits = {"rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 100, "box_detections_per_img": 20}
        model = theirs.MaskRCNN(backbone, CLASSES, min_size=96, **limits)
        ours = detection.maskrcnn_resnet50_fpn(CLASSES)
    ours.batcher.min_size, ours.rpn.nms_sizes[False], ours.roi_heads.max_detections = 96, (200, 100), 20
    return ours.to_empty(device="cpu"), calibrated(torchvision, model.to_empty(device="cpu"), 96)


def pair_of(torchvision, kind):
    ours, theirs = full(torchvision) if kind == "full" else small(torchvision, kind)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours.eval(), theirs


@pytest.mark.parametrize("kind", ["FasterRCNN", "MaskRCNN", "full"])
@torch.no_grad()
def test_same_detections(torchvision, kind):
    ours, theirs = pair_of(torchvision, kind)
    torch.manual_seed(1)
    images = [torch.rand(3, 90, 120), torch.rand(3, 125, 75)]
    logits = []
    hooks = []
    if hasattr(theirs.roi_heads, "mask_predictor") and theirs.roi_heads.mask_predictor is not None:
        hooks = [theirs.roi_heads.mask_predictor.register_forward_hook(lambda m, i, o: logits.append(o))]
    expected = theirs(images)
    for hook in hooks:
        hook.remove()
    exact = copy.deepcopy(theirs).double()([image.double() for image in images])
    found, (padded, _) = ours(images), ours.padded(images)
    # In ResNet-50 torchvision's own coordinates may be further from float64 than 1e-4, by the processor; Winograd's
    # rounding errors are up to twice those of its convolutions.
    right_boxes = torch.cat([right["boxes"] for right in exact])
    ours_off = (torch.cat([result.boxes for result in found]) - right_boxes).abs().max()
    theirs_off = (torch.cat([want["boxes"] for want in expected]) - right_boxes).abs().max()
    assert ours_off <= max(1e-4, 2 * theirs_off) <= 1e-3
    start = 0
    for i, (result, want, right) in enumerate(zip(found, expected, exact)):
        n = len(want["boxes"])
        assert n >= 20, "too few detections to compare"
        assert len(result) == n
        assert torch.equal(result.labels, want["labels"])
        assert torch.equal(want["labels"], right["labels"])
        if kind != "full":  # coordinates of some hundred pixels: 1e-4 is a few units in the last place
            torch.testing.assert_close(result.boxes, want["boxes"], rtol=1e-6, atol=1e-4)
        torch.testing.assert_close(result.scores, want["scores"], rtol=0, atol=1e-4)
        if logits:
            own = logits[0][torch.arange(start, start + n), want["labels"]]
            torch.testing.assert_close(padded.mask_logits[i, :n], own, rtol=1e-4, atol=1e-4)
            unequal = (result.masks != (want["masks"][:, 0] > 0.5)).float().mean()
            assert unequal < 1e-5
            start += n


@pytest.mark.parametrize("kind", ["FasterRCNN", "MaskRCNN"])
def test_same_losses(torchvision, kind, monkeypatch):
    """With the samples of each image chosen alike: every anchor and proposal, in the order that it has."""
    ours, theirs = pair_of(torchvision, kind)
    g = torch.Generator().manual_seed(2)
    images = list(torch.rand(2, 3, 96, 96, generator=g))
    corner = torch.rand(2, 3, 2, generator=g) * 40
    boxes = torch.cat([corner, corner + 12 + torch.rand(2, 3, 2, generator=g) * 40], 2)
    masks = torch.rand(2, 3, 96, 96, generator=g) > 0.5
    targets = [{"boxes": b, "labels": torch.tensor([1, 2, 3]), "masks": m} for b, m in zip(boxes, masks)]

    def theirs_all(self, matched):
        return [(m >= 1).to(torch.uint8) for m in matched], [(m == 0).to(torch.uint8) for m in matched]

    sampler = torchvision.models.detection._utils.BalancedPositiveNegativeSampler
    monkeypatch.setattr(sampler, "__call__", theirs_all)
    monkeypatch.setattr(ops, "sample_labels", lambda labels, *_, generator=None: (labels >= 1, labels == 0))
    monkeypatch.setattr(ours.rpn, "samples", 10**6)
    monkeypatch.setattr(ours.roi_heads, "samples", 4000)
    expected = theirs.train()([i.clone() for i in images], [dict(t) for t in targets])
    losses = ours.train().loss(images, targets)
    assert set(losses) == set(expected)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
@torch.no_grad()
def test_same_logits(torchvision, name):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    ours = getattr(classification, name)().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.rand(2, 3, 96, 80)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
