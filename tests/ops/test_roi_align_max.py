import pytest
import torch
from fastvision import ops
from fastvision.ops.roi_align import roi_align_reference
from hypothesis import given
from hypothesis import strategies as st
from roi_problems import arguments, feature_map, problems, regions
from support import FORMATS, Backend, assert_close, lay_out, seeds


@given(p=problems())
def test_matches_reference(backend, p):
    g = backend.vary(p["seed"])
    x, rois = feature_map(g, p, *p["map"]), regions(g, p, p["dtype"])
    out = ops.roi_align(lay_out(x.to(backend.device), p["layout"]), rois.to(backend.device), *arguments(p), mode="max")
    assert out.dtype == p["dtype"]
    assert_close(out, roi_align_reference(x.double(), rois.double(), *arguments(p), mode="max"))
    other = x.contiguous(memory_format=FORMATS[p["format"] == FORMATS[0]]).to(backend.device)
    same = ops.roi_align(other, rois.to(backend.device), *arguments(p), mode="max")
    torch.testing.assert_close(out, same, rtol=0, atol=0)
    with_places = ops.roi_align(other.detach().requires_grad_(), rois.to(backend.device), *arguments(p), mode="max")
    torch.testing.assert_close(out, with_places.detach(), rtol=0, atol=0)
    assert p["channels"] < 2 or p["layout"] != "contiguous" or out.is_contiguous(memory_format=p["format"])


