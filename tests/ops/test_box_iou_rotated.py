import math
from functools import partial

import pytest
import torch
from fastvision import ops
from fastvision.ops.box_iou_rotated import box_iou_rotated_reference
from hypothesis import example, given
from hypothesis import strategies as st
from support import LAYOUTS, assert_close, few, lay_out, random_boxes, random_rotated_boxes, seeds


@st.composite
def problems(draw):
    rows = draw(few)
    aligned = draw(st.booleans())
    return {
        "seed": draw(seeds),
        "batch": draw(st.sampled_from([(), (), (2,), (0,), (2, 3)])),
        "rows": rows,
        "cols": rows if aligned else draw(few),
        "convention": {
            "aligned": aligned,
            "angle": draw(st.sampled_from(["deg", "rad"])),
            "clockwise": draw(st.booleans()),
        },
        "dtype": draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])),
        "layouts": draw(st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS))),
    }


def inputs(backend, p):
    g = backend.vary(p["seed"])
    boxes = [random_rotated_boxes(g, *p["batch"], n) for n in (p["rows"], p["cols"])]
    if p["convention"]["angle"] == "rad":
        for t in boxes:
            t[..., 4] *= math.pi / 180
    return [lay_out(t.to(p["dtype"]).to(backend.device), layout) for t, layout in zip(boxes, p["layouts"])]


@given(p=problems())
def test_matches_reference(backend, p):
    a, b = inputs(backend, p)
    out = ops.box_iou_rotated(a, b, **p["convention"])
    assert out.dtype == p["dtype"]
    assert ((out >= 0) & (out <= 1)).all()
    assert_close(out, box_iou_rotated_reference(a.double().cpu(), b.double().cpu(), **p["convention"]))


@given(seed=seeds, scale=st.sampled_from([1e-3, 1.0, 1e5]), offset=st.sampled_from([0.0, 1e3, 1e6]))
def test_float32_is_exact_to_1e_5_anywhere(backend, seed, scale, offset):
    """Nearly equal, nested and touching boxes and slivers; the offset rounds them, which the reference sees too."""
    g = backend.vary(seed)
    a = random_rotated_boxes(g, 24)
    b = torch.cat([a + torch.randn(24, 5, generator=g) * 10.0 ** torch.randint(-9, 0, (24, 1), generator=g), a, a])
    b[24:36, 2:4] *= torch.rand(12, 2, generator=g).double() * 2  # concentric
    side = (b[36:48, 4] * math.pi / 180).cos(), -(b[36:48, 4] * math.pi / 180).sin()
    b[36:48, :2] += torch.stack(side, -1) * b[36:48, 2:3]  # beside each other
    b[48:, 4] += 90
    a, b = (torch.cat([t[:, :4] * scale, t[:, 4:]], 1) for t in (a, b))
    a[:, :2] += offset
    b[:, :2] += offset
    a, b = a.float(), b.float()
    expected = box_iou_rotated_reference(a.double(), b.double())
    out = ops.box_iou_rotated(a.to(backend.device), b.to(backend.device)).double().cpu()
    assert (out - expected).abs().max() <= 1e-5


@given(seed=seeds, exponent=st.integers(-43, 36), dtype=st.sampled_from([torch.float32, torch.float64]))
@example(seed=6155, exponent=-7, dtype=torch.float64)  # a long way apart
def test_any_scale(backend, seed, exponent, dtype):
    g = backend.vary(seed)
    scale = torch.tensor([10.0**exponent] * 4 + [1.0], dtype=torch.float64)
    if dtype == torch.float64:
        scale[:4] **= 7
    a, b = ((random_rotated_boxes(g, 20) * scale).to(dtype) for _ in range(2))
    out = ops.box_iou_rotated(a.to(backend.device), b.to(backend.device))
    assert_close(out, box_iou_rotated_reference(a.double() / scale, b.double() / scale))


