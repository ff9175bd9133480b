import math

import pytest
import torch
from fastvision import ops
from fastvision.ops.box_iou import _ratio, _reference, _sides
from hypothesis import given
from hypothesis import strategies as st
from support import LAYOUTS, assert_close, few, lay_out, random_boxes, seeds

KINDS = ("generalized_box_iou", "distance_box_iou", "complete_box_iou")
reductions = st.sampled_from(["none", "mean", "sum"])


def loss_of(kind):
    return getattr(ops, f"{kind}_loss")


def reference(kind, a, b, eps):
    """1 - IoU form, where eps is added to the areas as well."""
    _, union, hull, apart, finite = _reference(a, b, True)
    shared = torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], -1)
    overlap = _sides(torch.where(finite[..., None], shared, 0)).prod(-1)
    iou, hull_area = _ratio(overlap, union + eps), hull.prod(-1)
    if kind == "generalized_box_iou":
        loss = 1 - iou + _ratio(hull_area - union, hull_area + eps)
    else:
        loss = 1 - iou + _ratio(apart.square().sum(-1), hull.square().sum(-1) + eps)
    if kind == "complete_box_iou":
        angles = [torch.atan2(*_sides(boxes).unbind(-1)) for boxes in (a, b)]
        v = (2 / math.pi * (angles[0] - angles[1])).square()
        loss = loss + _ratio(v, 1 - iou + v + eps).detach() * v
    return torch.where(finite, loss, 1)


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "shape": (*draw(st.sampled_from([(), (2,), (0,), (2, 3)])), draw(few)),
        "kind": draw(st.sampled_from(KINDS)),
        "dtype": draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])),
        "layouts": draw(st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS))),
        "reduction": draw(reductions),
        "eps": draw(st.sampled_from([0.0, 1e-7, 1e-3])),
        "needed": draw(st.sampled_from([(True, False), (False, True), (True, True)])),
    }


def inputs(backend, p):
    g = backend.vary(p["seed"])
    boxes = [random_boxes(g, *p["shape"], dtype=p["dtype"]) for _ in range(2)]
    return [lay_out(t.to(backend.device), layout) for t, layout in zip(boxes, p["layouts"])]


def reduced(losses, reduction):
    if reduction == "mean":
        return losses.sum() / max(losses.numel(), 1)
    return losses if reduction == "none" else losses.sum()


@given(p=problems())
def test_matches_reference(backend, p):
    a, b = inputs(backend, p)
    loss = loss_of(p["kind"])(a, b, p["reduction"], p["eps"])
    half = p["dtype"] in (torch.float16, torch.bfloat16)
    assert loss.dtype == (torch.float32 if half and p["reduction"] != "none" else p["dtype"])
    expected = reduced(reference(p["kind"], a.double().cpu(), b.double().cpu(), p["eps"]), p["reduction"])
    assert_close(loss, expected, scale=max(1, a.numel() / 100))


@given(p=problems())
def test_gradient_matches_reference(backend, p):
    p = {**p, "dtype": torch.float64}
    ours = [t.detach().requires_grad_(needed) for t, needed in zip(inputs(backend, p), p["needed"])]
    theirs = [t.detach().cpu().requires_grad_(t.requires_grad) for t in ours]
    loss = loss_of(p["kind"])(*ours, p["reduction"], p["eps"])
    # As far as the definition's own gradient goes: a clamped side passes on a gradient at exactly 0.
    expected = reduced(reference(p["kind"], *theirs, p["eps"]), p["reduction"])
    g = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(p["seed"]))
    wanted = [t for t in ours if t.requires_grad], [t for t in theirs if t.requires_grad]
    for x, y in zip(
        torch.autograd.grad(loss, wanted[0], g.to(backend.device)), torch.autograd.grad(expected, wanted[1], g)
    ):
        assert_close(x, y)


