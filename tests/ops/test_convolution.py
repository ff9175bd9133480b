"""Convolution and transposed convolution by the own kernels, against torch in float64."""

import pytest
import torch
from convolutions import compare, tensors
from fastvision import nn, ops
from hypothesis import assume, given
from hypothesis import strategies as st
from support import ALL_DTYPES, FORMATS, LAYOUTS, lay_out, seeds
from torch.nn import functional

pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
sizes = st.sampled_from([1, 2, 3, 7, 16, 17, 33, 40])
channels = st.sampled_from([1, 1, 2, 3, 5])


@st.composite
def problems(draw):
    groups = draw(st.sampled_from([1, 2, 3, 17, 65]))
    return {
        "seed": draw(seeds),
        "batch": draw(st.sampled_from([0, 1, 2])),
        # torch's double precision takes half a second where both the maps and the groups are many
        "size": draw(st.tuples(sizes, sizes if groups < 17 else st.integers(1, 9))),
        "groups": groups,
        "channels": draw(st.tuples(channels, channels)),  # of a group: small map, large map
        "kernel": draw(pairs),
        "stride": draw(pairs),
        "padding": draw(st.tuples(st.integers(0, 5), st.integers(0, 5))),
        "dilation": draw(pairs),
        "bias": draw(st.booleans()),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "format": draw(st.sampled_from(FORMATS)),
        "layout": draw(st.sampled_from(LAYOUTS)),
    }


def effective(p, axis):
    return p["dilation"][axis] * (p["kernel"][axis] - 1) + 1


@given(p=problems())
def test_convolution_matches_torch(backend, p):
    assume(all(p["size"][k] + 2 * p["padding"][k] >= effective(p, k) for k in (0, 1)))
    options = (p["stride"], p["padding"], p["dilation"], p["groups"])
    inputs = tensors(backend, p, False)
    compare(
        lambda *t: ops.conv2d(t[0], t[1], t[2] if p["bias"] else None, *options, algorithm="fastvision"),
        lambda *t: functional.conv2d(t[0], t[1], t[2] if p["bias"] else None, *options),
        inputs,
        p,
    )


