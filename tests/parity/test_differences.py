"""The deliberate differences to torchvision in docs/differences.md, one test each that shows both results."""

import re
import subprocess
import sys
from math import inf, isnan, nan
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


# Suppression


def test_boxes_that_are_not_numbers_are_never_kept(torchvision):
    boxes, scores = tensor([[0.0, 0, 1, 1], [nan, 0, 1, 1], [0, 0, 1, 1]]), tensor([0.5, 0.9, 0.6])
    assert torchvision.ops.nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert ops.nms(boxes, scores, 0.5).tolist() == [2]
    assert torchvision.ops.nms(boxes[::2], tensor([nan, 0.6]), 0.5).tolist() == [0]
    assert ops.nms(boxes[::2], tensor([nan, 0.6]), 0.5).tolist() == [1]


def test_thresholds_outside_0_to_1_are_errors(torchvision):
    boxes, scores = tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]]), tensor([0.5, 0.9])
    assert torchvision.ops.nms(boxes, scores, 1.5).tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"iou_threshold: expected a number in \[0, 1\], got 1.5"):
        ops.nms(boxes, scores, 1.5)


def test_suppression_takes_16_bit_boxes_on_the_cpu(torchvision):
    boxes, scores = tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]]), tensor([0.5, 0.9])
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(NotImplementedError, match="not implemented for"):
            torchvision.ops.nms(boxes.to(dtype), scores.to(dtype), 0.5)
        assert ops.nms(boxes.to(dtype), scores.to(dtype), 0.5).tolist() == [1]


def test_groups_never_meet(torchvision):
    negative, scores = tensor([[-8.0, -8, -2, -2], [-6, -6, -1, -1]]), tensor([0.9, 0.8])
    assert torchvision.ops.batched_nms(negative, scores, tensor([0, 1]), 0.1).tolist() == [0]
    assert ops.batched_nms(negative, scores, tensor([0, 1]), 0.1).tolist() == [0, 1]
    far = tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [9999, 9999, 10000, 10000]])  # the offsets round by 8
    groups, scores = tensor([9000, 9000, 0]), tensor([0.9, 0.8, 0.7])
    assert torchvision.ops.batched_nms(far, scores, groups, 0.9).tolist() == [0, 2]
    assert ops.batched_nms(far, scores, groups, 0.9).tolist() == [0, 1, 2]
    infinite = tensor([[0.0, 0, inf, 1], [0, 0, 1, 1], [0, 0, 1, 1.1]])
    assert torchvision.ops.batched_nms(infinite, tensor([0.9, 0.6, 0.7]), tensor([0, 1, 1]), 0.5).tolist() == [0, 2, 1]
    assert ops.batched_nms(infinite, tensor([0.9, 0.6, 0.7]), tensor([0, 1, 1]), 0.5).tolist() == [2]


# Overlaps


def test_overlap_of_empty_boxes_is_0(torchvision):
    point = tensor([[1.0, 1, 1, 1]])
    for name in ("box_iou", "generalized_box_iou", "complete_box_iou"):
        assert isnan(getattr(torchvision.ops, name)(point, point)), name
        assert getattr(ops, name)(point, point) == 0, name
    infinite = tensor([[0.0, 0, inf, 5]])
    assert isnan(torchvision.ops.box_iou(infinite, infinite))
    assert ops.box_iou(infinite, infinite) == 0


def test_overlaps_of_inverted_boxes_stay_in_range(torchvision):
    inverted, other = tensor([[5.0, 5, 1, 1]]), tensor([[1.0, 1, 3, 8]])
    assert torchvision.ops.generalized_box_iou(inverted, inverted) == inf
    assert -1 <= ops.generalized_box_iou(inverted, inverted) <= 0
    half = tensor([[4.0, 0, 0, 4]])
    assert torchvision.ops.generalized_box_iou(half, other) < -1
    assert -1 <= ops.generalized_box_iou(half, other) <= 0  # the hull holds all corners


