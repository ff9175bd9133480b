"""torchvision without its compiled library or not there at all, and its checkpoints in our models."""

import subprocess
import sys

import pytest
import torch
from fastvision.interop import torchvision as interop


def test_without_torchvision(monkeypatch):
    monkeypatch.setattr(interop.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    for function in (interop.accelerate, interop.provide):
        with pytest.raises(ImportError, match="torchvision is not installed: pip install torchvision"):
            function()


PROVIDED = """
import torch
torch.set_num_threads(1)
load = torch.ops.load_library
def refuse(path):
    if "torchvision" in str(path):
        raise OSError("made for another torch")
    load(path)
torch.ops.load_library = refuse
from fastvision.interop import torchvision as interop
try:
    interop.accelerate()
except ImportError as error:
    assert "provide()" in str(error), error
else:
    raise AssertionError("accelerated without operators")
interop.provide()
interop.provide()
import torchvision
assert torchvision.ops.nms(torch.tensor([[0., 0, 2, 2], [0, 0, 2, 1.9]]), torch.tensor([.5, .9]), .5).tolist() == [1]
backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 8, 8), torch.nn.ReLU())
backbone.out_channels = 8
detection = torchvision.models.detection
model = detection.MaskRCNN(backbone, min_size=64, max_size=64, rpn_pre_nms_top_n_train=20, box_score_thresh=0.0,
    rpn_anchor_generator=detection.anchor_utils.AnchorGenerator(((16,),), ((1.0,),)), rpn_pre_nms_top_n_test=20,
    box_roi_pool=torchvision.ops.MultiScaleRoIAlign(["0"], 3, 2),
    mask_roi_pool=torchvision.ops.MultiScaleRoIAlign(["0"], 4, 2),
    box_head=detection.faster_rcnn.TwoMLPHead(72, 8), box_predictor=detection.faster_rcnn.FastRCNNPredictor(8, 3),
    mask_head=detection.mask_rcnn.MaskRCNNHeads(8, [8], 1),
    mask_predictor=detection.mask_rcnn.MaskRCNNPredictor(8, 8, 3))
image = [torch.rand(3, 64, 64)]
target = {"boxes": torch.tensor([[4., 4, 30, 30]]), "labels": torch.tensor([1]), "masks": torch.ones(1, 64, 64) > 0}
torch.stack(list(model.train()(image, [target]).values())).sum().backward()
assert all(p.grad.isfinite().all() for p in model.parameters())
found = model.eval()(image)[0]
with interop.accelerate():
    torch.testing.assert_close(model(image)[0], found, rtol=1e-4, atol=1e-3)
x = torch.rand(1, 4, 8, 8, requires_grad=True)
torchvision.ops.roi_pool(x, [torch.tensor([[0., 0, 4, 4]])], 2).sum().backward()
assert x.grad.sum() == 16
script = torch.jit.script(torchvision.ops.RoIAlign(2, 1.0, -1))
assert script(x, torch.zeros(1, 5)).grad_fn is not None
offset, module = torch.zeros(1, 18, 6, 6), torchvision.ops.DeformConv2d(4, 3, 3)
moved = module(x, offset)
torch.testing.assert_close(moved, torch.nn.functional.conv2d(x, module.weight, module.bias))
assert torch.autograd.grad(moved.sum(), module.weight)[0].isfinite().all()
print("provided")
"""


def test_provides_the_operators_where_torchvisions_library_does_not_load(torchvision):
    run = subprocess.run([sys.executable, "-c", PROVIDED], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.endswith("provided\n")


def old_names(state):
    """The names of torchvision's public checkpoints, which are older than 0.13."""
    renamed = {}
    for key, value in state.items():
        for part in ("fpn.inner_blocks.", "fpn.layer_blocks."):
            if part in key:
                head, tail = key.split(part)
                key = f"{head}{part}{tail[0]}.{tail[4:]}"
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        if "mask_head" in key:
            head, tail = key.split("mask_head.")
            key = f"{head}mask_head.mask_fcn{int(tail[0]) + 1}.{tail[4:]}"
        renamed[key] = value
    return renamed


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn"])
def test_converts_public_checkpoints(torchvision, name):
    with torch.device("meta"):
        theirs = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None, num_classes=5)
    state = {key: value for key, value in theirs.state_dict().items() if "num_batches" not in key}
    old = old_names(state)
    assert len(old.keys() - state.keys()) > 15
    assert not theirs.load_state_dict(dict(old), strict=False, assign=True).missing_keys, (
        "not the names that torchvision knows"
    )
    for given in (state, old, {**old, "backbone.body.bn1.num_batches_tracked": torch.tensor(0)}):
        converted = interop.convert_state_dict(name, given)
        assert converted.keys() == state.keys()
        assert all(converted[key] is state[key] for key in state)


def test_refuses_a_state_that_does_not_belong(torchvision):
    state = torchvision.models.resnet18().state_dict()
    assert interop.convert_state_dict("resnet18", state).keys() == state.keys()
    with pytest.raises(ValueError, match=r"expected the entries of resnet34, got \d+ missing, such as layer1\.2"):
        interop.convert_state_dict("resnet34", state)
    with pytest.raises(ValueError, match=r"1 foreign, such as extra\.weight"):
        interop.convert_state_dict("resnet18", {**state, "extra.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"name: expected one of fasterrcnn_resnet50_fpn, .* got 'lenet'"):
        interop.convert_state_dict("lenet", state)