@given(p=problems(), extra=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_transposed_convolution_matches_torch(backend, p, extra):
    extra = [min(n, max(s, d) - 1) for n, s, d in zip(extra, p["stride"], p["dilation"])]
    out = [(p["size"][k] - 1) * p["stride"][k] - 2 * p["padding"][k] + effective(p, k) + extra[k] for k in (0, 1)]
    assume(min(out) >= 1)
    options = (p["stride"], p["padding"], extra, p["groups"], p["dilation"])
    inputs = tensors(backend, p, True)
    compare(
        lambda *t: ops.conv_transpose2d(t[0], t[1], t[2] if p["bias"] else None, *options, algorithm="fastvision"),
        lambda *t: functional.conv_transpose2d(t[0], t[1], t[2] if p["bias"] else None, *options),
        inputs,
        p,
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_first_and_second_gradient(backend, groups):
    g = backend.vary(1)
    x, w = (torch.randn(*s, dtype=torch.float64, generator=g) for s in ((1, 2, 4, 3), (2, 2 // groups, 2, 3)))
    bias = torch.randn(2, dtype=torch.float64, generator=g)
    inputs = [t.to(backend.device).requires_grad_() for t in (x, w, bias)]
    for call in (
        lambda *t: ops.conv2d(*t, (2, 1), (0, 2), (1, 2), groups, algorithm="fastvision"),
        lambda *t: ops.conv_transpose2d(*t, (2, 1), (0, 1), (1, 0), groups, (1, 2), algorithm="fastvision"),
    ):
        torch.autograd.gradcheck(call, inputs)
        torch.autograd.gradgradcheck(call, inputs)


def test_layouts_and_threads_give_equal_bits(backend):
    g = backend.vary(2)
    x, w = torch.randn(2, 36, 20, 33, generator=g).to(backend.device), torch.randn(36, 1, 3, 3, generator=g)
    dense = torch.randn(8, 36, 3, 3, generator=g).to(backend.device)
    for call in (
        lambda x: ops.conv2d(x, w.to(x.device), None, 1, 4, 4, 36, algorithm="fastvision"),
        lambda x: ops.conv2d(x, dense, padding=1, algorithm="fastvision"),
        lambda x: ops.conv_transpose2d(x, w.to(x.device), None, 2, groups=36, algorithm="fastvision"),
    ):
        expected = call(x)
        assert torch.equal(call(lay_out(x, "strided")), expected)
        torch.set_num_threads(1)
        assert torch.equal(call(x), expected)
        torch.set_num_threads(2)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_not_finite_values_reach_what_depends_on_them(backend, format, value):
    """Also weights: a tap that only ever meets the outside of the map reaches nothing."""
    g = backend.vary(3)
    for groups in (1, 3):
        x = torch.rand(1, 3, 9, 40, generator=g).to(backend.device).to(memory_format=format)
        w = torch.rand(3, 3 // groups, 3, 3, generator=g).to(backend.device) + 0.1
        for call in (
            lambda x, w, groups=groups: ops.conv2d(x, w, None, 1, 2, 2, groups, algorithm="fastvision"),
            lambda x, w, groups=groups: ops.conv_transpose2d(x, w, None, 2, 1, 0, groups, algorithm="fastvision"),
        ):
            clean = call(x, w)
            for which in (0, 1):
                arguments = [x.clone(), w.clone()]
                arguments[which].select(0, 0)[0, 2, 2] = value
                zeroed, ones = [x.clone(), w.clone()], [torch.zeros_like(x), torch.zeros_like(w)]
                zeroed[which].select(0, 0)[0, 2, 2] = 0
                ones[which].select(0, 0)[0, 2, 2] = 1
                ones[1 - which] = [x, w][1 - which]
                reached = call(*ones) != 0
                out = call(*arguments)
                assert torch.equal(~out.isfinite(), reached)
                torch.testing.assert_close(out[~reached], clean[~reached])


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5, 8])
def test_bilinear_kernel_upsamples(backend, stride):
    x = torch.arange(12.0, dtype=torch.float64).view(1, 1, 3, 4).expand(1, 2, 3, 4).to(backend.device)
    w = ops.upsample_bilinear_kernel(2, stride, dtype=torch.float64, device=backend.device)
    assert w.shape == (2, 1, 2 * stride - stride % 2, 2 * stride - stride % 2)
    out = ops.conv_transpose2d(x, w, None, stride, stride // 2, 0, 2, algorithm="fastvision")
    expected = functional.interpolate(x, scale_factor=stride, mode="bilinear")
    edge = stride // 2 + 1 if stride > 1 else 0
    inner = (..., slice(edge, out.shape[2] - edge), slice(edge, out.shape[3] - edge))
    assert out.shape == expected.shape
    torch.testing.assert_close(out[inner], expected[inner])
    with pytest.raises(ValueError, match="stride: expected an integer >= 1, got 0"):
        ops.upsample_bilinear_kernel(2, 0)
    with pytest.raises(ValueError, match="channels: expected an integer >= 0, got -1"):
        ops.upsample_bilinear_kernel(-1, 2)


def test_every_algorithm_gives_the_same(backend):
    g = backend.vary(4)
    x = torch.randn(1, 6, 20, 20, generator=g).to(backend.device)
    w, t = (torch.randn(6, 1, k, k, generator=g).to(backend.device) for k in (3, 16))
    for call in (
        lambda a: ops.conv2d(x, w, None, 1, 8, 8, 6, algorithm=a),
        lambda a: ops.conv2d(x[0], w, None, 1, "same", 1, 6, algorithm=a),
        lambda a: ops.conv2d(x, w[..., :2], None, 1, "same", 3, 6, algorithm=a),
        lambda a: ops.conv_transpose2d(x, t, None, 8, 4, 0, 6, algorithm=a),
        lambda a: ops.conv_transpose2d(x, t[:, :, :2, :2], None, 2, groups=6, algorithm=a),
        lambda a: ops.conv_transpose2d(x[0], t[:, :, :3, :3].expand(6, 5, 3, 3), None, 3, algorithm=a),
    ):
        for algorithm in ("auto", "fastvision"):
            torch.testing.assert_close(call(algorithm), call("torch"), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="algorithm: expected auto, fastvision or torch, got 'fast'"):
        ops.conv2d(x, w, groups=6, algorithm="fast")


@pytest.mark.parametrize("algorithm", ["fastvision", "torch"])
def test_autocast_takes_float32_weights(algorithm):
    x, w, b = torch.rand(1, 4, 5, 5).bfloat16(), torch.rand(4, 1, 3, 3), torch.rand(4)
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.conv2d(x, w, b, groups=4, algorithm=algorithm).dtype == torch.bfloat16
        assert ops.conv_transpose2d(x, w, b, groups=4, algorithm=algorithm).dtype == torch.bfloat16


def test_modules_share_their_state_with_torch(backend):
    x = torch.rand(2, 4, 7, 7, generator=backend.vary(5)).to(backend.device)
    for ours, theirs in (
        (nn.Conv2d, torch.nn.Conv2d),
        (nn.ConvTranspose2d, torch.nn.ConvTranspose2d),
    ):
        a, b = ours(4, 6, 3, 2, 1, groups=2, algorithm="fastvision").to(x.device), theirs(4, 6, 3, 2, 1, groups=2)
        b.to(x.device).load_state_dict(a.state_dict(), strict=True)
        torch.testing.assert_close(a(x), b(x))
        a.load_state_dict(b.state_dict(), strict=True)
    torch.testing.assert_close(ours(4, 6, 3, 2)(x, output_size=(16, 15)).shape, theirs(4, 6, 3, 2)(x, (16, 15)).shape)
    circular = nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular").to(x.device)
    plain = torch.nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular").to(x.device)
    plain.load_state_dict(circular.state_dict())
    torch.testing.assert_close(circular(x), plain(x))
