import pytest
import torch
from fastvision import ops
from fastvision.ops.roi_align import roi_align_reference
from hypothesis import given
from hypothesis import strategies as st
from roi_problems import arguments, feature_map, problems, regions
from support import FORMATS, assert_close, lay_out, random_boxes, seeds


@given(p=problems())
def test_matches_reference(backend, p):
    g = backend.vary(p["seed"])
    x, rois = feature_map(g, p, *p["map"]), regions(g, p, p["dtype"])
    out = ops.roi_align(lay_out(x.to(backend.device), p["layout"]), rois.to(backend.device), *arguments(p))
    assert out.dtype == p["dtype"]
    assert_close(out, roi_align_reference(x.double(), rois.double(), *arguments(p)))


@given(p=problems())
def test_keeps_the_memory_format(backend, p):
    g = backend.vary(p["seed"])
    x, rois = feature_map(g, p, *p["map"]).to(backend.device), regions(g, p, p["dtype"]).to(backend.device)
    other = x.contiguous(memory_format=FORMATS[p["format"] == FORMATS[0]])
    out, same = ops.roi_align(x, rois, *arguments(p)), ops.roi_align(other, rois, *arguments(p))
    assert p["channels"] < 2 or out.is_contiguous(memory_format=p["format"])
    assert_close(out.double(), same.double(), 1e4 if p["dtype"] == torch.float32 else 1e7)


@given(p=problems())
def test_gradient_matches_reference(backend, p):
    g = backend.vary(p["seed"])
    x, rois = feature_map(g, p, *p["map"]), regions(g, p, p["dtype"])
    ours = lay_out(x.to(backend.device), p["layout"]).requires_grad_()
    theirs = x.double().requires_grad_()
    out = ops.roi_align(ours, rois.to(backend.device), *arguments(p))
    grad = torch.randn(out.shape, generator=g, dtype=torch.float64).to(p["dtype"])
    (gradient,) = torch.autograd.grad(out, ours, grad.to(backend.device))
    expected = torch.zeros_like(theirs)
    reference = roi_align_reference(theirs, rois.double(), *arguments(p))
    if reference.requires_grad:
        (expected,) = torch.autograd.grad(reference, theirs, grad.double())
    # As many terms meet in a pixel as regions cover it.
    assert_close(gradient, expected, scale=4.0)
    assert torch.equal(
        gradient,
        torch.autograd.grad(ops.roi_align(ours, rois.to(backend.device), *arguments(p)), ours, grad.to(backend.device))[
            0
        ],
    )


@pytest.mark.parametrize("format", FORMATS)
def test_gradcheck(backend, format):
    p = {"batch": 2, "channels": 3, "rois": 4, "nan": False, "dtype": torch.float64, "format": format}
    g = backend.vary(5)
    x = feature_map(g, p, 5, 6).to(backend.device).requires_grad_()
    rois = regions(g, p, torch.float64).to(backend.device)
    f = lambda x: ops.roi_align(x, rois, (2, 3), 0.5, 2, True)  # noqa: E731
    torch.autograd.gradcheck(f, (x,))
    torch.autograd.gradgradcheck(f, (x,))


def test_boxes_have_no_gradient(backend):
    x = torch.rand(1, 2, 4, 4, device=backend.device, requires_grad=True)
    rois = torch.tensor([[0.0, 0, 0, 3, 3]], device=backend.device, requires_grad=True)
    with pytest.raises(RuntimeError, match="roi_align: boxes: no gradient"):
        ops.roi_align(x, rois, 2).sum().backward()


@given(seed=seeds, aligned=st.booleans())
def test_linear_and_exact_on_affine_maps(backend, seed, aligned):
    """Linear in the features; of an affine map, the value at the bin's centre."""
    g = backend.vary(seed)
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), indexing="ij")
    corner = torch.rand(5, 2, generator=g) * 8 + 2
    boxes = torch.cat([corner, corner + torch.rand(5, 2, generator=g) * 8 + 1], 1).double()
    rois = torch.cat([torch.zeros(5, 1), boxes], 1).to(backend.device)
    maps = torch.stack([y, x, 2 * y - 3 * x + 1])[None].double().to(backend.device)
    out = ops.roi_align(maps, rois, 3, 1.0, 2, aligned)
    centres = (torch.arange(3).double() + 0.5) / 3
    shift = 0.5 if aligned else 0.0
    at_y = boxes[:, 1, None] - shift + centres * (boxes[:, 3] - boxes[:, 1])[:, None]
    at_x = boxes[:, 0, None] - shift + centres * (boxes[:, 2] - boxes[:, 0])[:, None]
    assert_close(out[:, 0].cpu(), at_y[:, :, None].expand(5, 3, 3))
    assert_close(out[:, 1].cpu(), at_x[:, None, :].expand(5, 3, 3))
    assert_close(out[:, 2], 2 * out[:, 0] - 3 * out[:, 1] + 1)


