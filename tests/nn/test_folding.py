"""fold_batch_norm: the same results with fewer passes."""

import copy

import pytest
import torch
from fastvision.models import classification, detection
from fastvision.nn import FrozenBatchNorm2d, fold_batch_norm
from torch import nn


def draw_statistics(model):
    torch.manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(value, 0.5, 1.5)
    return model.double().eval()


def norms(model):
    return sum(isinstance(m, (nn.BatchNorm2d, FrozenBatchNorm2d)) for m in model.modules())


LAYERS = {
    "convolution": lambda: nn.Conv2d(4, 6, 3, bias=False),
    "with a bias": lambda: nn.Conv2d(4, 6, 3),
    "groups": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, 2),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
@torch.no_grad()
def test_one_layer(layer, frozen):
    conv = LAYERS[layer]()
    model = draw_statistics(nn.Sequential(conv, FrozenBatchNorm2d(6) if frozen else nn.BatchNorm2d(6)))
    x = torch.randn(2, 4, 7, 5).double()
    expected = model(x)
    folded = fold_batch_norm(model)
    assert folded is model
    assert norms(model) == 0
    assert model[0] is conv
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("make", [classification.resnet18, classification.resnet50])
@torch.no_grad()
def test_classifiers(make):
    model = draw_statistics(make(7))
    x = torch.randn(1, 3, 64, 48).double()
    expected = model(x)
    folded = fold_batch_norm(copy.deepcopy(model))
    assert norms(folded) == 0
    torch.testing.assert_close(folded(x), expected)


@torch.no_grad()
def test_detector():
    model = draw_statistics(detection.mask_rcnn_tiny(3)).float()
    x = torch.randn(1, 3, 80, 96)
    expected = model.backbone(x)
    folded = fold_batch_norm(copy.deepcopy(model))
    assert norms(folded) == 0
    for mine, theirs in zip(folded.backbone(x), expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_what_is_not_folded_stays():
    without_statistics = nn.BatchNorm2d(6, track_running_stats=False)
    apart = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.BatchNorm2d(6))
    transposed = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6))
    model = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 6, 3), without_statistics), apart, transposed])
    draw_statistics(nn.ModuleList([apart, transposed]))
    before = repr(model)
    assert repr(fold_batch_norm(model.eval())) == before


def test_training_mode_is_an_error():
    with pytest.raises(ValueError, match="expected evaluation mode"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
