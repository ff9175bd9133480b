"""The deliberate differences to torchvision in docs/differences.md, one test each that shows both results.

Those of regions are in test_differences_of_regions.py.
"""

import re
from math import inf, isnan, nan
from pathlib import Path

import pytest
import torch
from fastvision import nn, ops
from torch import tensor

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
    here = "".join(file.read_text() for file in Path(__file__).parent.glob("test_differences*.py"))
    own = "test_the_document_names_these_tests"
    assert sorted([*re.findall(r"`(test_\w+)`", document), own]) == sorted(re.findall(r"^def (test_\w+)", here, re.M))