def test_half_features_with_float_boxes_read_the_right_image(backend):
    x = torch.arange(2050.0, device=backend.device).view(-1, 1, 1, 1).expand(2050, 1, 4, 4)
    roi = torch.tensor([[2049.0, 0, 0, 3, 3]], device=backend.device)
    assert ops.roi_align(x, roi, 1).item() == 2049
    assert ops.roi_align(x.half(), roi, 1).item() == 2048  # 2049 is not a float16


def test_nan_reaches_exactly_the_bins_that_read_it(backend):
    x = torch.zeros(1, 1, 12, 12, device=backend.device)
    x[0, 0, 5, 5] = torch.nan
    for format in FORMATS:
        roi = torch.tensor([[0.0, 0, 0, 12, 12]], device=backend.device)
        out = ops.roi_align(x.contiguous(memory_format=format), roi, 6, 1.0, 1, True)
        # One sample per bin, at pixel 2 p + 0.5: bins 2 reads pixels 4 and 5, bin 3 pixels 6 and 7.
        assert out.isnan()[0, 0].nonzero().tolist() == [[2, 2]]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("seed", range(3))  # each has an instruction set of its own
def test_values_that_are_not_finite_stay_in_the_bins_that_read_them(backend, format, value, seed):
    """Several planes at a time, vectors that reach beyond a region, bins with fewer than four rows of pixels."""
    g = backend.vary(seed)
    x = torch.rand(2, 7, 20, 24, generator=g)
    middle = torch.tensor([[11.0, 9], [4, 10], [23, 19], [11, 9]])
    reach = 1 + 12 * torch.rand(2, 4, 2, generator=g)
    rois = torch.cat([torch.tensor([[0.0], [1], [1], [0]]), middle - reach[0], middle + reach[1]], 1)
    x[0, 3, 9, 11] = x[1, 6, 10, 4] = x[1, 0, 19, 23] = value
    marked = (~x.isfinite()).double()
    out = ops.roi_align(x.to(backend.device, memory_format=format), rois.to(backend.device), 5, 1.0, 2, True)
    read = roi_align_reference(marked, rois.double(), (5, 5), 1.0, 2, True) > 0
    assert read.flatten(1).any(1).all()
    assert torch.equal(~out.isfinite().cpu(), read)
    clean = roi_align_reference(x.nan_to_num(0, 0).double(), rois.double(), (5, 5), 1.0, 2, True)
    assert_close(out.cpu()[~read], clean[~read])


@pytest.mark.parametrize("format", FORMATS)
def test_a_huge_region_costs_no_more_than_the_map(backend, format):
    x = torch.rand(2, 4, 8, 8, device=backend.device).contiguous(memory_format=format).requires_grad_()
    for size in (1e5, 1e9, 1e30, 3e38):
        for start in (0.0, -size / 3):
            roi = torch.tensor([[0.0, start, start, size, size]], device=backend.device)
            for aligned in (False, True):
                out = ops.roi_align(x, roi, 3, 1.0, -1, aligned)
                out.sum().backward()
                assert out.abs().max() <= (1e-3 if size == 1e5 else 1e-6)


def test_bad_image_index(backend):
    x = torch.rand(2, 4, 8, 8, device=backend.device, requires_grad=True)
    rois = torch.tensor([[0.0, 0, 0, 4, 4], [1.0, 1, 1, 5, 5]]).repeat(20, 1)
    good = rois.clone()
    for bad in (2.0, -1.0, 0.5, 3e9, torch.nan, torch.inf):
        rois[17, 0] = bad
        if backend.name == "cpu":
            with pytest.raises(
                ValueError, match=r"roi_align: boxes: expected an integer image index in 0\.\.1 in row 17"
            ):
                ops.roi_align(x, rois, 3)
            continue
        out = ops.roi_align(x, rois.to(backend.device), 3)
        assert not out[17].any()
        rest = [i for i in range(40) if i != 17]
        assert torch.equal(out[rest], ops.roi_align(x, good.to(backend.device), 3)[rest])
        (gradient,) = torch.autograd.grad(out.sum(), x)
        (expected,) = torch.autograd.grad(ops.roi_align(x, good[rest].to(backend.device), 3).sum(), x)
        assert_close(gradient, expected)
        assert ops.device_errors(backend.device) == (1, ("roi_align", 17))
        assert ops.device_errors(backend.device) == (0, None)


