"""Our detectors against torchvision's, with the same random weights."""

import pytest
import torch
from fastvision.models import classification, detection


def calibrated(torchvision, kind):
    """torchvision's detector with random weights and features of ordinary size."""
    torch.manual_seed(0)
    backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=torchvision.ops.FrozenBatchNorm2d, trainable_layers=5
    )
    model = getattr(torchvision.models.detection, kind)(backbone, 91, box_score_thresh=0.012, min_size=256).eval()

    def take_statistics(norm, inputs):
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(inputs[0].var((0, 2, 3)))

    norms = [m for m in model.modules() if isinstance(m, torchvision.ops.FrozenBatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(take_statistics) for norm in norms]
    with torch.no_grad():
        scale = model.backbone(torch.randn(2, 3, 256, 256))["0"].std()
        for block in model.backbone.fpn.layer_blocks:
            block[0].weight /= scale
        for name, factor in (("cls_logits", 10.0), ("rpn.head.bbox_pred", 5.0), ("cls_score.weight", 3.0)):
            for parameter_name, parameter in model.named_parameters():
                if name in parameter_name:
                    parameter *= factor
    for hook in hooks:
        hook.remove()
    return model


@pytest.fixture(scope="module", params=["FasterRCNN", "MaskRCNN"])
def pair(request, torchvision):
    theirs = calibrated(torchvision, request.param)
    builders = {"FasterRCNN": detection.fasterrcnn_resnet50_fpn, "MaskRCNN": detection.maskrcnn_resnet50_fpn}
    ours = builders[request.param]().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    ours.roi_heads.score_threshold = 0.012
    ours.batcher.min_size = 256
    return ours, theirs


@torch.no_grad()
def test_same_detections(pair):
    ours, theirs = pair
    images = [torch.rand(3, 240, 320), torch.rand(3, 333, 200)]
    logits = []
    hooks = []
    if hasattr(theirs.roi_heads, "mask_predictor") and theirs.roi_heads.mask_predictor is not None:
        hooks = [theirs.roi_heads.mask_predictor.register_forward_hook(lambda m, i, o: logits.append(o))]
    expected = theirs(images)
    for hook in hooks:
        hook.remove()
    found, (padded, _) = ours(images), ours.padded(images)
    start = 0
    for i, (result, want) in enumerate(zip(found, expected)):
        n = len(want["boxes"])
        assert n > 20, "too few detections to compare"
        assert len(result) == n
        assert torch.equal(result.labels, want["labels"])
        # Coordinates of some hundred pixels: 1e-4 is a few units in the last place.
        torch.testing.assert_close(result.boxes, want["boxes"], rtol=1e-6, atol=1e-4)
        torch.testing.assert_close(result.scores, want["scores"], rtol=0, atol=1e-4)
        if logits:
            own = logits[0][torch.arange(start, start + n), want["labels"]]
            torch.testing.assert_close(padded.mask_logits[i, :n], own, rtol=1e-4, atol=1e-4)
            unequal = (result.masks != (want["masks"][:, 0] > 0.5)).float().mean()
            assert unequal < 1e-5
            start += n


def test_same_losses(pair, monkeypatch, torchvision):
    """With the samples of each image chosen alike: every anchor and proposal, in the order that it has."""
    ours, theirs = pair
    images = [torch.rand(3, 256, 256), torch.rand(3, 256, 256)]
    g = torch.Generator().manual_seed(2)
    corner = torch.rand(2, 3, 2, generator=g) * 120
    boxes = torch.cat([corner, corner + 30 + torch.rand(2, 3, 2, generator=g) * 90], 2)
    masks = torch.rand(2, 3, 256, 256, generator=g) > 0.5
    targets = [{"boxes": b, "labels": torch.tensor([1, 2, 3]), "masks": m} for b, m in zip(boxes, masks)]

    def theirs_all(self, matched):
        return [(m >= 1).to(torch.uint8) for m in matched], [(m == 0).to(torch.uint8) for m in matched]

    sampler = torchvision.models.detection._utils.BalancedPositiveNegativeSampler
    monkeypatch.setattr(sampler, "__call__", theirs_all)
    from fastvision import ops

    monkeypatch.setattr(ops, "sample_labels", lambda labels, *_, generator=None: (labels >= 1, labels == 0))
    monkeypatch.setattr(ours.rpn, "samples", 10**6)
    monkeypatch.setattr(ours.roi_heads, "samples", 4000)
    ours.train()
    theirs.train()
    try:
        expected = theirs([i.clone() for i in images], [dict(t) for t in targets])
        losses = ours.loss(images, targets)
    finally:
        ours.eval()
        theirs.eval()
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
