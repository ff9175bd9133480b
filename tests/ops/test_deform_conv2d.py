"""Deformable convolution against its definition in float64."""

import pytest
import torch
from fastvision import nn, ops
from fastvision.ops.deform_conv2d import deform_conv2d_reference
from hypothesis import assume, given
from hypothesis import strategies as st
from support import ALL_DTYPES, FORMATS, LAYOUTS, assert_close, lay_out, seeds

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
sizes = st.sampled_from([1, 2, 3, 8, 9, 17, 24])


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "batch": draw(st.sampled_from([0, 1, 2])),
        "size": draw(st.tuples(sizes, sizes)),
        "channels": draw(st.sampled_from([(1, 1, 1, 1), (3, 2, 1, 3), (4, 6, 2, 1), (12, 6, 3, 2), (12, 12, 12, 4)])),
        "wide": draw(st.sampled_from([1, 1, 1, 6])),
        "kernel": draw(pairs),
        "stride": draw(pairs),
        "padding": draw(st.tuples(st.integers(0, 3), st.integers(0, 3))),
        "dilation": draw(pairs),
        "bias": draw(st.booleans()),
        "mask": draw(st.booleans()),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "format": draw(st.sampled_from(FORMATS)),
        "layout": draw(st.sampled_from(LAYOUTS)),
    }


