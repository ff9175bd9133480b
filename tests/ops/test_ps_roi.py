import pytest
import torch
from fastvision import ops
from fastvision.ops.ps_roi_align import ps_roi_align_reference
from fastvision.ops.ps_roi_pool import ps_roi_pool_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, FORMATS, LAYOUTS, assert_close, lay_out, random_boxes, seeds


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "op": draw(st.sampled_from(["ps_roi_align", "ps_roi_pool"])),
        "batch": draw(st.integers(1, 3)),
        "channels": draw(st.sampled_from([0, 1, 2, 3, 4, 5, 16, 17])),
        "map": draw(st.tuples(st.integers(1, 20), st.integers(1, 20))),
        "rois": draw(st.sampled_from([0, 1, 3, 7, 65])),
        "size": draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        "scale": draw(st.sampled_from([0.25, 0.5, 1.0, 3.0])),
        "ratio": draw(st.sampled_from([-1, 0, 1, 2, 3])),
        "legacy": draw(st.booleans()),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "format": draw(st.sampled_from(FORMATS)),
        "layout": draw(st.sampled_from(LAYOUTS)),
        "nan": draw(st.booleans()),
    }


def run(p, x, rois, reference=False):
    """The op of the problem, or its definition."""
    if p["op"] == "ps_roi_align":
        f = ps_roi_align_reference if reference else ops.ps_roi_align
        return f(x, rois, p["size"], p["scale"], p["ratio"])
    f = ps_roi_pool_reference if reference else ops.ps_roi_pool
    return f(x, rois, p["size"], p["scale"], legacy_border=p["legacy"])


def inputs(backend, p):
    g = backend.vary(p["seed"])
    channels = p["channels"] * p["size"][0] * p["size"][1]
    x = torch.randn(p["batch"], channels, *p["map"], generator=g, dtype=torch.float64).to(p["dtype"])
    boxes = random_boxes(g, p["rois"], size=30.0) - 5
    if p["op"] == "ps_roi_pool":  # quarters of a pixel: products with the scale are exact, and round to the same pixel
        boxes = (boxes * 4).round() / 4
    if p["nan"]:
        boxes[:1, 1], boxes[1:2, 2] = torch.nan, torch.inf
        x = torch.where(torch.rand(x.shape, generator=g) < 0.02, torch.nan, x)
    rois = torch.cat([torch.randint(p["batch"], (p["rois"], 1), generator=g), boxes], 1)
    return x.to(memory_format=p["format"]), rois.to(torch.float64 if p["dtype"] == torch.float64 else torch.float32)


@given(p=problems())
def test_matches_reference(backend, p):
    x, rois = inputs(backend, p)
    out = run(p, lay_out(x.to(backend.device), p["layout"]), rois.to(backend.device))
    assert out.dtype == p["dtype"]
    assert_close(out, run(p, x.double(), rois.double(), reference=True))
    same = run(p, x.contiguous(memory_format=FORMATS[p["format"] == FORMATS[0]]).to(backend.device), rois)
    torch.testing.assert_close(out, same, rtol=0, atol=0, equal_nan=True)
    alone = x.shape[1] < 2 or p["channels"] < 2 or p["layout"] != "contiguous"
    assert alone or out.is_contiguous(memory_format=p["format"])


@given(p=problems())
def test_gradient_matches_reference(backend, p):
    p = {**p, "nan": False}
    x, rois = inputs(backend, p)
    ours, theirs = lay_out(x.to(backend.device), p["layout"]).requires_grad_(), x.double().requires_grad_()
    out, expected = run(p, ours, rois.to(backend.device)), run(p, theirs, rois.double(), reference=True)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(p["seed"])).to(p["dtype"])
    (gradient,) = torch.autograd.grad(out, ours, grad.to(backend.device))
    wanted = torch.zeros_like(theirs)
    if expected.requires_grad:
        (wanted,) = torch.autograd.grad(expected, theirs, grad.double())
    # As many terms meet in a pixel as regions cover it.
    assert_close(gradient, wanted, scale=4.0)
    again = torch.autograd.grad(run(p, ours, rois.to(backend.device)), ours, grad.to(backend.device))[0]
    assert torch.equal(gradient, again)


@given(p=problems())
def test_same_bits_on_every_instruction_set_and_thread_count(p):
    from support import Backend

    with Backend("cpu") as backend:
        x, rois = inputs(backend, p)
        results = []
        for isa, threads in ((0, 1), (1, 2), (2, 4)):
            backend.vary(isa)
            torch.set_num_threads(threads)
            ours = x.clone(memory_format=torch.preserve_format).requires_grad_()
            out = run(p, ours, rois)
            grad = torch.ones_like(out) / 3
            results.append((out, torch.autograd.grad(out, ours, grad)[0]))
        for out, gradient in results[1:]:
            torch.testing.assert_close(out, results[0][0], rtol=0, atol=0, equal_nan=True)
            torch.testing.assert_close(gradient, results[0][1], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("op", ["ps_roi_align", "ps_roi_pool"])
@pytest.mark.parametrize("format", FORMATS)
def test_gradcheck(backend, op, format):
    p = {"op": op, "size": (2, 3), "scale": 0.5, "ratio": 2, "legacy": False}
    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, 12, 5, 6, generator=g, dtype=torch.float64).to(memory_format=format)
    x = x.to(backend.device).requires_grad_()
    rois = torch.cat([torch.tensor([[0.0], [1], [1]]), random_boxes(g, 3, size=10.0)], 1).double().to(backend.device)
    torch.autograd.gradcheck(lambda x: run(p, x, rois), (x,))
    torch.autograd.gradgradcheck(lambda x: run(p, x, rois), (x,))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("op", [ops.ps_roi_align, ops.ps_roi_pool])
