"""Losses in docs/differences.md: what torchvision does with them, what we do."""

from math import inf

import pytest
import torch
from fastvision import ops
from torch import tensor


def value_and_gradient(function, inputs, *others, **options):
    leaf = inputs.clone().requires_grad_()
    loss = function(leaf, *others, **options)
    return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]


def test_means_of_nothing_are_0(torchvision):
    none, boxes = torch.zeros(0, 3), torch.zeros(0, 4)
    assert torchvision.ops.sigmoid_focal_loss(none, none, reduction="mean").isnan()
    assert ops.sigmoid_focal_loss(none, none, reduction="mean") == 0
    for name in ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss"):
        assert getattr(torchvision.ops, name)(boxes, boxes, reduction="mean") == 0
        assert getattr(ops, name)(boxes, boxes, reduction="mean") == 0


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_sure_logits_have_gradients(torchvision, gamma):
    """The loss of a right answer is 0 and flat, that of a wrong one grows by alpha per logit."""
    logits, targets = tensor([200.0, -200.0, 200.0]), tensor([1.0, 0.0, 0.0])
    value, gradient = value_and_gradient(ops.sigmoid_focal_loss, logits, targets, alpha=-1, gamma=gamma)
    assert torch.equal(value, tensor([0.0, 0.0, 200.0]))
    assert torch.equal(gradient, tensor([0.0, 0.0, 1.0]))
    _, theirs = value_and_gradient(torchvision.ops.sigmoid_focal_loss, logits, targets, alpha=-1, gamma=gamma)
    assert theirs.isnan().any() == (gamma == 0.5)


def test_infinite_logits_have_losses(torchvision):
    logits, targets = tensor([inf, -inf]), tensor([1.0, 0.0])
    assert torchvision.ops.sigmoid_focal_loss(logits, targets).isnan().all()
    value, gradient = value_and_gradient(ops.sigmoid_focal_loss, logits, targets)
    assert not value.any()
    assert not gradient.any()


def test_sums_of_16_bit_losses_are_float32(torchvision):
    logits, targets = torch.full((100_000,), -3.0).half(), torch.ones(100_000).half()
    exact = ops.sigmoid_focal_loss(logits.double(), targets.double(), reduction="sum")
    assert torchvision.ops.sigmoid_focal_loss(logits, targets, reduction="sum").isinf()
    total = ops.sigmoid_focal_loss(logits, targets, reduction="sum")
    assert total.dtype == torch.float32
    torch.testing.assert_close(total.double(), exact, rtol=1e-5, atol=0)


def test_losses_of_flat_and_inverted_boxes_are_numbers(torchvision):
    flat, box = tensor([[0.0, 0.0, 4.0, 0.0]]), tensor([[0.0, 0.0, 4.0, 4.0]])
    _, theirs = value_and_gradient(torchvision.ops.complete_box_iou_loss, flat, flat)
    assert theirs.isnan().any()
    value, gradient = value_and_gradient(ops.complete_box_iou_loss, flat, flat)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    inverted = tensor([[4.0, 4.0, 0.0, 0.0]])
    assert torchvision.ops.generalized_box_iou_loss(inverted, box) < 1
    assert ops.generalized_box_iou_loss(inverted, box) == 1


def test_losses_of_boxes_do_not_broadcast(torchvision):
    assert torchvision.ops.generalized_box_iou_loss(torch.zeros(3, 4), torch.zeros(1, 4)).shape == (3,)
    with pytest.raises(ValueError, match="boxes2: expected shape"):
        ops.generalized_box_iou_loss(torch.zeros(3, 4), torch.zeros(1, 4))
