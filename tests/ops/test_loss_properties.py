"""What the losses have in common."""

import pytest
import torch
from fastvision import ops
from hypothesis import example, given
from hypothesis import strategies as st
from support import assert_close, random_boxes, seeds

BOX_LOSSES = [ops.generalized_box_iou_loss, ops.distance_box_iou_loss, ops.complete_box_iou_loss]
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
gammas = st.floats(0, 200, width=32)


def value_and_gradient(f, x):
    x = x.detach().requires_grad_()
    value = f(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def calls(backend, seed, reduction):
    """Every loss as a function of its differentiable input, and that input."""
    g = torch.Generator().manual_seed(seed)
    move = lambda t: t.to(backend.device)  # noqa: E731
    logits, labels = torch.randn(700, 13, generator=g), torch.randint(0, 13, (700,), generator=g)
    dense = torch.rand(700, 13, generator=g)
    boxes, others = (random_boxes(g, 1500, dtype=torch.float32) for _ in range(2))
    labels, dense, others = move(labels), move(dense), move(others)
    options = {"reduction": reduction}
    return [
        (lambda x: ops.sigmoid_focal_loss(x, dense, gamma=1.5, **options), move(logits)),
        (lambda x: ops.sigmoid_focal_loss(x, labels, ignore_index=3, **options), move(logits)),
        (lambda x: ops.softmax_focal_loss(x, labels, gamma=1.5, **options), move(logits)),
        (lambda x: ops.dice_loss(x.view(7, 13, 100), dense.view(7, 13, 100), **options), move(logits)),
        *[(lambda x, f=f: f(x, others, **options), move(boxes)) for f in BOX_LOSSES],
    ]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reductions_have_the_same_bits_in_any_order(backend, reduction):
    """For any instruction set and any order of a CUDA kernel's threads."""
    runs = []
    for seed in range(4):
        backend.vary(seed)
        runs.append([value_and_gradient(*call) for call in calls(backend, 5, reduction)])
    for run in runs[1:]:
        for first, other in zip(runs[0], run, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(first, other))


@given(seed=seeds)
def test_reductions_agree_with_the_losses(backend, seed):
    backend.vary(seed)
    losses = [value_and_gradient(*call)[0].double() for call in calls(backend, seed, "none")]
    sums = [value_and_gradient(*call) for call in calls(backend, seed, "sum")]
    for loss, (total, _) in zip(losses, sums, strict=True):
        assert_close(total / loss.numel(), loss.mean())
    gradients = [value_and_gradient(*call)[1] for call in calls(backend, seed, "none")]
    for gradient, (_, of_sum) in zip(gradients, sums, strict=True):
        assert torch.equal(gradient, of_sum)


@given(x=st.lists(finite, min_size=1, max_size=9), t=st.floats(0, 1, width=32), gamma=gammas)
def test_sigmoid_focal_loss_is_finite(backend, x, t, gamma):
    x = torch.tensor(x, device=backend.device)
    for dtype in (torch.float32, torch.float64):
        target = torch.full_like(x, t, dtype=dtype)
        value, gradient = value_and_gradient(lambda x, t=target: ops.sigmoid_focal_loss(x, t, gamma=gamma), x.to(dtype))
        assert value.isfinite().all()
        assert (value >= 0).all()
        assert gradient.isfinite().all()


@given(x=st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=5), gamma=gammas, label=st.integers(0, 2))
def test_softmax_focal_loss_is_finite(backend, x, gamma, label):
    x = torch.tensor(x, device=backend.device) / 4  # the distance of two logits is a float too
    labels = torch.full((len(x),), label, device=backend.device)
    for dtype in (torch.float32, torch.float64):
        f = lambda x: ops.softmax_focal_loss(x, labels, gamma=gamma, reduction="none")  # noqa: E731
        value, gradient = value_and_gradient(f, x.to(dtype))
        assert value.isfinite().all()
        assert (value >= 0).all()
        assert gradient.isfinite().all()


@example(a=(0.0, -3.4e31, 0.0, 0.0), b=(0.0, 0.0, 0.0, 0.0))  # a side over eps is beyond the range
@given(a=st.tuples(finite, finite, finite, finite), b=st.tuples(finite, finite, finite, finite))
def test_box_losses_are_finite(backend, a, b):
    other = torch.tensor([b], device=backend.device)
    for f in BOX_LOSSES:
        value, gradient = value_and_gradient(lambda x, f=f: f(x, other), torch.tensor([a], device=backend.device))
        assert value.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["sigmoid_focal_loss", "softmax_focal_loss"])
def test_label_out_of_range(backend, name):
    loss = getattr(ops, name)
    x, labels = torch.zeros(3, 3, device=backend.device), torch.tensor([0, 9, 2], device=backend.device)
    if backend.name == "cpu":
        with pytest.raises(ValueError, match=r": .* row 1, got 9"):
            loss(x, labels)
    else:
        assert torch.equal(loss(x, labels), loss(x, labels, ignore_index=9))
        assert ops.device_errors(backend.device) == (1, (name, 1))
