"""Convolution with many channels per group, which on CUDA is products of tiles, against torch in float64."""

import pytest
import torch
from fastvision import ops
from hypothesis import assume, example, given
from hypothesis import strategies as st
from support import ALL_DTYPES, FORMATS, assert_close, seeds, tf32
from torch.nn import functional

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
channels = st.sampled_from([16, 17, 24, 40, 72])


def problem(seed=0, transposed=False, dtype=torch.float32, format=torch.contiguous_format, **options):
    return {
        "seed": seed,
        "transposed": transposed,
        "dtype": dtype,
        "format": format,
        "batch": 1,
        "size": (5, 6),
        "groups": 1,
        "channels": (16, 16),
        "kernel": (3, 3),
        "stride": (1, 1),
        "padding": (1, 1),
        "dilation": (1, 1),
        "bias": True,
        "tf32": True,
    } | options


@st.composite
def problems(draw):
    return problem(
        seed=draw(seeds),
        transposed=draw(st.booleans()),
        dtype=draw(st.sampled_from(ALL_DTYPES)),
        format=draw(st.sampled_from(FORMATS)),
        batch=draw(st.sampled_from([1, 2])),
        size=draw(st.tuples(st.integers(1, 9), st.integers(1, 9))),
        groups=draw(st.sampled_from([1, 1, 2])),
        channels=draw(st.tuples(channels, channels)),  # of a group: small map, large map
        kernel=draw(pairs),
        stride=draw(pairs),
        padding=draw(st.tuples(st.integers(0, 3), st.integers(0, 3))),
        dilation=draw(pairs),
        bias=draw(st.booleans()),
        tf32=draw(st.booleans()),
    )


