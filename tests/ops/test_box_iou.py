from functools import partial

import pytest
import torch
from fastvision import ops
from hypothesis import given
from hypothesis import strategies as st
from support import LAYOUTS, assert_close, few, lay_out, random_boxes, seeds

KINDS = ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou")


@st.composite
def problems(draw):
    rows = draw(few)
    aligned = draw(st.booleans())
    return {
        "seed": draw(seeds),
        "batch": draw(st.sampled_from([(), (), (2,), (0,), (2, 3)])),
        "rows": rows,
        "cols": rows if aligned else draw(few),
        "aligned": aligned,
        "kind": draw(st.sampled_from(KINDS)),
        "dtype": draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])),
        "layouts": draw(st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS))),
    }


def inputs(backend, p):
    g = backend.vary(p["seed"])
    a = random_boxes(g, *p["batch"], p["rows"], dtype=p["dtype"])
    b = random_boxes(g, *p["batch"], p["cols"], dtype=p["dtype"])
    return [lay_out(t.to(backend.device), layout) for t, layout in zip((a, b), p["layouts"])]


def reference(name):
    return getattr(module_of(), f"{name}_reference")


def module_of():
    import importlib

    return importlib.import_module("fastvision.ops.box_iou")


@given(p=problems())
def test_matches_reference(backend, p):
    a, b = inputs(backend, p)
    out = getattr(ops, p["kind"])(a, b, aligned=p["aligned"])
    assert out.dtype == p["dtype"]
    assert_close(out, reference(p["kind"])(a.double().cpu(), b.double().cpu(), aligned=p["aligned"]))


@given(p=problems())
def test_gradient_matches_reference(backend, p):
    p = {**p, "dtype": torch.float64}
    ours = [t.detach().requires_grad_() for t in inputs(backend, p)]
    theirs = [t.detach().cpu().requires_grad_() for t in ours]
    out = getattr(ops, p["kind"])(*ours, aligned=p["aligned"])
    expected = reference(p["kind"])(*theirs, aligned=p["aligned"])
    g = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(p["seed"]))
    for ours_grad, theirs_grad in zip(
        torch.autograd.grad(out, ours, g.to(backend.device)), torch.autograd.grad(expected, theirs, g)
    ):
        assert_close(ours_grad, theirs_grad)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(backend, kind):
    g = backend.vary(3)
    a, b = (torch.rand(3, 2, generator=g, dtype=torch.float64) for _ in range(2))
    a, b = (torch.cat([c, c + 0.5 + torch.rand(3, 2, generator=g, dtype=torch.float64)], 1) for c in (a, b))
    a, b = (t.to(backend.device).requires_grad_() for t in (a, b))
    for aligned in (False, True):
        # The trade-off factor of the complete form is a constant, so differences do not see its gradient.
        if kind != "complete_box_iou":
            torch.autograd.gradcheck(partial(getattr(ops, kind), aligned=aligned), (a, b))


@given(seed=seeds, scale=st.sampled_from([1e-38, 1e-30, 1e-12, 1.0, 1e12, 1e19, 1e38]))
def test_any_scale_of_float32(backend, seed, scale):
    g = backend.vary(seed)
    a, b = ((random_boxes(g, 20) / 40 * scale).float().to(backend.device) for _ in range(2))
    for kind in KINDS[:2]:
        out = getattr(ops, kind)(a, b)
        assert_close(out, reference(kind)(a.double().cpu(), b.double().cpu()))


@given(seed=seeds)
def test_gradient_is_finite_at_any_scale(backend, seed):
    g = backend.vary(seed)
    scale = 10.0 ** torch.randint(-45, 38, (20, 2), generator=g).repeat(1, 2)  # of each axis
    for kind in KINDS:
        a, b = ((random_boxes(g, 20) / 2000 * scale).float().to(backend.device).requires_grad_() for _ in range(2))
        out = getattr(ops, kind)(a, b, aligned=True)
        assert out.isfinite().all()
        for grad in torch.autograd.grad(out.sum(), (a, b)):
            assert grad.isfinite().all()


@pytest.mark.parametrize("op", [ops.distance_box_iou, ops.complete_box_iou])
def test_equal_boxes_without_eps(backend, op):
    boxes = torch.tensor([[0.0, 0, 4, 4], [1, 1, 3, 7]], device=backend.device, requires_grad=True)
    overlap = op(boxes, boxes.detach(), eps=0.0, aligned=True)
    assert overlap.tolist() == [1, 1]
    overlap.sum().backward()
    assert not boxes.grad.any()


@given(seed=seeds, exponent=st.integers(-40, 40), by=st.integers(-1000, 1000))
def test_symmetry_bounds_scale_and_translation(backend, seed, exponent, by):
    """Coordinates are multiples of 1/64, so that scaling by a power of two and translation are exact."""
    g = backend.vary(seed)
    a, b = ((random_boxes(g, n) * 64).round().div(64).float().to(backend.device) for n in (17, 12))
    for kind, low in zip(KINDS, (0.0, -1.0, -1.0, -2.0)):
        f = getattr(ops, kind)
        out = f(a, b)
        assert torch.equal(out, f(b, a).T)
        assert ((out >= low) & (out <= 1)).all()
        if kind in KINDS[:2]:  # the others add eps to a squared length
            assert torch.equal(out, f(a * 2.0**exponent, b * 2.0**exponent))
        torch.testing.assert_close(out, f(a + by, b + by), rtol=1e-5, atol=1e-5)
    proper = (a[:, 2:] > a[:, :2]).all(1)
    assert (ops.box_iou(a, a, aligned=True) == proper.float()).all()