def output_size(p):
    window = [p["dilation"][k] * (p["kernel"][k] - 1) + 1 for k in (0, 1)]
    return [(p["size"][k] + 2 * p["padding"][k] - window[k]) // p["stride"][k] + 1 for k in (0, 1)]


def tensors(backend, p):
    """Multiples of 1/4 and offsets of 1/8 that are small: sums are nearly exact in every dtype."""
    g = backend.vary(p["seed"])
    into, out, groups, offset_groups = p["channels"]
    into, out = into * p["wide"], out * p["wide"]
    taps = p["kernel"][0] * p["kernel"][1]

    def draw(*shape, most=4):
        return (torch.randint(-most, most + 1, shape, generator=g) / 4).to(p["dtype"])

    x = draw(p["batch"], into, *p["size"]).to(memory_format=p["format"])
    offset = draw(p["batch"], 2 * offset_groups * taps, *output_size(p), most=12) / 2
    # Not at whole pixels, where the slope jumps, but for a few far away and a few that are not finite.
    offset = torch.where((offset * 8) % 8 == 0, offset + 0.125, offset)
    kind = torch.rand(offset.shape, generator=g)
    offset = torch.where(
        kind < 0.03, 1e4, torch.where(kind < 0.05, torch.nan, torch.where(kind < 0.07, -torch.inf, offset))
    )
    weight = draw(out, into // groups, *p["kernel"])
    bias = draw(out) if p["bias"] else None
    mask = draw(p["batch"], offset_groups * taps, *output_size(p)) if p["mask"] else None
    made = (x, offset.to(p["dtype"]), weight, bias, mask)
    return [None if t is None else lay_out(t, p["layout"]).to(backend.device) for t in made]


@given(p=problems())
def test_matches_the_reference(backend, p):
    assume(min(output_size(p)) >= 1)
    options = {key: p[key] for key in ("stride", "padding", "dilation")}
    given_tensors = tensors(backend, p)
    results = []
    for function, wide in ((ops.deform_conv2d, False), (deform_conv2d_reference, True)):
        leaves = [t if t is None else t.detach() for t in given_tensors]
        if wide:
            leaves = [t if t is None else t.double().contiguous() for t in leaves]
        leaves = [t if t is None else t.requires_grad_() for t in leaves]
        out = function(*leaves[:4], **options, mask=leaves[4])
        inputs = [t for t in leaves if t is not None]
        weights = torch.arange(out.numel(), device=out.device).view(out.shape) % 7 / 4 - 0.75
        results.append((out, torch.autograd.grad(out, inputs, weights.to(out)), inputs))
    (out, grads, inputs), (expected, expected_grads, _) = results
    assert out.dtype == p["dtype"]
    assert out.shape == expected.shape
    scale = max(1.0, float(expected.detach().abs().max())) if out.numel() else 1.0
    assert_close(out.detach(), expected.detach(), scale)
    for mine, other, leaf in zip(grads, expected_grads, inputs, strict=True):
        assert mine.dtype == leaf.dtype
        scale = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        assert_close(mine, other, scale)


def sample(backend, seed, *, c=4, d=4, groups=1, offset_groups=2, size=(5, 6), n=2, dtype=torch.float64, kernel=3):
    g = backend.vary(seed)
    x = torch.randn(n, c, *size, generator=g, dtype=dtype)
    offset = torch.randn(n, 2 * offset_groups * kernel**2, *size, generator=g, dtype=dtype)
    weight = torch.randn(d, c // groups, kernel, kernel, generator=g, dtype=dtype)
    bias = torch.randn(d, generator=g, dtype=dtype)
    mask = torch.rand(n, offset_groups * kernel**2, *size, generator=g, dtype=dtype)
    return [t.to(backend.device) for t in (x, offset, weight, bias, mask)]


def call(x, offset, weight, bias=None, mask=None):
    return ops.deform_conv2d(x, offset, weight, bias, padding=weight.shape[2] // 2, mask=mask)


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients(backend, groups):
    inputs = [t.requires_grad_() for t in sample(backend, 1, groups=groups, n=1, size=(3, 4))]
    torch.autograd.gradcheck(call, inputs)
    torch.autograd.gradgradcheck(call, inputs, fast_mode=True)
    torch.autograd.gradgradcheck(call, inputs[:3], fast_mode=True)


def test_second_gradients_of_float16(backend):
    """As in a gradient penalty: added up in float32 like the first ones."""
    results = []
    for dtype in (torch.float16, torch.float64):
        tensors = [((4 * t).round() / 4).to(dtype) for t in sample(backend, 10, n=1, size=(3, 4))]
        leaves = [t.requires_grad_() for t in tensors]
        first = torch.autograd.grad(call(*leaves).square().sum() / 64, leaves[:3], create_graph=True)
        results.append(torch.autograd.grad(sum((g / 64).square().sum() for g in first), leaves))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=2e-2, atol=2e-2 * float(expected.abs().max()))


@pytest.mark.parametrize("format", FORMATS)
def test_zero_offsets_are_a_convolution(backend, format):
    x, offset, weight, bias, _ = sample(backend, 2, c=70, d=65, groups=5, size=(11, 13), dtype=torch.float32)
    out = call(x.to(memory_format=format), torch.zeros_like(offset), weight, bias)
    assert_close(out, torch.nn.functional.conv2d(x.double(), weight.double(), bias.double(), padding=1, groups=5), 10)
    assert out.is_contiguous(memory_format=format)


def test_sizes_beyond_the_tiles(backend):
    for c, d, groups, size in ((130, 129, 1, (13, 15)), (3, 200, 1, (1, 1)), (260, 2, 2, (7, 7)), (6, 140, 2, (5, 6))):
        tensors = sample(backend, 3, c=c, d=d, groups=groups, offset_groups=1, size=size, n=1, dtype=torch.float32)
        wide = [t.double() for t in tensors]
        out, expected = call(*tensors), deform_conv2d_reference(*wide[:4], padding=1, mask=wide[4])
        assert_close(out, expected, 50)


def test_not_finite_values_reach_what_depends_on_them(backend):
    x, offset, weight, bias, mask = sample(backend, 4, c=3, offset_groups=1, n=1, dtype=torch.float32)
    whole = torch.zeros_like(offset)
    for at in (offset, whole, offset.round()):
        for value in (torch.nan, torch.inf):
            one, bad = torch.zeros_like(x), x.clone()
            one[0, 1, 2, 2], bad[0, 1, 2, 2] = 1, value
            reached = call(one, at, weight.abs() + 0.1, None, mask + 0.1) != 0
            out, clean = call(bad, at, weight, bias, mask + 0.1), call(x, at, weight, bias, mask + 0.1)
            assert torch.equal(~out.isfinite(), reached)
            torch.testing.assert_close(out[~reached], clean[~reached])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38, -1e30])
def test_offsets_that_lead_nowhere_are_zero_samples(backend, value):
    x, offset, weight, bias, mask = (t.requires_grad_() for t in sample(backend, 5, offset_groups=1, n=1))
    bad = offset.detach().clone()
    bad[:, ::4] = value
    bad.requires_grad_()
    out = call(x, bad, weight, None, mask)
    grads = torch.autograd.grad(out.square().sum(), [x, bad, weight, mask])
    assert all(g.isfinite().all() for g in (out, *grads))
    assert not grads[1][:, ::4].any()
    assert not grads[1][:, 1::4].any()
    assert not grads[3][:, ::2].any()
    everywhere = torch.full_like(bad, value)
    assert torch.equal(call(x, everywhere, weight, bias, mask), bias[:, None, None].expand(out.shape))


def test_layouts_threads_and_runs_give_equal_bits(backend):
    tensors = sample(backend, 6, c=70, d=20, size=(14, 15), dtype=torch.float32)

    def run(tensors):
        leaves = [t.detach().requires_grad_() for t in tensors]
        out = call(*leaves[:3], tensors[3], leaves[4])  # the gradient by bias is a sum of torch's
        leaves.pop(3)
        return out, *torch.autograd.grad(out, leaves, out.detach().cos())

    expected = run(tensors)
    strided = [lay_out(t, "strided") for t in tensors]
    torch.set_num_threads(1)
    alone = run(tensors)
    torch.set_num_threads(2)
    last = [tensors[0].to(memory_format=torch.channels_last), *tensors[1:]]
    for other in (run(tensors), alone, run(strided), run(last)):
        for a, b in zip(expected, other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_offsets_beside_16_bit_input(backend, dtype):
    x, offset, weight, bias, mask = sample(backend, 7, dtype=torch.float32)
    half = [t.to(dtype) for t in (x, weight, bias)]
    out = call(half[0], offset, half[1], half[2], mask)
    assert out.dtype == dtype
    wide = [t.double() for t in half]
    expected = deform_conv2d_reference(wide[0], offset.double(), wide[1], wide[2], padding=1, mask=mask.double())
    assert_close(out, expected, 4)
    with torch.autocast(backend.device, torch.bfloat16):
        assert call(x.bfloat16(), offset, weight, bias, mask).dtype == torch.bfloat16
        assert call(x, offset.bfloat16(), weight, bias, mask).dtype == torch.float32


def test_module(backend):
    x, offset, _, _, mask = sample(backend, 8, dtype=torch.float32)
    module = nn.DeformConv2d(4, 6, 3, padding=1, groups=2).to(x.device)
    expected = ops.deform_conv2d(x, offset, module.weight, module.bias, padding=1, mask=mask)
    assert torch.equal(module(x, offset, mask), expected)
    assert [(k, tuple(v.shape)) for k, v in module.state_dict().items()] == [("weight", (6, 2, 3, 3)), ("bias", (6,))]
    with pytest.raises(ValueError, match="DeformConv2d: in_channels: expected a multiple of groups=3, got 4"):
        nn.DeformConv2d(4, 6, 3, groups=3)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_bad_arguments(backend, device):
    x, offset, weight, bias, mask = (t.to(device) for t in sample(backend, 9, dtype=torch.float32))
    cases = [
        (ValueError, "offset: expected shape", (x, offset[..., 1:], weight)),
        (ValueError, "offset: expected shape", (x, offset[:, :35], weight)),
        (ValueError, "offset: expected a number of offset groups", (x, torch.cat([offset, offset[:, :18]], 1), weight)),
        (ValueError, "mask: expected shape", (x, offset, weight, bias, mask[:, :9])),
        (ValueError, "bias: expected shape", (x, offset, weight, bias[1:])),
        (ValueError, "weight: expected shape", (x, offset, weight[:, :3])),
        (ValueError, "weight: expected shape", (x, offset, weight[:3, :2])),
        (ValueError, "input: expected shape", (x[0], offset, weight)),
        (ValueError, "input: expected at least one pixel", (x[..., :0], offset, weight)),
        (TypeError, "weight: expected dtype float32 as input, got float64", (x, offset, weight.double())),
        (TypeError, "offset: expected dtype float32 for input of float32, got float64", (x, offset.double(), weight)),
        (TypeError, "mask: expected dtype float32 for input of float32", (x, offset, weight, bias, mask.half())),
    ]
    for kind, text, arguments in cases:
        with pytest.raises(kind, match="deform_conv2d: " + text):
            call(*arguments)
    for name, value in (("stride", 0), ("stride", 2**40), ("padding", -1), ("dilation", 0), ("dilation", 2**31)):
        with pytest.raises(ValueError, match=f"deform_conv2d: {name}: expected an integer"):
            ops.deform_conv2d(x, offset, weight, **{name: value})
    with pytest.raises(ValueError, match="input: expected a padded map of at least the effective kernel size 9x9"):
        ops.deform_conv2d(x, offset, weight, dilation=4)