# Tiles of one class of taps, of several, and of several images; residues of different sizes or without a tap.
@given(p=problems())
@example(p=problem(batch=3, size=(12, 13), padding=(6, 6), dilation=(6, 6), dtype=torch.bfloat16, format=FORMATS[1]))
@example(
    p=problem(size=(11, 12), kernel=(4, 4), stride=(2, 2), transposed=True, dtype=torch.float16, channels=(40, 72))
)
@example(p=problem(size=(7, 5), kernel=(2, 1), stride=(3, 2), transposed=True, format=FORMATS[1], padding=(0, 0)))
@example(p=problem(kernel=(1, 1), padding=(2, 3), size=(9, 9), dtype=torch.float64, channels=(72, 40)))
def test_matches_torch(backend, p):
    """Multiples of 1/8 that are small: sums are exact in every dtype but for the last rounding."""
    g = backend.vary(p["seed"])
    reach = [d * (k - 1) + 1 for d, k in zip(p["dilation"], p["kernel"])]
    geometry = list(zip(p["size"], p["stride"], p["padding"], reach))
    if p["transposed"]:
        assume(min((n - 1) * s - 2 * q + r for n, s, q, r in geometry) >= 1)
    else:
        assume(min(n + 2 * q - r for n, _, q, r in geometry) >= 0)
    small, large = (p["groups"] * n for n in p["channels"])

    def draw(*shape):
        return (torch.randint(-8, 9, shape, generator=g) / 8).to(p["dtype"])

    x = draw(p["batch"], small if p["transposed"] else large, *p["size"])
    weight = draw(small, p["channels"][1], *p["kernel"])
    inputs = [x.to(memory_format=p["format"]), weight]
    if p["bias"]:
        inputs.append(draw(large if p["transposed"] else small))
    name = "conv_transpose2d" if p["transposed"] else "conv2d"
    options = {k: p[k] for k in ("stride", "padding", "dilation", "groups")}
    ours = [t.detach().to(backend.device).requires_grad_() for t in inputs]
    theirs = [t.detach().double().contiguous().requires_grad_() for t in inputs]
    with tf32(torch.backends.cudnn.conv, p["tf32"]):
        out = getattr(ops, name)(*ours, **options, algorithm="fastvision")
    expected = getattr(functional, name)(*theirs, **options)
    assert_close(out, expected)
    assert out.dtype == p["dtype"]
    assert out.is_contiguous(memory_format=p["format"])
    grad = (torch.randint(-8, 9, expected.shape, generator=g) / 8).to(expected)
    of_theirs = torch.autograd.grad(expected, theirs, grad)
    for ours_, theirs_ in zip(torch.autograd.grad(out, ours, grad.to(out)), of_theirs, strict=True):
        assert_close(ours_, theirs_)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("which", ["input", "weight"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_not_finite_values_reach_what_depends_on_them(backend, transposed, which, value):
    """Zeros stand for the outside of the map, and a weight that is not finite must not meet them."""
    call = ops.conv_transpose2d if transposed else ops.conv2d
    for dtype, format in ((torch.float32, FORMATS[0]), (torch.bfloat16, FORMATS[1]), (torch.float64, FORMATS[1])):
        g = backend.vary(1)
        x = (torch.randint(1, 9, (1, 16, 7, 8), generator=g) / 8).to(dtype).to(memory_format=format).to(backend.device)
        w = (torch.randint(1, 9, (16, 16, 3, 3), generator=g) / 8).to(dtype).to(backend.device)
        bad, reach = {"input": x.clone(), "weight": w.clone()}, {"input": x.clone(), "weight": w.clone()}
        place = (0, 3, 2, 2) if which == "weight" else (0, 3, 6, 7)
        reach[which].zero_()
        bad[which][place], reach[which][place] = value, 1
        options = {"stride": 2 if transposed else 1, "padding": 2, "dilation": 2}
        reached = call(**reach, **options, algorithm="torch") != 0
        options["algorithm"] = "fastvision"
        out = call(**bad, **options)
        assert torch.equal(~out.isfinite(), reached)
        assert reached.any()
        clean = call(input=x, weight=w, bias=torch.ones(16, dtype=dtype, device=x.device), **options)
        bias = torch.ones(16, dtype=dtype, device=x.device)
        torch.testing.assert_close(call(**bad, bias=bias, **options)[~reached], clean[~reached])


def test_gradient_by_weights_of_not_finite_values(backend):
    """Pixels whose tap is outside the map take no part, whatever they are."""
    x = torch.ones(1, 16, 5, 5).to(backend.device)
    grad = torch.ones(1, 16, 5, 5).to(backend.device)
    grad[0, 2, 0, 0] = torch.nan
    w = torch.ones(16, 16, 3, 3).to(backend.device).requires_grad_()
    (by_weight,) = torch.autograd.grad(ops.conv2d(x, w, padding=1, algorithm="fastvision"), w, grad)
    assert by_weight[2, :, 1:, 1:].isnan().all()
    by_weight[2, :, 1:, 1:] = 0
    assert by_weight.isfinite().all()


def test_tf32_where_torch_allows_it(backend):
    g = backend.vary(2)
    x, w = (torch.randn(*s, generator=g).to(backend.device) for s in ((1, 32, 6, 7), (24, 32, 3, 3)))
    expected, magnitude = (
        functional.conv2d(*t) for t in ((x.double(), w.double()), (x.double().abs(), w.abs().double()))
    )
    of_sums, of_factors = 32 * 9 * 2**-24, 2 * 2**-11  # bounds of the rounding errors
    for allowed in (True, False):
        with tf32(torch.backends.cudnn.conv, allowed):
            out = ops.conv2d(x, w, algorithm="fastvision")
        error = float(((out - expected).abs() / magnitude).max())
        rounds = allowed and backend.name != "cpu"
        assert error <= of_sums + (of_factors if rounds else 0)
        assert not rounds or error > of_sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_formats_and_schedules_give_equal_bits(backend, dtype):
    g = backend.vary(3)
    x, w = torch.randn(2, 24, 9, 10, generator=g).to(dtype), torch.randn(40, 24, 3, 3, generator=g).to(dtype)
    x = x.to(memory_format=torch.channels_last).to(backend.device)
    w = w.to(backend.device)
    for call in (
        lambda w: ops.conv2d(x, w, padding=3, dilation=3, algorithm="fastvision"),
        lambda w: ops.conv_transpose2d(x, w[:24, :16], stride=2, algorithm="fastvision"),
    ):
        expected = call(w)
        for seed, format in ((4, torch.channels_last), (9, torch.contiguous_format)):
            backend.vary(seed if backend.name == "emulated" else 3)
            assert torch.equal(call(w.to(memory_format=format)), expected)