def test_large_boxes_do_not_overflow(torchvision):
    large, lower = tensor([[0.0, 0, 2e19, 2e19]]), tensor([[0.0, 0, 2e19, 1e19]])
    assert torchvision.ops.box_iou(large, lower) != 0.5
    assert ops.box_iou(large, lower) == 0.5


def test_integer_boxes_do_not_wrap(torchvision):
    apart = tensor([[0, 0, 10, 10]], dtype=torch.uint8), tensor([[20, 0, 30, 10]], dtype=torch.uint8)
    assert torchvision.ops.box_iou(*apart) < 0
    assert ops.box_iou(*apart) == 0
    wide = tensor([[0, 0, 60000, 60000]], dtype=torch.int32), tensor([[0, 0, 60000, 30000]], dtype=torch.int32)
    assert torchvision.ops.box_iou(*wide) < 0
    assert ops.box_iou(*wide) == 0.5
    byte = tensor([[200, 200, 250, 254]], dtype=torch.uint8)
    assert torchvision.ops.box_convert(byte, "xyxy", "cxcywh")[0, 0] == 97
    assert ops.box_convert(byte, "xyxy", "cxcywh").tolist() == [[225, 227, 50, 54]]


def test_overlaps_of_16_bit_boxes_are_16_bit(torchvision):
    a, b = tensor([[0.0, 0, 3, 3]]).half(), tensor([[0.0, 0, 3, 2]]).half()
    assert torchvision.ops.box_iou(a, b).dtype == torch.float32
    assert ops.box_iou(a, b).dtype == torch.float16


def test_boxes_of_two_dtypes_are_an_error(torchvision):
    a, b = tensor([[0.0, 0, 3, 3]]).double(), tensor([[0.0, 0, 3, 2]])
    assert torchvision.ops.box_iou(a, b).dtype == torch.float64
    with pytest.raises(TypeError, match=r"boxes2: expected dtype torch.float64 as boxes1, got torch.float32"):
        ops.box_iou(a, b)


# Regions


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


# Detectors


def test_ground_truth_that_nothing_overlaps_matches_nothing(torchvision):
    matcher = torchvision.models.detection._utils.Matcher
    truth = tensor([[0.0, 0, 4, 4], [90, 90, 99, 99]])
    anchors = tensor([[0.0, 0, 4, 3], [20, 20, 30, 30]])
    overlaps = ops.box_iou(truth, anchors)
    assert matcher(0.7, 0.3, allow_low_quality_matches=True)(overlaps).tolist() == [0, 0]
    assert ops.match_boxes(truth, anchors, 0.7, 0.3, allow_low_quality=True)[0].tolist() == [0, -1]
    with pytest.raises(ValueError, match="No ground-truth boxes"):
        matcher(0.7, 0.3)(overlaps[:0])
    assert ops.match_boxes(truth[:0], anchors, 0.7, 0.3)[0].tolist() == [-1, -1]


def test_pasted_masks_are_decided(torchvision):
    masks, boxes = torch.rand(1, 1, 4, 4), tensor([[1.0, 1, 6, 6]])
    theirs = torchvision.models.detection.roi_heads.paste_masks_in_image(masks, boxes, (8, 8))
    assert theirs.dtype == torch.float32
    assert torch.equal(ops.paste_masks_in_image(masks, boxes, (8, 8)), theirs[:, 0] > 0.5)


def test_a_resized_side_never_vanishes(torchvision):
    strip, statistics = torch.rand(3, 1, 400), ([0.0] * 3, [1.0] * 3)
    transform = torchvision.models.detection.transform.GeneralizedRCNNTransform(8, 16, *statistics)
    with pytest.raises(RuntimeError, match="sizes should be greater than 0"):
        transform([strip])
    assert nn.ImageBatcher(8, 16, *statistics)([strip]).sizes == [(1, 16)]


# The document


def test_the_document_names_these_tests():
    document = (Path(__file__).parents[2] / "docs" / "differences.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", document))
    here = {name for name in globals() if name.startswith("test_")} - {"test_the_document_names_these_tests"}
    assert named == here
