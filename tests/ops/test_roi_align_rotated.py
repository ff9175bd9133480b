import math
from functools import partial

import pytest
import torch
from fastvision import ops
from fastvision.ops.roi_align_rotated import roi_align_rotated_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, FORMATS, LAYOUTS, assert_close, lay_out, random_boxes, random_rotated_boxes, seeds

BINS = st.sampled_from([1, 2, 3, 7])


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "batch": draw(st.integers(1, 3)),
        "channels": draw(st.sampled_from([0, 1, 2, 7, 8, 16, 33, 65])),
        "map": draw(st.tuples(st.integers(1, 20), st.integers(1, 20))),
        "rois": draw(st.sampled_from([0, 1, 3, 7])),
        "size": draw(st.tuples(BINS, BINS)),
        "arguments": {
            "spatial_scale": draw(st.sampled_from([0.25, 0.5, 1.0, 3.0])),
            "sampling_ratio": draw(st.sampled_from([-1, 0, 1, 2, 3])),
            "aligned": draw(st.booleans()),
            "angle": draw(st.sampled_from(["deg", "rad"])),
            "clockwise": draw(st.booleans()),
        },
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "format": draw(st.sampled_from(FORMATS)),
        "layout": draw(st.sampled_from(LAYOUTS)),
        "bad": draw(st.booleans()),
    }


def regions(g, p):
    boxes = random_rotated_boxes(g, p["rois"], size=30.0)
    boxes[:, :2] -= 5
    if p["arguments"]["angle"] == "rad":
        boxes[:, 4] *= math.pi / 180
    if p["bad"] and p["rois"]:
        boxes[0, p["seed"] % 5] = torch.nan
        boxes[-1, p["seed"] % 3 + 2] = torch.inf
    images = torch.randint(p["batch"], (p["rois"], 1), generator=g)
    return torch.cat([images, boxes], 1).to(torch.float64 if p["dtype"] == torch.float64 else torch.float32)


def feature_map(g, p):
    x = torch.randn(p["batch"], p["channels"], *p["map"], generator=g, dtype=torch.float64).to(p["dtype"])
    return x.to(memory_format=p["format"])


@given(p=problems())
def test_matches_reference(backend, p):
    g = backend.vary(p["seed"])
    x, rois = feature_map(g, p), regions(g, p)
    f = partial(ops.roi_align_rotated, output_size=p["size"], **p["arguments"])
    out = f(lay_out(x.to(backend.device), p["layout"]), rois.to(backend.device))
    assert out.dtype == p["dtype"]
    assert_close(out, roi_align_rotated_reference(x.double(), rois.double(), p["size"], **p["arguments"]))
    plain = f(x.to(backend.device), rois.to(backend.device))
    assert p["channels"] < 2 or plain.is_contiguous(memory_format=p["format"])
    assert torch.equal(plain, f(x.to(backend.device), lay_out(rois.to(backend.device), p["layout"])))
    other = x.contiguous(memory_format=FORMATS[p["format"] == FORMATS[0]])
    assert_close(f(other.to(backend.device), rois.to(backend.device)), plain)


@pytest.mark.parametrize("format", FORMATS)
def test_many_samples(backend, format):
    """More than the CPU keeps at a time."""
    x = torch.randn(1, 3, 20, 20, generator=backend.vary(3), dtype=torch.float64).to(memory_format=format)
    rois = torch.tensor([[0, 9, 8, 30, 14, 30], [0, 10, 10, 5, 9, -70]], dtype=torch.float64)
    out = ops.roi_align_rotated(x.to(backend.device), rois.to(backend.device), (30, 20), sampling_ratio=8)
    torch.testing.assert_close(out.cpu(), roi_align_rotated_reference(x, rois, (30, 20), sampling_ratio=8))


