import pytest
import torch
from fastvision import ops
from fastvision.ops.roi_pool import roi_pool_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, FORMATS, LAYOUTS, Backend, assert_close, lay_out, random_boxes, seeds


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "batch": draw(st.integers(1, 3)),
        "channels": draw(st.sampled_from([0, 1, 2, 3, 7, 16, 33, 65])),
        "map": draw(st.tuples(st.integers(1, 20), st.integers(1, 20))),
        "rois": draw(st.sampled_from([0, 1, 3, 7, 65])),
        "size": draw(st.tuples(st.sampled_from([1, 2, 3, 7, 9]), st.sampled_from([1, 2, 3, 7, 9, 17]))),
        "scale": draw(st.sampled_from([0.25, 0.5, 1.0, 3.0])),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "format": draw(st.sampled_from(FORMATS)),
        "layout": draw(st.sampled_from(LAYOUTS)),
        "levels": draw(st.sampled_from([4, 1000])),
        "nan": draw(st.booleans()),
    }


def inputs(backend, p):
    g = backend.vary(p["seed"])
    # Few distinct values, so that maxima are often equal.
    x = torch.randint(-p["levels"], p["levels"], (p["batch"], p["channels"], *p["map"]), generator=g) / 8
    x = x.to(p["dtype"])
    # Quarters of a pixel: every product with the scale, and so every rounding, is exact in float32.
    boxes = (random_boxes(g, p["rois"], size=30.0) * 4).round() / 4 - 5
    if p["nan"]:
        x = torch.where(torch.rand(x.shape, generator=g) < 0.05, torch.nan, x)
        boxes[:1, 1], boxes[1:2, 2] = torch.nan, torch.inf
    rois = torch.cat([torch.randint(p["batch"], (p["rois"], 1), generator=g), boxes], 1)
    rois = rois.to(torch.float64 if p["dtype"] == torch.float64 else torch.float32)
    return x.to(memory_format=p["format"]), rois


@given(p=problems())
def test_matches_reference(backend, p):
    x, rois = inputs(backend, p)
    moved = lay_out(x.to(backend.device), p["layout"])
    out = ops.roi_pool(moved, rois.to(backend.device), p["size"], p["scale"])
    assert out.dtype == p["dtype"]
    expected = roi_pool_reference(x.double(), rois, p["size"], p["scale"])
    torch.testing.assert_close(out.double().cpu(), expected, rtol=0, atol=0, equal_nan=True)
    other = x.contiguous(memory_format=FORMATS[p["format"] == FORMATS[0]])
    same = ops.roi_pool(other.to(backend.device), rois.to(backend.device), p["size"], p["scale"])
    torch.testing.assert_close(out, same, rtol=0, atol=0, equal_nan=True)
    with_places = ops.roi_pool(moved.detach().requires_grad_(), rois.to(backend.device), p["size"], p["scale"])
    torch.testing.assert_close(out, with_places.detach(), rtol=0, atol=0, equal_nan=True)
    assert p["channels"] < 2 or p["layout"] != "contiguous" or out.is_contiguous(memory_format=p["format"])