def generic(g, n):
    """No edges that coincide, no corners that touch."""
    parts = (torch.rand(n, 2, generator=g) * 2, torch.rand(n, 2, generator=g) * 3 + 1, torch.rand(n, 1, generator=g))
    return torch.cat([parts[0], parts[1], parts[2] * 360], 1).double()


@given(seed=seeds, aligned=st.booleans(), clockwise=st.booleans(), angle=st.sampled_from(["deg", "rad"]))
def test_gradient_matches_reference(backend, seed, aligned, clockwise, angle):
    g = backend.vary(seed)
    convention = {"aligned": aligned, "clockwise": clockwise, "angle": angle}
    a, b = generic(g, 33), generic(g, 33 if aligned else 17)
    for dtype, scale in ((torch.float64, 1e3), (torch.float32, 10.0)):
        ours = [t.to(dtype).to(backend.device).requires_grad_() for t in (a, b)]
        theirs = [t.detach().double().cpu().requires_grad_() for t in ours]
        expected = box_iou_rotated_reference(*theirs, **convention)
        grad = torch.randn(expected.shape, generator=g)
        for actual, want in zip(
            torch.autograd.grad(ops.box_iou_rotated(*ours, **convention), ours, grad.to(ours[0])),
            torch.autograd.grad(expected, theirs, grad.double()),
        ):
            assert_close(actual, want, scale)


def test_gradcheck(backend):
    g = backend.vary(3)
    a, b = (generic(g, 3).to(backend.device).requires_grad_() for _ in range(2))
    for aligned in (False, True):
        for clockwise in (False, True):
            f = partial(ops.box_iou_rotated, aligned=aligned, clockwise=clockwise)
            torch.autograd.gradcheck(f, (a, b))


def test_double_backward_is_refused(backend):
    a = torch.tensor([[0.0, 0, 4, 2, 10]], device=backend.device, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.box_iou_rotated(a, a.detach() + 1).sum(), a, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradient"):
        grad.sum().backward()


@given(seed=seeds)
def test_gradient_of_a_pair_is_finite_at_any_scale(backend, seed):
    g = backend.vary(seed)
    scale = torch.ones(20, 5, dtype=torch.float64)
    scale[:, :4] = 10.0 ** torch.randint(-44, 37, (20, 1), generator=g).double() / 100
    a, b = ((random_rotated_boxes(g, 20) * scale).float() for _ in range(2))
    b[::2] = a[::2]
    a, b = (t.to(backend.device).requires_grad_() for t in (a, b))
    for grad in torch.autograd.grad(ops.box_iou_rotated(a, b, aligned=True).sum(), (a, b)):
        assert grad.isfinite().all()


@given(seed=seeds)
def test_angle_zero_is_box_iou(backend, seed):
    """Integer coordinates, so that edges coincide often; gradients too, which share ties."""
    g = backend.vary(seed)
    corners = random_boxes(g, 40, size=12.0).round()
    corners = torch.cat(
        [torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])], 1
    )
    corners[:, 2:] += (corners[:, 2:] == corners[:, :2]).double()
    grids = []
    for f in (ops.box_iou, ops.box_iou_rotated):
        x = corners.to(backend.device).requires_grad_()
        boxes = ops.box_convert(x, "xyxy", "cxcywh")
        boxes = torch.cat([boxes, torch.zeros_like(boxes[:, :1])], 1) if f is ops.box_iou_rotated else x
        out = f(boxes[:20], boxes[20:])
        grids.append((out, torch.autograd.grad(out.square().sum(), x)[0]))
    assert_close(grids[1][0], grids[0][0])
    assert_close(grids[1][1], grids[0][1])