@given(p=problems())
def test_gradient_matches_reference(backend, p):
    # In float64 no two samples of different pixels are equal.
    p = {**p, "dtype": torch.float64}
    g = backend.vary(p["seed"])
    x, rois = feature_map(g, p, *p["map"]), regions(g, p, p["dtype"])
    ours, theirs = lay_out(x.to(backend.device), p["layout"]).requires_grad_(), x.clone().requires_grad_()
    out = ops.roi_align(ours, rois.to(backend.device), *arguments(p), mode="max")
    expected = roi_align_reference(theirs, rois, *arguments(p), mode="max")
    grad = torch.randn(out.shape, generator=g, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(out, ours, grad.to(backend.device))
    wanted = torch.zeros_like(theirs)
    if expected.requires_grad:
        (wanted,) = torch.autograd.grad(expected, theirs, grad)
    assert_close(gradient, wanted)


@given(p=problems())
def test_same_bits_on_every_instruction_set_and_thread_count(p):
    with Backend("cpu") as backend:
        results = []
        for isa, threads in ((0, 1), (1, 2), (2, 4)):
            g = torch.Generator().manual_seed(p["seed"])
            x, rois = feature_map(g, p, *p["map"]).requires_grad_(), regions(g, p, p["dtype"])
            backend.vary(isa)
            torch.set_num_threads(threads)
            out = ops.roi_align(x, rois, *arguments(p), mode="max")
            results.append((out, torch.autograd.grad(out, x, torch.ones_like(out) / 3)[0]))
        for out, gradient in results[1:]:
            torch.testing.assert_close(out, results[0][0], rtol=0, atol=0)
            torch.testing.assert_close(gradient, results[0][1], rtol=0, atol=0)


@pytest.mark.parametrize("format", FORMATS)
def test_gradcheck_and_no_second_gradient(backend, format):
    x = torch.randperm(120, generator=torch.Generator().manual_seed(0)).view(2, 2, 5, 6).double().to(backend.device)
    x = x.contiguous(memory_format=format).requires_grad_()
    rois = torch.tensor([[0.0, 0.1, 0.3, 4.2, 3.7], [1, 1.3, 0.9, 5.1, 4.4]], dtype=torch.float64)
    rois = rois.to(backend.device)
    torch.autograd.gradcheck(lambda x: ops.roi_align(x, rois, (2, 3), sampling_ratio=2, mode="max"), (x,))
    out = ops.roi_align(x, rois, 2, mode="max")
    (gradient,) = torch.autograd.grad(out, x, torch.ones_like(out, requires_grad=True), create_graph=True)
    with pytest.raises(RuntimeError, match="roi_align_max_backward: this op has no gradient"):
        gradient.sum().backward()
    with pytest.raises(RuntimeError, match="roi_align: boxes: no gradient"):
        ops.roi_align(x, rois.requires_grad_(), 2, mode="max").sum().backward()


def test_samples_are_kept_only_for_a_gradient(backend):
    x, rois = torch.rand(1, 5, 8, 8, device=backend.device), torch.tensor([[0.0, 0, 0, 4, 4]], device=backend.device)
    for wanted in (True, False):
        _, argmax = backend.ops.roi_align_max(x, rois, 1.0, 2, 3, 2, False, wanted)
        assert argmax.shape == ((1, 5, 2, 3) if wanted else (0, 5, 2, 3))
    leaf = x.requires_grad_()
    pooled = ops.roi_align(leaf, rois, 2, mode="max")
    assert pooled.grad_fn.saved_tensors[1].numel() == 20
    with torch.no_grad():
        assert ops.roi_align(leaf, rois, 2, mode="max").equal(ops.roi_align(leaf.detach(), rois, 2, mode="max"))


@given(seed=seeds, aligned=st.booleans(), ratio=st.sampled_from([-1, 1, 3]))
def test_not_below_the_average_and_equal_to_it_for_one_sample(backend, seed, aligned, ratio):
    g = backend.vary(seed)
    x = torch.randn(1, 3, 9, 11, generator=g, dtype=torch.float64).to(backend.device)
    corner = torch.rand(6, 2, generator=g) * 12 - 2
    boxes = torch.cat([torch.zeros(6, 1), corner, corner + torch.rand(6, 2, generator=g) * 8], 1).double()
    args = x, boxes.to(backend.device), 3, 1.0, ratio, aligned
    highest, average = ops.roi_align(*args, mode="max"), ops.roi_align(*args)
    assert (highest >= average - 1e-12).all()
    assert ratio != 1 or torch.allclose(highest, average, rtol=0, atol=1e-12)


def test_ties_nan_and_samples_outside(backend):
    roi = torch.tensor([[0.0, 0, 0, 4, 4]], device=backend.device)
    # One sample on each pixel centre. Of equal ones the first: row 0, column 1.
    x = torch.tensor([[0.0, 3, 3, 1], [3, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], device=backend.device)
    x = x.view(1, 1, 4, 4).requires_grad_()
    ops.roi_align(x, roi, 1, 1.0, 4, True, mode="max").sum().backward()
    assert x.grad.nonzero().tolist() == [[0, 0, 0, 1]]
    spoilt = x.detach().clone()
    spoilt[0, 0, 3, 3] = torch.nan
    out = ops.roi_align(spoilt, roi, 2, 1.0, 2, True, mode="max")
    assert out.isnan()[0, 0].tolist() == [[False, False], [False, True]]
    # Below zero everywhere, but a sample outside the map counts 0 and has no gradient.
    for low in (-9.0, 1.0):
        x = torch.full((1, 1, 4, 4), -1.0, device=backend.device, requires_grad=True)
        roi = torch.tensor([[0.0, low, low, low + 12, low + 12]], device=backend.device)
        out = ops.roi_align(x, roi, 1, mode="max")
        out.sum().backward()
        assert out.item() == 0
        assert not x.grad.any()


@pytest.mark.parametrize("format", FORMATS)
def test_a_huge_region_costs_no_more_than_the_map(backend, format):
    x = torch.rand(2, 4, 8, 8, device=backend.device).contiguous(memory_format=format).requires_grad_()
    for size in (1e5, 1e9, 1e30, 3e38):
        for start in (0.0, -size / 3):
            roi = torch.tensor([[0.0, start, start, size, size]], device=backend.device)
            for aligned in (False, True):
                out = ops.roi_align(x, roi, 3, 1.0, -1, aligned, mode="max")
                out.sum().backward()
                assert (out.max() <= x.max()).item()
                assert out.min() >= 0


def test_bad_image_index(backend):
    x = torch.rand(2, 4, 8, 8, device=backend.device, requires_grad=True)
    good = torch.tensor([[0.0, 0, 0, 4, 4], [1.0, 1, 1, 5, 5]]).repeat(20, 1)
    rest = [i for i in range(40) if i != 17]
    for bad in (2.0, -1.0, 0.5, 3e9, torch.nan, torch.inf):
        rois = good.clone()
        rois[17, 0] = bad
        if backend.name == "cpu":
            with pytest.raises(
                ValueError, match=r"roi_align: boxes: expected an integer image index in 0\.\.1 in row 17"
            ):
                ops.roi_align(x, rois, 3, mode="max")
            continue
        out = ops.roi_align(x, rois.to(backend.device), 3, mode="max")
        assert not out[17].any()
        assert torch.equal(out[rest], ops.roi_align(x, good.to(backend.device), 3, mode="max")[rest])
        (gradient,) = torch.autograd.grad(out.sum(), x)
        (expected,) = torch.autograd.grad(ops.roi_align(x, good[rest].to(backend.device), 3, mode="max").sum(), x)
        assert torch.equal(gradient, expected)
        assert ops.device_errors(backend.device) == (1, ("roi_align", 17))


def test_unknown_mode(backend):
    x, roi = torch.rand(1, 1, 4, 4, device=backend.device), torch.tensor([[0.0, 0, 0, 4, 4]], device=backend.device)
    with pytest.raises(ValueError, match="roi_align: mode: expected 'avg' or 'max', got 'median'"):
        ops.roi_align(x, roi, 2, mode="median")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("at", [(0, 0), (3, 30), (31, 31)])
def test_many_samples_of_a_bin(backend, format, at):
    """More than the CPU kernel goes through at a time: the first of equal samples counts, and a NaN wins for good."""
    x = torch.zeros(1, 3, 32, 32, device=backend.device)
    x[0, :, at[0] :, at[1] :] = 2.0
    x[0, 2, at[0], at[1]] = torch.nan
    x[0, 2, -1, -1] = 9.0 if at != (31, 31) else torch.nan
    x = x.contiguous(memory_format=format).requires_grad_()
    roi = torch.tensor([[0.0, 0, 0, 32, 32]], device=backend.device)
    out = ops.roi_align(x, roi, 1, 1.0, 32, True, mode="max")  # one sample on each pixel
    assert out[0, :2].flatten().tolist() == [2.0, 2.0]
    assert out[0, 2].isnan()
    out[0].sum().backward()
    assert x.grad.nonzero().tolist() == [[0, c, *at] for c in range(3)]
