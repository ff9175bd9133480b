"""torchvision's own detectors on the ops of fastvision."""

import copy

import pytest
import torch
from fastvision.interop import torchvision as interop
from operator_calls import counted


@pytest.fixture(autouse=True)
def restored():
    yield
    interop.restore()


def detector(torchvision, kind):
    """A detector of torchvision with a backbone of three convolutions."""
    detection = torchvision.models.detection
    body = torch.nn.Sequential()
    for name, channels, stride in (("fine", 3, 4), ("middle", 16, 2), ("coarse", 16, 2)):
        convolution = torch.nn.Conv2d(channels, 16, 3, stride, 1)
        body.add_module(name, torch.nn.Sequential(convolution, torch.nn.ReLU()))
    backbone = detection.backbone_utils.BackboneWithFPN(
        body, {"fine": "0", "middle": "1", "coarse": "2"}, in_channels_list=[16] * 3, out_channels=32
    )
    sizes = {"num_classes": 4, "min_size": 64, "max_size": 96}
    sides = ((12,), (24,), (36,), (48,))
    if kind == "RetinaNet":
        anchors = detection.anchor_utils.AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * 4)
        return detection.RetinaNet(backbone, anchor_generator=anchors, score_thresh=0.0, topk_candidates=20, **sizes)
    if kind == "FCOS":
        anchors = detection.anchor_utils.AnchorGenerator(sides, ((1.0,),) * 4)
        return detection.FCOS(backbone, anchor_generator=anchors, score_thresh=0.0, topk_candidates=20, **sizes)
    if kind == "SSD":
        anchors = detection.anchor_utils.DefaultBoxGenerator([[2]] * 4)
        head = detection.ssd.SSDHead([32] * 4, anchors.num_anchors_per_location(), 4)
        return detection.ssd.SSD(backbone, anchors, (64, 64), 4, head=head, score_thresh=0.0, topk_candidates=20)
    del sizes["num_classes"]
    parts = {
        "rpn_anchor_generator": detection.anchor_utils.AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * 4),
        "box_head": detection.faster_rcnn.TwoMLPHead(32 * 49, 32),
        "box_predictor": detection.faster_rcnn.FastRCNNPredictor(32, 4),
    }
    if kind == "MaskRCNN":
        parts["mask_head"] = detection.mask_rcnn.MaskRCNNHeads(32, [32], 1)
        parts["mask_predictor"] = detection.mask_rcnn.MaskRCNNPredictor(32, 32, 4)
    proposals = {"rpn_pre_nms_top_n_test": 40, "rpn_pre_nms_top_n_train": 40, "rpn_batch_size_per_image": 32}
    limits = {"box_score_thresh": 0.0, "box_detections_per_img": 10, "box_batch_size_per_image": 32}
    return getattr(detection, kind)(backbone, **sizes, **parts, **proposals, **limits)


def outcome(model):
    """Losses, gradients and detections of a copy, with the same random numbers every time."""
    torch.manual_seed(3)
    model = copy.deepcopy(model)
    images = [torch.rand(3, 64, 80), torch.rand(3, 70, 64)]
    boxes = torch.tensor([[4.0, 6.0, 40.0, 50.0], [20.0, 8.0, 60.0, 30.0]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 3])}
    masks = [{"masks": torch.rand(2, *image.shape[1:]) > 0.5} for image in images]
    losses = model.train()(images, [{**target, **m} for m in masks])
    torch.stack(list(losses.values())).sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    with torch.no_grad():
        found = model.eval()(images)
    return {k: v.detach() for k, v in losses.items()}, gradients, found


TWO_STAGES = {"nms", "box_iou", "multiscale_roi_align", "multiscale_roi_align_backward"}
REACHED = {
    "FasterRCNN": TWO_STAGES,
    "MaskRCNN": TWO_STAGES | {"roi_align"},
    "RetinaNet": {"nms", "box_iou", "sigmoid_focal_loss"},
    "FCOS": {"nms", "sigmoid_focal_loss"},
    "SSD": {"nms", "box_iou"},
}


@pytest.mark.parametrize("kind", REACHED)
def test_detectors_give_the_same_on_our_ops(torchvision, kind):
    torch.manual_seed(0)
    model = detector(torchvision, kind)
    before, calls_before = counted(lambda: outcome(model))
    assert not any(name.startswith("fastvision::") for name in calls_before)
    with interop.accelerate():
        after, calls = counted(lambda: outcome(model))
    assert {f"fastvision::{name}" for name in REACHED[kind]} <= set(calls)
    assert not any(name.startswith("torchvision::") for name in calls)
    assert all(len(image["boxes"]) for image in before[2])
    scale = max(float(g.abs().max()) for g in before[1])
    for ours, theirs, tolerance in zip(after, before, (1e-4, 1e-4 * scale, 1e-3)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=tolerance)
    torch.testing.assert_close(outcome(model), before, rtol=0, atol=0)


BUILT = {
    "fasterrcnn_resnet50_fpn": {"min_size": 64, "max_size": 96, "box_score_thresh": 0.0, "box_detections_per_img": 5},
    "maskrcnn_resnet50_fpn": {"min_size": 64, "max_size": 96, "box_score_thresh": 0.0, "box_detections_per_img": 5},
    "retinanet_resnet50_fpn": {"min_size": 64, "max_size": 96, "score_thresh": 0.0, "topk_candidates": 20},
    "ssdlite320_mobilenet_v3_large": {"score_thresh": 0.0, "topk_candidates": 20},
}


@pytest.mark.parametrize("name", BUILT)
@torch.no_grad()
def test_builders_of_torchvision(torchvision, name):
    with torch.device("meta"):
        build = getattr(torchvision.models.detection, name)
        model = build(weights=None, weights_backbone=None, num_classes=5, **BUILT[name]).eval()
    model = model.to_empty(device="cpu")
    torch.manual_seed(0)
    for key, value in model.state_dict().items():  # of ordinary size, and quicker than the builder's own
        fan = value[0].numel() if value.dim() > 1 else 1
        value.copy_(torch.ones_like(value) if "var" in key else torch.randn(value.shape) / fan**0.5)
    images = [torch.rand(3, 64, 80)]
    before = model(images)
    with interop.accelerate():
        after, calls = counted(lambda: model(images))
    assert calls["fastvision::nms"]
    assert len(before[0]["boxes"]) > 3
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-3)
