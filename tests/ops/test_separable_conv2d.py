"""The fused kernel and the composition, against plain torch in float64."""

import pytest
import torch
from fastvision import nn, ops
from fastvision.ops._separable_checks import Factors
from fastvision.ops.separable_conv2d import _fused_is_faster, separable_conv2d_reference
from hypothesis import assume, given
from hypothesis import strategies as st
from support import ALL_DTYPES, FORMATS, LAYOUTS, assert_close, lay_out, seeds, tf32

sizes = st.sampled_from([1, 2, 5, 11, 12, 16, 17, 33])
channels = st.sampled_from([1, 2, 5, 16, 33, 64, 65, 130])


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "batch": draw(st.sampled_from([0, 1, 2])),
        "size": draw(st.tuples(sizes, sizes)),
        "channels": draw(st.tuples(channels, st.sampled_from([1, 3, 6, 7, 17, 65, 257]))),
        "kernel": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": draw(st.tuples(st.integers(0, 4), st.integers(0, 4))),
        "dilation": draw(st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 13]))),
        "vectors": draw(st.tuples(st.booleans(), st.booleans(), st.booleans())),
        "activations": draw(st.tuples(*[st.sampled_from([None, "relu"])] * 2)),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "format": draw(st.sampled_from(FORMATS)),
        "layout": draw(st.sampled_from(LAYOUTS)),
    }


def problem_of(backend, p):
    """Tensors and options. Sixteenths that are small: the depthwise result is exact in 16 bits, most sums too."""
    g = backend.vary(p["seed"])
    c, d = p["channels"]

    def draw(*shape, dense=1.0):
        values = torch.randint(-4, 5, shape, generator=g) / 4
        return lay_out((values * (torch.rand(shape, generator=g) < dense)).to(p["dtype"]), p["layout"]).to(
            backend.device
        )

    x = draw(p["batch"], c, *p["size"]).to(memory_format=p["format"])
    x = lay_out(x, p["layout"])
    tensors = [x, draw(c, 1, *p["kernel"]), draw(d, c, 1, 1, dense=4 / c)]
    tensors += [draw(n) if there else None for n, there in zip((c, d), p["vectors"])]
    options = {
        "padding": p["padding"],
        "dilation": p["dilation"],
        "depthwise_activation": p["activations"][0],
        "scale_shift": (draw(d), draw(d)) if p["vectors"][2] else None,
        "activation": p["activations"][1],
    }
    return tensors, options


def reference(tensors, options):
    def double(t):
        return None if t is None else t.double().contiguous()

    pair = options["scale_shift"]
    wide = {**options, "scale_shift": pair and (double(pair[0]), double(pair[1]))}
    return separable_conv2d_reference(*map(double, tensors), **wide)


@given(p=problems())
def test_fused_kernel_matches_reference(backend, p):
    assume(all(p["size"][k] + 2 * p["padding"][k] > p["dilation"][k] * (p["kernel"][k] - 1) for k in (0, 1)))
    tensors, options = problem_of(backend, p)
    out = ops.separable_conv2d(*tensors, **options, algorithm="fastvision")
    assert out.dtype == p["dtype"]
    assert_close(out, reference(tensors, options))
    if p["layout"] == "contiguous" and out.numel() and min(out.shape[1], p["channels"][0]) > 1:
        assert out.is_contiguous(memory_format=p["format"])


@pytest.mark.parametrize("format", FORMATS)
def test_algorithms_agree_and_gradients_are_those_of_the_composition(backend, format):
    g = backend.vary(1)

    def draw(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64).to(backend.device).requires_grad_()

    x, tensors = draw(2, 3, 4, 5), [draw(3, 1, 2, 2), draw(4, 3, 1, 1), draw(3), draw(4), draw(4), draw(4)]
    x = x.detach().to(memory_format=format).requires_grad_()

    def call(x, *t, algorithm="auto"):
        options = {"padding": 1, "dilation": 2, "depthwise_activation": "relu", "scale_shift": t[4:]}
        return ops.separable_conv2d(x, *t[:4], **options, activation="relu", algorithm=algorithm)

    torch.autograd.gradcheck(call, [x, *tensors])
    with torch.no_grad():
        for algorithm in ("auto", "fastvision"):
            torch.testing.assert_close(call(x, *tensors, algorithm=algorithm), call(x, *tensors, algorithm="torch"))
        torch.testing.assert_close(call(x[0], *tensors, algorithm="fastvision"), call(x, *tensors)[0])
    with pytest.raises(RuntimeError, match="separable_conv2d: this op has no gradient"):
        call(x, *tensors, algorithm="fastvision").sum().backward()


def test_tf32_is_used_only_where_torch_allows_it(backend):
    g = backend.vary(5)
    x, d, p = (torch.randn(*s, generator=g) for s in ((1, 40, 9, 7), (40, 1, 3, 3), (70, 40, 1, 1)))
    expected = separable_conv2d_reference(*(t.double() for t in (x, d, p)), padding=1)
    x, d, p = (t.to(backend.device) for t in (x, d, p))
    exact = ops.separable_conv2d(x, d, p, padding=1, algorithm="fastvision")
    with tf32(torch.backends.cudnn.conv):
        rounded = ops.separable_conv2d(x, d, p, padding=1, algorithm="fastvision")
    torch.testing.assert_close(exact.cpu().double(), expected, atol=2e-4, rtol=1e-5)
    torch.testing.assert_close(rounded.cpu().double(), expected, atol=0.1, rtol=1e-3)
    assert torch.equal(exact, rounded) == (backend.name == "cpu")