def test_regions_too_long_to_keep_what_they_read(op, channels, format):
    x = torch.rand(1, 2 * channels, 70_000, 1).contiguous(memory_format=format)
    roi = torch.tensor([[0.0, 0, 0, 1, 69_000]])
    (of_one, from_one), (out, gradient) = (
        (pooled, *torch.autograd.grad(pooled.sum(), t))
        for t, rois in ((x.clone().requires_grad_(), roi.repeat(n, 1)) for n in (1, 64))
        for pooled in [op(t, rois, (2, 1))]
    )
    assert torch.equal(out, of_one.expand_as(out))
    torch.testing.assert_close(gradient, 64 * from_one)


@pytest.mark.parametrize("op", [ops.ps_roi_align, ops.ps_roi_pool])
def test_bad_arguments(backend, op):
    x, rois = torch.rand(1, 8, 6, 6, device=backend.device), torch.tensor([[0.0, 0, 0, 3, 3]], device=backend.device)
    with pytest.raises(ValueError, match=r"input: expected a multiple of 3 \* 1 channels, got 8"):
        op(x, rois, (3, 1))
    with pytest.raises(ValueError, match="spatial_scale: expected a finite number > 0"):
        op(x, rois, 2, 0.0)
    boxes = rois.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="boxes: no gradient"):
        op(x.requires_grad_(), boxes, 2).sum().backward()


@pytest.mark.parametrize("op", [ops.ps_roi_align, ops.ps_roi_pool])
def test_bad_image_index(backend, op):
    x = torch.rand(2, 8, 8, 8, device=backend.device, requires_grad=True)
    good = torch.tensor([[0.0, 0, 0, 4, 4], [1.0, 1, 1, 5, 5]]).repeat(20, 1)
    rest = [i for i in range(40) if i != 5]
    for bad in (2.0, -1.0, 0.5, 3e9, torch.nan, torch.inf):
        rois = good.clone()
        rois[5, 0] = bad
        if backend.name == "cpu":
            with pytest.raises(ValueError, match=r"boxes: expected an integer image index in 0\.\.1 in row 5"):
                op(x, rois, 2)
            continue
        out = op(x, rois.to(backend.device), 2)
        assert not out[5].any()
        assert torch.equal(out[rest], op(x, good.to(backend.device), 2)[rest])
        (gradient,) = torch.autograd.grad(out.sum(), x)
        (expected,) = torch.autograd.grad(op(x, good[rest].to(backend.device), 2).sum(), x)
        assert torch.equal(gradient, expected)
        assert ops.device_errors(backend.device) == (1, (op.__name__, 5))


def test_border(backend):
    """The last row and column count, unless asked to forget them as torchvision does."""
    x = torch.zeros(1, 1, 4, 4, device=backend.device)
    x[..., 3, :] = 1
    roi = torch.tensor([[0.0, 0, 0, 4, 4]], device=backend.device)
    assert ops.ps_roi_pool(x, roi, 1).item() == 0.25
    assert ops.ps_roi_pool(x, roi, 1, legacy_border=True).item() == 0


def test_huge_regions_cost_no_more_than_the_map(backend):
    x = torch.rand(1, 9, 8, 8, device=backend.device, requires_grad=True)
    for size in (1e5, 1e9, 1e30, 3e38):
        roi = torch.tensor([[0.0, -size / 3, -size / 3, size, size]], device=backend.device)
        for op in (ops.ps_roi_align, ops.ps_roi_pool):
            out = op(x, roi, 3)
            out.sum().backward()
            assert out.isfinite().all()


@pytest.mark.parametrize("op", [ops.ps_roi_align, ops.ps_roi_pool])
@pytest.mark.parametrize("shape", [(0, 4, 5, 5), (1, 4, 5, 5), (1, 4, 0, 5), (2, 4, 5, 0), (1, 0, 5, 5), (1, 68, 0, 0)])
def test_nothing_to_read_or_to_add(backend, op, shape):
    x = torch.zeros(shape, device=backend.device, requires_grad=True)
    out = op(x, torch.zeros(0, 5, device=backend.device), 2)
    out.sum().backward()
    assert out.shape == (0, shape[1] // 4, 2, 2)
    assert x.grad.shape == shape
    assert not x.grad.any()