@given(p=problems())
def test_gradient_matches_reference(backend, p):
    g = backend.vary(p["seed"])
    x, rois = feature_map(g, p), regions(g, p)
    ours = lay_out(x.to(backend.device), p["layout"]).requires_grad_()
    theirs = x.double().requires_grad_()
    out = ops.roi_align_rotated(ours, rois.to(backend.device), p["size"], **p["arguments"])
    grad = torch.randn(out.shape, generator=g, dtype=torch.float64).to(p["dtype"])
    (gradient,) = torch.autograd.grad(out, ours, grad.to(backend.device), retain_graph=True)
    expected = torch.zeros_like(theirs)
    reference = roi_align_rotated_reference(theirs, rois.double(), p["size"], **p["arguments"])
    if reference.requires_grad:
        (expected,) = torch.autograd.grad(reference, theirs, grad.double())
    # As many terms meet in a pixel as regions cover it.
    assert_close(gradient, expected, scale=4.0)
    (again,) = torch.autograd.grad(out, ours, lay_out(grad.to(backend.device), p["layout"]))
    assert_close(again, gradient)


@pytest.mark.parametrize("format", FORMATS)
def test_gradcheck(backend, format):
    g = backend.vary(5)
    x = torch.randn(2, 3, 5, 6, generator=g, dtype=torch.float64).to(memory_format=format)
    x = x.to(backend.device).requires_grad_()
    rois = torch.cat([torch.tensor([[0.0], [1], [1], [0]]), random_rotated_boxes(g, 4, size=10.0)], 1).double()
    f = lambda x: ops.roi_align_rotated(x, rois.to(x.device), (2, 3), 0.5, 2)  # noqa: E731
    torch.autograd.gradcheck(f, (x,))
    torch.autograd.gradgradcheck(f, (x,))


def test_rois_have_no_gradient(backend):
    x = torch.rand(1, 2, 4, 4, device=backend.device, requires_grad=True)
    rois = torch.tensor([[0.0, 1, 1, 3, 3, 20]], device=backend.device, requires_grad=True)
    with pytest.raises(RuntimeError, match="roi_align_rotated: rois: no gradient"):
        ops.roi_align_rotated(x, rois, 2).sum().backward()


@given(seed=seeds, aligned=st.booleans(), ratio=st.sampled_from([-1, 1, 2]))
def test_angle_zero_is_roi_align(backend, seed, aligned, ratio):
    g = backend.vary(seed)
    boxes = random_boxes(g, 7, size=20.0)
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 0.01)
    images = torch.randint(2, (7, 1), generator=g).double()
    rois = torch.cat([images, ops.box_convert(boxes, "xyxy", "cxcywh"), torch.zeros(7, 1)], 1).to(backend.device)
    x = torch.randn(2, 3, 15, 17, generator=g).double().to(backend.device)
    if not aligned:
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 2.0)  # smaller ones grow about their centre
        rois[:, 1:5] = ops.box_convert(boxes, "xyxy", "cxcywh").to(backend.device)
    upright = torch.cat([images, boxes], 1).to(backend.device)
    out = ops.roi_align_rotated(x, rois, 3, 0.5, ratio, aligned=aligned)
    close = (boxes[:, 2:] - boxes[:, :2]) * 0.5 / 3
    steady = ((close - close.round()).abs() > 1e-9).all(1).to(backend.device)  # else rounding decides on ceil()
    assert_close(out[steady], ops.roi_align(x, upright, 3, 0.5, ratio, aligned)[steady], 10)


@given(seed=seeds)
def test_quarter_turns_turn_the_output(backend, seed):
    """A region turned counter-clockwise by 90 degrees, its sides swapped, reads the same bins in another order."""
    g = backend.vary(seed)
    x = torch.randn(1, 3, 20, 20, generator=g).double().to(backend.device)
    boxes = torch.cat([torch.rand(5, 2, generator=g) * 20, torch.rand(5, 2, generator=g) * 9 + 1], 1).double()
    angle = torch.rand(5, 1, generator=g).double() * 360
    rois = torch.cat([torch.zeros(5, 1), boxes, angle], 1).to(backend.device)
    turned = torch.cat([torch.zeros(5, 1), boxes[:, [0, 1, 3, 2]], angle + 90], 1).to(backend.device)
    out, again = ops.roi_align_rotated(x, rois, (2, 3), 1.0, 2), ops.roi_align_rotated(x, turned, (3, 2), 1.0, 2)
    assert_close(again, out.rot90(-1, (2, 3)), 10)
    assert_close(
        ops.roi_align_rotated(x, turned, (3, 2), 1.0, 2, clockwise=True),
        ops.roi_align_rotated(x, turned * torch.tensor([1, 1, 1, 1, 1, -1]).to(x), (3, 2), 1.0, 2),
        10,
    )