# Not the complete one: its trade-off factor is a constant, so that differences are not its gradient.
@pytest.mark.parametrize("kind", KINDS[:2])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_gradcheck(backend, kind, reduction):
    g = backend.vary(3)
    a, b = (torch.rand(3, 2, generator=g, dtype=torch.float64) for _ in range(2))
    a, b = (torch.cat([c, c + 0.5 + torch.rand(3, 2, generator=g, dtype=torch.float64)], 1) for c in (a, b))
    a, b = (t.to(backend.device).requires_grad_() for t in (a, b))
    torch.autograd.gradcheck(lambda a, b: loss_of(kind)(a, b, reduction), (a, b))


@given(seed=seeds, reduction=reductions)
def test_is_1_minus_the_iou_where_eps_is_nothing(backend, seed, reduction):
    g = backend.vary(seed)
    a, b = (random_boxes(g, 40).float().to(backend.device) for _ in range(2))
    for kind in KINDS:
        options = {} if kind == KINDS[0] else {"eps": 0.0}
        expected = reduced(1 - getattr(ops, kind)(a, b, aligned=True, **options).double(), reduction)
        assert_close(loss_of(kind)(a, b, reduction, 0.0), expected, scale=5)


@given(seed=seeds, reduction=reductions)
def test_finite_at_any_scale(backend, seed, reduction):
    g = backend.vary(seed)
    scale = 10.0 ** torch.randint(-45, 38, (20, 2), generator=g).repeat(1, 2)  # of each axis
    for kind in KINDS:
        for eps in (0.0, 1e-7):
            a, b = (random_boxes(g, 20) / 2000 * scale for _ in range(2))
            a, b = (t.float().to(backend.device).requires_grad_() for t in (a, b))
            loss = loss_of(kind)(a, b, reduction, eps)
            assert loss.isfinite().all()
            assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss.sum(), (a, b)))


def test_boxes_that_are_not_finite_cost_1(backend):
    a = torch.tensor([[0.0, 0, torch.inf, 1], [torch.nan, 0, 1, 1], [0, 0, 2, 2]], device=backend.device)
    for kind in KINDS:
        boxes = a.clone().requires_grad_()
        loss = loss_of(kind)(boxes, a.nan_to_num(posinf=2.0))
        assert loss.tolist() == [1, 1, 0]
        loss.sum().backward()
        assert boxes.grad[:2].eq(0).all()


def test_integer_boxes(backend):
    a, b = torch.tensor([[0, 0, 50_000, 50_000]]), torch.tensor([[25_000, 0, 75_000, 50_000]])
    loss = ops.generalized_box_iou_loss(a.int().to(backend.device), b.int().to(backend.device))
    assert loss.dtype == torch.float32
    assert_close(loss, torch.tensor([1 - 1 / 3]))


def test_gradient_of_the_forward_pass_is_not_shared(backend):
    g = backend.vary(0)
    a, b = (random_boxes(g, 30).float().to(backend.device) for _ in range(2))
    a.requires_grad_()
    loss = ops.generalized_box_iou_loss(a, b, "sum")
    loss.backward(retain_graph=True)
    once = a.grad.clone()
    loss.backward()
    assert torch.equal(a.grad, 2 * once)


def test_second_gradient_raises(backend):
    a = torch.tensor([[0.0, 0, 2, 2]], device=backend.device, requires_grad=True)
    (gradient,) = torch.autograd.grad(ops.distance_box_iou_loss(a, a.detach() + 1, "sum"), a, create_graph=True)
    with pytest.raises(RuntimeError, match="box_iou_loss_backward: this op has no gradient"):
        gradient.sum().backward()


def test_same_bits_for_any_threads_and_instruction_set():
    g = torch.Generator().manual_seed(0)
    a, b = (random_boxes(g, 5000).float() for _ in range(2))
    for kind in KINDS:
        results = []
        for threads in (1, 2, 3):
            for isa in ("baseline", "avx2", "avx512"):
                torch.set_num_threads(threads)
                try:
                    torch.ops.fastvision.set_cpu_isa(isa)
                except RuntimeError:  # this machine has it not
                    continue
                boxes = a.clone().requires_grad_()
                loss = loss_of(kind)(boxes, b, "mean")
                results.append((loss.detach(), *torch.autograd.grad(loss, boxes)))
        for other in results[1:]:
            assert all(torch.equal(x, y) for x, y in zip(results[0], other))