def test_validation_on_request(backend, monkeypatch):
    monkeypatch.setenv("FASTVISION_VALIDATE", "1")
    x = torch.rand(2, 4, 8, 8, device=backend.device)
    with pytest.raises(ValueError, match="row 0, got 5"):
        ops.roi_align(x, torch.tensor([[5.0, 0, 0, 4, 4]], device=backend.device), 3)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [352, 350])  # with rows that begin with a line of the cache, and without
def test_gradients_larger_than_caches_are_those_of_a_few_channels(format, width, dtype):
    """The CPU kernel writes them past the caches, from 32 MiB on."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(1, 80, 304, width, generator=g, dtype=dtype).contiguous(memory_format=format).requires_grad_()
    rois = torch.cat([torch.zeros(30, 1), random_boxes(g, 30, size=300.0)], 1).to(dtype)
    rois[:, 2::2] /= 2  # there are tiles that none of them touches
    few = [x.detach()[:, c : c + 10].contiguous(memory_format=format).requires_grad_() for c in range(0, 80, 10)]
    weight = torch.rand(30, 80, 7, 7, generator=g, dtype=dtype)

    def gradient(x, weight):
        return torch.autograd.grad(ops.roi_align(x, rois, 7, 1.0, 2, True), x, weight)[0]

    parts = [gradient(part, weight[:, 10 * i : 10 * i + 10]) for i, part in enumerate(few)]
    assert torch.equal(gradient(x, weight), torch.cat(parts, 1))
    assert gradient(x.detach()[:, 1:].requires_grad_(), weight[:, 1:]).equal(torch.cat(parts, 1)[:, 1:])


@pytest.mark.parametrize("format", FORMATS)
def test_gradients_of_crowded_tiles(backend, format):
    """More of them than the CPU kernel lays out at a time, for one vector of channels."""
    g = backend.vary(0)
    x = torch.zeros(1, 33, 12, 13, dtype=torch.float64).requires_grad_()
    rois = torch.cat([torch.zeros(180, 1), random_boxes(g, 180, size=12.0)], 1).double()
    weight = torch.rand(180, 33, 7, 7, generator=g, dtype=torch.float64)
    (expected,) = torch.autograd.grad(roi_align_reference(x, rois, (7, 7), 1.0, 2, True), x, weight)
    ours = x.detach().float().to(backend.device, memory_format=format).requires_grad_()
    out = ops.roi_align(ours, rois.float().to(backend.device), 7, 1.0, 2, True)
    (gradient,) = torch.autograd.grad(out, ours, weight.float().to(backend.device))
    assert_close(gradient, expected, scale=4.0)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradients_of_few_regions(backend, format, dtype):
    """The CPU kernel clears the maps first where most of their tiles are touched by no region."""
    g = backend.vary(1)
    x = torch.randn(3, 5, 70, 83, generator=g, dtype=torch.float64).to(dtype).double().requires_grad_()
    rois = torch.tensor([[2.0, 30, 40, 51, 44], [0, 80, 0, 83, 3], [2, 33, 39, 49, 60]], dtype=torch.float64)
    weight = torch.rand(3, 5, 3, 4, generator=g, dtype=torch.float64).to(dtype)
    reference = roi_align_reference(x, rois, (3, 4), 1.0, 2, True)
    (expected,) = torch.autograd.grad(reference, x, weight.double())
    ours = x.detach().to(backend.device, dtype, memory_format=format).requires_grad_()
    rois = rois.to(backend.device, torch.float64 if dtype == torch.float64 else torch.float32)
    out = ops.roi_align(ours, rois, (3, 4), 1.0, 2, True)
    for _ in range(3):
        torch.full_like(ours, torch.nan)  # so that the memory of the next tensor of this size holds something
        (gradient,) = torch.autograd.grad(out, ours, weight.to(backend.device), retain_graph=True)
        assert_close(gradient, expected, scale=4.0)
        assert gradient[1].count_nonzero() == 0