def test_lists_and_16_bit(backend):
    """Float32 regions beside 16-bit features, where 2049 is not a float16."""
    g = backend.vary(0)
    x = torch.randn(2, 8, 9, 9, generator=g).to(backend.device)
    boxes = random_rotated_boxes(g, 4, size=8.0).float().to(backend.device)
    rois = torch.cat([torch.tensor([[0.0], [1], [1], [1]], device=backend.device), boxes], 1)
    assert torch.equal(ops.roi_align_rotated(x, [boxes[:1], boxes[1:]], 3), ops.roi_align_rotated(x, rois, 3))
    wide = torch.arange(2050.0, device=backend.device).view(-1, 1, 1, 1).expand(2050, 1, 4, 4).bfloat16()
    roi = torch.tensor([[2049.0, 2, 2, 3, 3, 30]], device=backend.device)
    assert ops.roi_align_rotated(wide, roi, 1).item() == torch.tensor(2049.0).bfloat16().item()


def test_nan_reaches_exactly_the_bins_that_read_it(backend):
    x = torch.zeros(1, 16, 12, 12, device=backend.device)
    x[0, :, 5, 5] = torch.nan
    for format in FORMATS:
        # Turned by 90 degrees: bin (i, j) reads row 10.5 - 2 j, column 2 i + 0.5 and those after.
        roi = torch.tensor([[0.0, 6, 6, 12, 12, 90]], device=backend.device)
        out = ops.roi_align_rotated(x.contiguous(memory_format=format), roi, 6, 1.0, 1)
        assert out.isnan()[0, 7].nonzero().tolist() == [[2, 3]]


@pytest.mark.parametrize("format", FORMATS)
def test_huge_regions_are_quick(backend, format):
    """Of 10^60 samples only those on the map are visited."""
    x = torch.rand(2, 4, 8, 8, device=backend.device).contiguous(memory_format=format).requires_grad_()
    for size in (1e5, 1e9, 1e30, 3e38):
        for aligned in (False, True):
            roi = torch.tensor([[0.0, size / 5, -size / 7, size, size, 33]], device=backend.device)
            out = ops.roi_align_rotated(x, roi, 3, 1.0, -1, aligned=aligned)
            out.sum().backward()
            assert out.abs().max() <= (1e-3 if size == 1e5 else 1e-6)
            assert x.grad.isfinite().all()


def test_bad_image_index(backend, monkeypatch):
    x = torch.rand(2, 4, 8, 8, device=backend.device, requires_grad=True)
    rois = torch.tensor([[0.0, 4, 4, 4, 4, 10], [1.0, 3, 3, 5, 5, 200]]).repeat(20, 1)
    good, rest = rois.clone(), [i for i in range(40) if i != 17]
    message = r"roi_align_rotated: rois: expected an integer image index in 0\.\.1 in row 17"
    for bad in (2.0, -1.0, 0.5, 3e9, torch.nan, torch.inf):
        rois[17, 0] = bad
        if backend.name == "cpu":
            with pytest.raises(ValueError, match=message):
                ops.roi_align_rotated(x, rois, 3)
            continue
        out = ops.roi_align_rotated(x, rois.to(backend.device), 3)
        assert not out[17].any()
        expected = ops.roi_align_rotated(x, good[rest].to(backend.device), 3)
        assert torch.equal(out[rest], expected)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        assert_close(gradient, torch.autograd.grad(expected.sum(), x)[0])
        assert ops.device_errors(backend.device) == (1, ("roi_align_rotated", 17))
        assert ops.device_errors(backend.device) == (0, None)
    monkeypatch.setenv("FASTVISION_VALIDATE", "1")
    with pytest.raises(ValueError, match=message):
        ops.roi_align_rotated(x, rois.to(backend.device), 3)