@given(p=problems())
def test_gradient_matches_reference(backend, p):
    p = {**p, "nan": False}
    x, rois = inputs(backend, p)
    # Distinct values: where maxima are equal, amax shares the gradient and roi_pool gives it to the first.
    g = torch.Generator().manual_seed(p["seed"])
    x = torch.randperm(x.numel(), generator=g).view(x.shape).double().to(memory_format=p["format"])
    ours, theirs = x.to(backend.device).requires_grad_(), x.clone().requires_grad_()
    out = ops.roi_pool(ours, rois.double().to(backend.device), p["size"], p["scale"])
    expected = roi_pool_reference(theirs, rois.double(), p["size"], p["scale"])
    grad = torch.randn(out.shape, generator=g, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(out, ours, grad.to(backend.device))
    wanted = torch.zeros_like(x)
    if expected.requires_grad:
        (wanted,) = torch.autograd.grad(expected, theirs, grad)
    assert_close(gradient, wanted)


def test_gradcheck_and_no_second_gradient(backend):
    x = torch.randperm(60).view(1, 2, 5, 6).double().to(backend.device).requires_grad_()
    rois = torch.tensor([[0.0, 0, 0, 4, 3], [0, 1, 1, 5, 4]], dtype=torch.float64, device=backend.device)
    torch.autograd.gradcheck(lambda x: ops.roi_pool(x, rois, 2), (x,))
    out = ops.roi_pool(x, rois, 2)
    (gradient,) = torch.autograd.grad(out, x, torch.ones_like(out, requires_grad=True), create_graph=True)
    with pytest.raises(RuntimeError, match="roi_pool_backward: this op has no gradient"):
        gradient.sum().backward()


def test_places_are_kept_only_for_a_gradient(backend):
    x, rois = torch.rand(1, 5, 8, 8, device=backend.device), torch.tensor([[0.0, 0, 0, 4, 4]], device=backend.device)
    for wanted in (True, False):
        _, argmax = backend.ops.roi_pool(x, rois, 1.0, 2, 3, wanted)
        assert argmax.shape == ((1, 5, 2, 3) if wanted else (0, 5, 2, 3))
    leaf = x.requires_grad_()
    pooled = ops.roi_pool(leaf, rois, 2)
    assert pooled.grad_fn.saved_tensors[1].numel() == 20
    with torch.no_grad():
        assert ops.roi_pool(leaf, rois, 2).equal(ops.roi_pool(leaf.detach(), rois, 2))


def test_infinite_values_and_huge_coordinates(backend):
    x = torch.full((1, 1, 4, 4), -torch.inf, device=backend.device)
    roi = torch.tensor([[0.0, 0, 0, 3, 3]], device=backend.device)
    assert ops.roi_pool(x, roi, 1).item() == -torch.inf
    x = torch.rand(1, 1, 8, 8, device=backend.device)
    for size in (3e9, 1e30):
        roi = torch.tensor([[0.0, -size, -size, size, size]], device=backend.device)
        out = ops.roi_pool(x, roi, 3)
        assert out[0, 0, 1, 1] == x.max()
        assert out.count_nonzero() == 1


def test_bad_image_index(backend):
    x = torch.rand(2, 4, 8, 8, device=backend.device, requires_grad=True)
    good = torch.tensor([[0.0, 0, 0, 4, 4], [1.0, 1, 1, 5, 5]]).repeat(20, 1)
    for bad in (2.0, -1.0, 0.5, 3e9, torch.nan, torch.inf):
        rois = good.clone()
        rois[5, 0] = bad
        if backend.name == "cpu":
            with pytest.raises(
                ValueError, match=r"roi_pool: boxes: expected an integer image index in 0\.\.1 in row 5"
            ):
                ops.roi_pool(x, rois, 3)
            continue
        out = ops.roi_pool(x, rois.to(backend.device), 3)
        assert not out[5].any()
        rest = [i for i in range(40) if i != 5]
        assert torch.equal(out[rest], ops.roi_pool(x, good.to(backend.device), 3)[rest])
        (gradient,) = torch.autograd.grad(out.sum(), x)
        (expected,) = torch.autograd.grad(ops.roi_pool(x, good[rest].to(backend.device), 3).sum(), x)
        assert torch.equal(gradient, expected)
        assert ops.device_errors(backend.device) == (1, ("roi_pool", 5))


@given(p=problems())
def test_same_bits_on_every_instruction_set_and_thread_count(p):
    with Backend("cpu") as backend:
        x, rois = inputs(backend, p)
        results = []
        for isa, threads in ((0, 1), (1, 2), (2, 4)):
            backend.vary(isa)
            torch.set_num_threads(threads)
            ours = x.clone(memory_format=torch.preserve_format).requires_grad_()
            out = ops.roi_pool(ours, rois, p["size"], p["scale"])
            results.append((out, torch.autograd.grad(out, ours, torch.ones_like(out) / 3)[0]))
        for out, gradient in results[1:]:
            torch.testing.assert_close(out, results[0][0], rtol=0, atol=0, equal_nan=True)
            torch.testing.assert_close(gradient, results[0][1], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("repeats", [1, 20])  # regions that are packed one by one, or together
@pytest.mark.parametrize("channels", [1, 3, 65])
def test_pixels_behind_the_regions_do_not_count(backend, channels, repeats):
    x = torch.full((2, channels, 12, 13), torch.nan)
    rois = torch.tensor([[0.0, 0, 0, 3, 3], [1, 9, 8, 12, 11], [1, 2, 3, 4, 6]]).repeat(repeats, 1)
    for image, left, top, right, bottom in rois.int().tolist():
        x[image, :, top : bottom + 1, left : right + 1] = torch.randn(
            channels, bottom - top + 1, right - left + 1, generator=backend.vary(channels)
        )
    expected = roi_pool_reference(x, rois, (2, 3), 1.0)
    assert not expected.isnan().any()
    for format in FORMATS:
        moved = x.to(backend.device).contiguous(memory_format=format)
        assert torch.equal(ops.roi_pool(moved, rois.to(backend.device), (2, 3)).cpu(), expected)


def test_many_bins_and_channels(backend):
    """More bins than are transposed at a time, more channels than a task has."""
    g = backend.vary(3)
    x = torch.randn(2, 131, 9, 8, generator=g)
    rois = torch.tensor([[1.0, 0, 0, 7, 8], [0, 2, 1, 5, 6], [1, 3, 3, 3, 3]])
    expected = roi_pool_reference(x, rois, (11, 9), 1.0)
    for format in FORMATS:
        moved = x.to(backend.device).contiguous(memory_format=format)
        assert torch.equal(ops.roi_pool(moved, rois.to(backend.device), (11, 9)).cpu(), expected)
