"""Regions in docs/differences.md: what torchvision does with them, what we do."""

import subprocess
import sys
from math import inf, nan
from pathlib import Path

import pytest
import torch
from fastvision import nn, ops
from torch import tensor

FEATURES = torch.arange(16.0).view(1, 1, 4, 4)


def region(*corners, image=0.0):
    return tensor([[image, *corners]])


def in_a_process(call):
    """How a process that makes this call ends."""
    start = "import sys; sys.path.insert(0, sys.argv[1]); from torchvision_loader import load_torchvision\n"
    start += "theirs = load_torchvision().ops; import torch; from math import inf\n"
    command = [sys.executable, "-c", start + call, str(Path(__file__).parent)]
    return subprocess.run(command, capture_output=True).returncode


def test_image_indices_out_of_range_are_errors(torchvision):
    call = "theirs.roi_pool(torch.rand(1, 256, 50, 50), torch.tensor([[1e5, 0, 0, 4, 4]]), 7)"
    assert in_a_process(call) == -11, "a segmentation fault"
    with pytest.raises(ValueError, match=r"boxes: .*row 0"):
        ops.roi_pool(FEATURES, region(0, 0, 3, 3, image=1e5), 1)
    assert torchvision.ops.roi_align(FEATURES, [region(0, 0, 1, 1)[:, 1:], torch.zeros(0, 4)], 1).shape[0] == 1
    with pytest.raises(ValueError, match=r"boxes: expected one tensor per image \(1\), got 2"):
        ops.roi_align(FEATURES, [region(0, 0, 1, 1)[:, 1:], torch.zeros(0, 4)], 1)


def test_regions_that_are_not_finite_are_0(torchvision):
    unknown = region(0, 0, 4, nan)
    assert torchvision.ops.roi_align(FEATURES, unknown, 2, sampling_ratio=1).isnan().all()
    assert not ops.roi_align(FEATURES, unknown, 2, sampling_ratio=1).any()
    everything = region(-inf, -inf, inf, inf)
    call = "theirs.roi_align(torch.ones(1, 1, 4, 4), torch.tensor([[0, -inf, -inf, inf, inf]]), 3, sampling_ratio=2)"
    assert in_a_process(call) == -11, "a segmentation fault"
    assert not ops.roi_align(FEATURES, everything, 3, sampling_ratio=2).any()


def test_regions_of_any_size_are_computed(torchvision):
    with pytest.raises(Exception, match=r"std::vector|bad_alloc"):
        torchvision.ops.roi_align(FEATURES, region(0, 0, 1e9, 1e9), 2)
    assert ops.roi_align(FEATURES, region(0, 0, 1e9, 1e9), 2).abs().max() < 1e-6
    everything = region(-3e9, -3e9, 3e9, 3e9)
    assert not torchvision.ops.roi_pool(FEATURES, everything, 3).any()
    assert ops.roi_pool(FEATURES, everything, 3).flatten().tolist() == [0, 0, 0, 0, 15, 0, 0, 0, 0]


def test_inverted_aligned_regions_are_0(torchvision):
    inverted = region(3, 3, 1, 1)
    pooled = [
        [f(FEATURES, inverted, 1, sampling_ratio=n, aligned=True).item() for n in (-1, 2)]
        for f in (torchvision.ops.roi_align, ops.roi_align)
    ]
    assert pooled == [[0, 7.5], [0, 0]]


def test_numbers_that_mean_nothing_are_errors(torchvision):
    whole = region(0, 0, 3, 3)
    cases = (
        ({"output_size": (1, 1, 9)}, "output_size: expected an int or 2 ints, got 3"),
        ({"output_size": (0, 1)}, "output_size: expected integers >= 1"),
        ({"output_size": 1, "spatial_scale": -1.0}, "spatial_scale: expected a finite number > 0"),
    )
    for arguments, message in cases:
        torchvision.ops.roi_align(FEATURES, whole, **arguments)
        with pytest.raises(ValueError, match=message):
            ops.roi_align(FEATURES, whole, **arguments)
    assert torchvision.ops.roi_align(FEATURES[None], whole, 1).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match=r"input: expected shape \(N, C, H, W\)"):
        ops.roi_align(FEATURES[None], whole, 1)