@given(seed=seeds, turn=st.floats(-180, 180), factor=st.sampled_from([1e-3, 0.3, 7.0, 1e4]))
def test_properties(backend, seed, turn, factor):
    """Symmetric; unchanged by moving, scaling or turning both; 1 with itself, 0 apart."""
    g = backend.vary(seed)
    a, b = (random_rotated_boxes(g, 20).to(backend.device) for _ in range(2))
    iou = ops.box_iou_rotated(a, b)
    assert_close(ops.box_iou_rotated(b, a).T, iou)
    assert_close(ops.box_iou_rotated(*(t * torch.tensor([factor] * 4 + [1.0]).to(t) for t in (a, b))), iou, 10)
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    matrix = torch.tensor([[c, -s], [s, c]]).to(a)  # by `turn` counter-clockwise as seen with y down
    turned = [torch.cat([t[:, :2] @ matrix, t[:, 2:4], t[:, 4:] + turn], 1) for t in (a, b)]
    assert_close(ops.box_iou_rotated(*turned), iou, 1e3)
    own = ops.box_iou_rotated(a.float(), a.float(), aligned=True)
    assert torch.equal(own, (a[:, 2:4] > 0).all(1).float())
    assert not ops.box_iou_rotated(a, b + torch.tensor([1e4, 0, 0, 0, 0]).to(b)).any()


def test_conventions(backend):
    """By 45 degrees counter-clockwise as seen, the width points right and up: to smaller y."""
    bar = torch.tensor([[0.0, 0, 10, 1, 45]], device=backend.device)
    square = torch.tensor([[3.0, -3, 1, 1, 0], [3.0, 3, 1, 1, 0]], device=backend.device)
    assert (ops.box_iou_rotated(bar, square)[0] > 0).tolist() == [True, False]
    assert (ops.box_iou_rotated(bar, square, clockwise=True)[0] > 0).tolist() == [False, True]
    radians = bar * torch.tensor([1, 1, 1, 1, math.pi / 180], device=backend.device)
    assert_close(ops.box_iou_rotated(radians, square, angle="rad"), ops.box_iou_rotated(bar, square))


@given(seed=seeds)
def test_huge_and_exact_angles(backend, seed):
    g = backend.vary(seed)
    boxes = random_rotated_boxes(g, 20).to(backend.device)
    boxes[:, 4] = (boxes[:, 4] / 15).round() * 15
    more = boxes.clone()
    more[:, 4] += 360 * 2.0 ** torch.randint(0, 40, (20,), generator=g).to(boxes)
    assert torch.equal(ops.box_iou_rotated(boxes, more), ops.box_iou_rotated(boxes, boxes))
    for unit in ("deg", "rad"):
        more[:, 4] = 10.0 ** torch.arange(20, device=backend.device) * 1e15
        out = ops.box_iou_rotated(boxes, more, angle=unit)
        assert ((out >= 0) & (out <= 1)).all()


def test_integers_and_messages(backend):
    boxes = torch.tensor([[0, 0, 4, 2, 0], [0, 0, 4, 2, 90]], device=backend.device)
    out = ops.box_iou_rotated(boxes, boxes)
    assert out.dtype == torch.float32
    assert_close(out, torch.tensor([[1, 1 / 3], [1 / 3, 1]]))
    with pytest.raises(ValueError, match=r"box_iou_rotated: angle: expected 'deg' or 'rad', got 'degrees'"):
        ops.box_iou_rotated(boxes, boxes, angle="degrees")
    with pytest.raises(TypeError, match="boxes2: expected dtype"):
        ops.box_iou_rotated(boxes, boxes.float())
    with pytest.raises(ValueError, match=r"boxes1: expected shape \(..., N, 5\), got \(2, 4\)"):
        ops.box_iou_rotated(boxes[:, :4].float(), boxes.float())
    with pytest.raises(ValueError, match="because aligned=True"):
        ops.box_iou_rotated(boxes.float(), boxes[:1].float(), aligned=True)


def test_not_finite_is_zero(backend):
    boxes = torch.tensor([[1.0, 1, 4, 2, 30]], device=backend.device)
    for bad in (math.nan, math.inf, -math.inf):
        for k in range(5):
            other = boxes.clone()
            other[0, k] = bad
            a, b = boxes.clone().requires_grad_(), other.requires_grad_()
            out = ops.box_iou_rotated(a, b)
            assert out.item() == 0
            for grad in torch.autograd.grad(out, (a, b)):
                assert not grad.any()
