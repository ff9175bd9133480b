import itertools

import pytest
import torch
from fastvision import ops
from fastvision.ops.max_pool2d import max_pool2d_reference, positions
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, FORMATS, LAYOUTS, lay_out, seeds
from torch.nn import functional as F


@st.composite
def problems(draw, dilations=(1, 1, 2)):
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.tuples(st.sampled_from(dilations), st.sampled_from(dilations)))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    return {
        "seed": draw(seeds),
        "planes": draw(st.sampled_from([(1, 1), (2, 3), (0, 2), (2, 0), (1, 17), (2, 33)])),
        "size": [draw(st.sampled_from([max(r, d + 1), r + 1, r + 7, r + 17])) for r, d in zip(reach, dilation)],
        "window": [*kernel, *draw(st.tuples(st.integers(1, 4), st.integers(1, 4))), *padding, *dilation],
        "ceil": draw(st.booleans()),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "format": draw(st.sampled_from(FORMATS)),
        "layout": draw(st.sampled_from(LAYOUTS)),
        "nan": draw(st.booleans()),
        "compact": draw(st.booleans()),
    }


def input_of(backend, p):
    g = backend.vary(p["seed"])
    x = torch.randint(-4, 4, (*p["planes"], *p["size"]), generator=g) / 4  # maxima are often equal
    if p["nan"]:
        x = torch.where(torch.rand(x.shape, generator=g) < 0.1, torch.nan, x)
        x = torch.where(torch.rand(x.shape, generator=g) < 0.1, -torch.inf, x)
    return x.to(p["dtype"]).to(memory_format=p["format"])


def pairs(window):
    return [tuple(window[k : k + 2]) for k in range(0, 8, 2)]


@given(p=problems())
def test_matches_reference_and_torch(backend, p):
    x = input_of(backend, p)
    moved = lay_out(x.to(backend.device), p["layout"])
    options = {"ceil_mode": p["ceil"], "return_indices": True, "compact_indices": p["compact"]}
    out, index = ops.max_pool2d(moved, *pairs(p["window"]), **options)
    assert out.dtype == p["dtype"]
    assert index.dtype == (torch.uint8 if p["compact"] else torch.int64)
    if p["planes"][1] > 1 and p["layout"] == "contiguous" and out.numel():
        assert out.is_contiguous(memory_format=p["format"])
    places = positions(index, p["window"], x.shape[3]).cpu()
    assert torch.equal(ops.max_pool2d(moved, *pairs(p["window"]), p["ceil"]).nan_to_num(7), out.nan_to_num(7))
    for expected, wanted in (
        max_pool2d_reference(x.double(), p["window"], p["ceil"]),
        F.max_pool2d(x.double(), *pairs(p["window"]), p["ceil"], True) if x.numel() else (out, places),
    ):
        torch.testing.assert_close(out.cpu().double(), expected.double(), rtol=0, atol=0, equal_nan=True)
        assert torch.equal(places, wanted)


@given(p=problems())
def test_gradient_matches_torch(backend, p):
    p = {**p, "nan": False}
    x = input_of(backend, p).double()
    if x.numel() == 0:
        return
    ours, theirs = x.to(backend.device).requires_grad_(), x.clone().requires_grad_()
    out, _ = ops.max_pool2d(ours, *pairs(p["window"]), p["ceil"], True, compact_indices=p["compact"])
    expected = F.max_pool2d(theirs, *pairs(p["window"]), p["ceil"])
    g = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(p["seed"]))
    (gradient,) = torch.autograd.grad(out, ours, g.to(backend.device))
    torch.testing.assert_close(gradient.cpu(), torch.autograd.grad(expected, theirs, g)[0])