def test_a_nan_or_infinite_feature_is_the_maximum(torchvision):
    whole = region(0, 0, 3, 3)
    for value in (nan, -inf):
        features = torch.full((1, 1, 4, 4), value)
        assert torchvision.ops.roi_pool(features, whole, 1) == -torch.finfo(torch.float32).max
        assert str(ops.roi_pool(features, whole, 1).item()) == str(value)


def test_float32_boxes_beside_16_bit_features(torchvision):
    whole = region(0, 0, 3, 3)
    with pytest.raises(RuntimeError, match="same type"):
        torchvision.ops.roi_align(FEATURES.half(), whole, 1)
    assert ops.roi_align(FEATURES.half(), whole, 1).dtype == torch.float16
    with pytest.raises(NotImplementedError):
        torchvision.ops.roi_align(FEATURES.bfloat16(), whole.bfloat16(), 1)
    assert ops.roi_align(FEATURES.bfloat16(), whole.bfloat16(), 1).dtype == torch.bfloat16
    many = torch.zeros(2050, 1, 2, 2)
    many[2049] = 1
    lists = [whole[:, 1:].half()] * 2050  # torchvision writes the index 2049 in float16, where it is 2048
    assert torchvision.ops.roi_align(many.half(), lists, 1)[2049] == 0
    assert ops.roi_align(many.half(), lists, 1)[2049] > 0


def test_no_images_are_no_error(torchvision):
    with pytest.raises(ValueError, match="non-empty list"):
        torchvision.ops.roi_align(FEATURES[:0], [], 1)
    assert ops.roi_align(FEATURES[:0], [], 1).shape == (0, 1, 1, 1)


def test_channels_last_stays(torchvision):
    features = torch.rand(1, 8, 4, 4).to(memory_format=torch.channels_last)
    for pool in ("roi_align", "roi_pool"):
        kept = [getattr(o, pool)(features, region(0, 0, 3, 3), 2) for o in (torchvision.ops, ops)]
        assert [t.is_contiguous(memory_format=torch.channels_last) for t in kept] == [False, True]


def test_gradients_of_gradients_and_of_boxes(torchvision):
    def twice(library):
        features = FEATURES.clone().requires_grad_()
        pooled = library.roi_align(features, region(0, 0, 3, 3), 1).square().sum()
        (gradient,) = torch.autograd.grad(pooled, features, create_graph=True)
        return torch.autograd.grad(gradient.sum(), features)[0].sum()

    with pytest.raises(RuntimeError, match="double backwards on roi_align not supported"):
        twice(torchvision.ops)
    assert twice(ops) == pytest.approx(2)

    def of_boxes(library):
        boxes, features = region(0, 0, 3, 3).requires_grad_(), FEATURES.clone().requires_grad_()
        return torch.autograd.grad(library.roi_align(features, boxes, 1).sum(), boxes, allow_unused=True)[0]

    assert of_boxes(torchvision.ops) is None
    with pytest.raises(RuntimeError, match="roi_align: boxes: no gradient; detach"):
        of_boxes(ops)


def test_pooling_keeps_no_state(torchvision):
    maps, boxes = {"0": torch.arange(64.0).view(1, 1, 8, 8)}, [tensor([[0.0, 0, 16, 16]])]
    pooled = []
    for library in (torchvision.ops, nn):
        pool = library.MultiScaleRoIAlign(["0"], 1, 1)
        pooled.append([pool(maps, boxes, [size]).item() for size in ((32, 32), (64, 64))])
    assert pooled == [[18, 18], [18, 9]]