@pytest.mark.parametrize("kernel", [(5, 5), (6, 5)])
@pytest.mark.parametrize("format", FORMATS)
def test_many_taps_and_channels(backend, format, kernel):
    g = backend.vary(6)
    x = torch.randn(2, 72, 8, 9, generator=g, dtype=torch.float64)
    d, p = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((72, 1, *kernel), (300, 72, 1, 1)))
    expected = separable_conv2d_reference(x, d, p, padding=2)
    x, d, p = (t.to(backend.device) for t in (x.to(memory_format=format), d, p))
    torch.testing.assert_close(ops.separable_conv2d(x, d, p, padding=2, algorithm="fastvision").cpu(), expected)


def test_layouts_and_threads_give_equal_bits(backend):
    g = backend.vary(2)
    x, d, p = (
        torch.randn(*s, generator=g).to(backend.device) for s in ((2, 40, 20, 33), (40, 1, 3, 3), (30, 40, 1, 1))
    )
    wide = torch.cat([x, x], 3)
    for format in FORMATS:
        t, sliced = (t.to(memory_format=format) for t in (x, wide))
        expected = ops.separable_conv2d(t, d, p, padding=2, dilation=2, algorithm="fastvision")
        out = ops.separable_conv2d(sliced[..., :33], d, p, padding=2, dilation=2, algorithm="fastvision")
        assert torch.equal(out, expected)
        torch.set_num_threads(1)
        assert torch.equal(ops.separable_conv2d(t, d, p, padding=2, dilation=2, algorithm="fastvision"), expected)
        torch.set_num_threads(2)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_not_finite_values_reach_what_depends_on_them(backend, format, value):
    g = backend.vary(3)
    x = torch.rand(1, 3, 9, 20, generator=g).to(backend.device).to(memory_format=format)
    d, p = (torch.rand(*s, generator=g).to(backend.device) + 0.1 for s in ((3, 1, 3, 3), (5, 3, 1, 1)))
    options = {"padding": 4, "dilation": 4, "algorithm": "fastvision"}
    for which in range(3):
        arguments = [x.clone(), d.clone(), p.clone()]
        place = [(0, 0, 2, 2), (1, 0, 0, 2), (2, 1, 0, 0)][which]
        arguments[which][place] = value
        out = ops.separable_conv2d(*arguments, **options)
        marks = [torch.ones_like(t) for t in (x, d, p)]
        marks[which] = torch.zeros_like(marks[which])
        marks[which][place] = 1
        reached = separable_conv2d_reference(*marks, padding=4, dilation=4) != 0
        assert torch.equal(~out.isfinite(), reached)


@pytest.mark.parametrize("format", FORMATS)
def test_auto_fuses_what_is_narrow_or_wide_apart(format):
    def fuses(channels, dilation, dtype=torch.float32, **options):
        x = torch.rand(1, channels, 5, 5, dtype=dtype, **options).to(memory_format=format)
        factors = Factors(*(torch.rand(4, dtype=dtype) for _ in range(2)), None, None, None, None)
        return _fused_is_faster(x, factors, [1, 1, dilation, dilation])

    assert fuses(512, 2)
    assert fuses(513, 8)
    assert not fuses(513, 7)
    assert not fuses(16, 2, torch.bfloat16)
    assert not fuses(16, 2, requires_grad=True)


def test_module():
    module = nn.SeparableConv2d(4, 6, 3, 2, 2, depthwise_activation="relu", activation="relu")
    plain = torch.nn.Sequential(module.depthwise, torch.nn.ReLU(), module.pointwise, torch.nn.ReLU())
    x = torch.randn(2, 4, 7, 8)
    expected = plain(x)
    torch.testing.assert_close(module(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(module(x), expected)


def test_clear_errors(backend):
    x, d, p = (torch.rand(*s).to(backend.device) for s in ((1, 3, 5, 5), (3, 1, 3, 3), (4, 3, 1, 1)))
    for algorithm in ("auto", "fastvision", "torch"):
        for arguments, options, text in (
            ((x, d[:2], p), {}, "depthwise_weight: expected shape"),
            ((x, d, p[:, :2]), {}, "pointwise_weight: expected shape"),
            ((x, d, p, torch.zeros(4, device=x.device)), {}, r"depthwise_bias: expected shape \(3,\)"),
            ((x, d, p), {"scale_shift": (p[:, 0, 0, 0], d[:, 0, 0, 0])}, r"scale_shift: expected shape \(4,\)"),
            ((x, d, p), {"dilation": 0}, "dilation: expected an integer >= 1"),
            ((x, d, p), {"padding": -1}, "padding: expected an integer >= 0"),
            ((x, d, p), {"dilation": 3}, "padded map of at least the effective kernel size 7x7, got 5x5"),
            ((x, d, p), {"activation": "tanh"}, "activation: expected None or relu"),
            ((x[:, :, :0], d, p), {"padding": 1}, "at least one pixel"),
        ):
            with pytest.raises(ValueError, match=f"separable_conv2d: .*{text}"):
                ops.separable_conv2d(*arguments, **options, algorithm=algorithm)
        with pytest.raises(TypeError, match="separable_conv2d: pointwise_weight: expected dtype float32 as input"):
            ops.separable_conv2d(x, d, p.double(), algorithm=algorithm)
        with pytest.raises(TypeError, match="separable_conv2d: input: expected dtype"):
            ops.separable_conv2d(x.int(), d.int(), p.int(), algorithm=algorithm)
    with pytest.raises(ValueError, match="algorithm: expected auto, fastvision or torch"):
        ops.separable_conv2d(x, d, p, algorithm="cudnn")