@pytest.mark.parametrize("channels", [1, 7, 8, 16, 37, 70])
@pytest.mark.parametrize("window", [(2, 2, 0, 1), (3, 2, 1, 1), (2, 3, 1, 1), (3, 1, 1, 2), (13, 1, 6, 1)])
def test_gradient_at_sizes_of_vectors(backend, channels, window):
    """Every path of the CPU twin: pairs of rows, channels, windows one by one. Whole numbers: sums are exact."""
    kernel, stride, padding, dilation = window
    cases = itertools.product(ALL_DTYPES, (False, True), FORMATS, (32, 37))
    for seed, (dtype, compact, memory_format, width) in enumerate(cases):
        g = backend.vary(seed + seed // 8)
        x = torch.randint(0, 99, (1, channels, 14, width if channels < 9 else width - 18), generator=g)
        x = x.to(backend.device, dtype).to(memory_format=memory_format).requires_grad_()
        options = {"return_indices": True, "compact_indices": compact}
        out, _ = ops.max_pool2d(x, kernel, stride, padding, dilation, **options)
        grad = torch.randint(-4, 4, out.shape, generator=g).to(dtype)
        theirs = x.detach().cpu().double().requires_grad_()
        expected = F.max_pool2d(theirs, kernel, stride, padding, dilation)
        (gradient,) = torch.autograd.grad(out, x, grad.to(backend.device))
        (wanted,) = torch.autograd.grad(expected, theirs, grad.double())
        assert torch.equal(gradient.cpu().double(), wanted)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_gradient_leaves_out_indices_of_no_pixel(backend, dtype, memory_format):
    grad = torch.ones(1, 16, 3, 20, device=backend.device).to(memory_format=memory_format)
    index = torch.full(grad.shape, 200 if dtype == torch.uint8 else -1, dtype=dtype, device=backend.device)
    index[..., 1, 3] = 0
    op = backend.ops.max_pool2d_backward
    for window in ([2, 2, 2, 2, 0, 0, 1, 1], [2, 2, 2, 2, 1, 1, 1, 1]):
        place = 6 - window[4]
        if dtype == torch.int64:
            index[..., 1, 3] = (2 - window[4]) * 41 + place
        got = op(grad, index, window, 6, 41, memory_format == torch.channels_last)
        assert got.sum() == 16
        assert torch.equal(got[0, :, 2 - window[4], place], grad[0, :, 0, 0])


@pytest.mark.parametrize("memory_format", FORMATS)
def test_taps_far_apart(backend, memory_format):
    """Distances between taps that 32 bits do not hold."""
    x = torch.arange(48, dtype=torch.float32).view(1, 16, 1, 3).to(memory_format=memory_format).to(backend.device)
    window = [1, 5, 1, 1, 0, 2**31 - 1, 1, 2**30]
    out, index = backend.ops.max_pool2d(x, window, False, False)
    assert torch.equal(out.flatten().cpu(), x[0, :, 0, 1].cpu())
    assert index.eq(1).all()


@pytest.mark.parametrize("compact", [False, True])
def test_first_and_second_gradients(backend, compact):
    x = torch.randperm(2 * 5 * 6, generator=backend.vary(2)).view(1, 2, 5, 6).double().to(backend.device)
    x.requires_grad_()
    pool = lambda x: ops.max_pool2d(x, 3, 2, 1, return_indices=True, compact_indices=compact)[0]  # noqa: E731
    torch.autograd.gradcheck(pool, (x,))
    torch.autograd.gradgradcheck(pool, (x,))


def test_vmap_equals_a_loop(backend):
    x = torch.rand(3, 2, 4, 6, 6, generator=backend.vary(3)).to(backend.device)
    pool = lambda x: ops.max_pool2d(x, 2, return_indices=True)  # noqa: E731
    for got, expected in zip(torch.func.vmap(pool)(x), zip(*map(pool, x))):
        assert torch.equal(got, torch.stack(expected))


def test_bad_arguments(backend):
    x = torch.rand(1, 2, 4, 4, device=backend.device)
    for arguments in ((0,), (2, 0), (2, 2, -1), (2, 2, 2), (2, 2, 0, 0), ((2, 2, 2),), (5,)):
        with pytest.raises(ValueError, match=r"max_pool2d: \w+: expected"):
            ops.max_pool2d(x, *arguments)
    with pytest.raises(ValueError, match=r"max_pool2d: compact_indices: expected a kernel of at most 255 taps"):
        ops.max_pool2d(torch.rand(1, 1, 20, 20, device=backend.device), 16, 1, 0, 1, False, True, compact_indices=True)
    with pytest.raises(TypeError, match=r"max_pool2d: input: expected dtype"):
        ops.max_pool2d(x.int(), 2)
