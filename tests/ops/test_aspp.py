"""Atrous spatial pyramid pooling, against plain torch in float64."""

import pytest
import torch
from fastvision import ops
from fastvision.ops.aspp import aspp_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, FORMATS, assert_close, seeds


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "batch": draw(st.sampled_from([0, 1, 2])),
        "size": draw(st.tuples(st.integers(1, 9), st.integers(1, 9))),
        "channels": draw(st.tuples(*[st.sampled_from([1, 2, 5])] * 3)),
        "rates": draw(st.lists(st.integers(1, 9), max_size=3)),
        "biases": draw(st.booleans()),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "format": draw(st.sampled_from(FORMATS)),
        "algorithm": draw(st.sampled_from(["auto", "fastvision", "torch"])),
    }


def problem_of(backend, p):
    """Small multiples of 1/4, so that little is rounded between the stages."""
    g = backend.vary(p["seed"])
    c, b, d = p["channels"]
    n = 2 + len(p["rates"])

    def draw(*shape):
        return (torch.randint(-2, 3, shape, generator=g) / 4).to(p["dtype"]).to(backend.device)

    weights = [draw(b, c, 1, 1), [draw(b, c, 3, 3) for _ in p["rates"]], draw(b, c, 1, 1), draw(d, n * b, 1, 1)]
    x = draw(p["batch"], c, *p["size"]).to(memory_format=p["format"])
    biases = [draw(b) for _ in range(n)] if p["biases"] else None
    return [x, *weights, p["rates"]], {"biases": biases, "projection_bias": draw(d) if p["biases"] else None}


def double(value):
    if isinstance(value, torch.Tensor):
        return value.double().contiguous()
    return [double(v) for v in value] if isinstance(value, list) and value and not isinstance(value[0], int) else value


@given(p=problems())
def test_matches_reference(backend, p):
    arguments, options = problem_of(backend, p)
    out = ops.aspp(*arguments, **options, algorithm=p["algorithm"])
    expected = aspp_reference(*map(double, arguments), **{name: double(v) for name, v in options.items()})
    assert out.dtype == p["dtype"]
    assert_close(out, expected, scale=2.0)  # 16-bit: the stages round one after the other
    if out.numel() and min(p["channels"]) > 1:
        assert out.is_contiguous(memory_format=p["format"])


@pytest.mark.parametrize("format", FORMATS)
def test_first_and_second_gradient(backend, format):
    g = backend.vary(1)

    def draw(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64).to(backend.device)

    x = draw(2, 2, 4, 3).to(memory_format=format).requires_grad_()
    rest = [draw(*s).requires_grad_() for s in ((2, 2, 1, 1), (2, 2, 3, 3), (2, 2, 1, 1), (3, 6, 1, 1), (2,))]

    def call(x, pointwise, atrous, pooling, projection, bias):
        biases = [bias, None, bias]
        return ops.aspp(x, pointwise, [atrous], pooling, projection, (2,), biases=biases, algorithm="fastvision")

    torch.autograd.gradcheck(call, (x, *rest))
    torch.autograd.gradgradcheck(call, (x, *rest))


def test_clear_errors(backend):
    x = torch.rand(1, 3, 5, 5, device=backend.device)
    one, three, projection = (torch.rand(*s, device=x.device) for s in ((2, 3, 1, 1), (2, 3, 3, 3), (4, 6, 1, 1)))
    for arguments, options, text in (
        ((x, one, [], one, projection, (6,)), {}, "atrous_weights: expected 1 as rates, got 0"),
        ((x, one, [one], one, projection, (6,)), {}, "atrous_weights: expected shape"),
        ((x, one, [three], three, projection, (6,)), {}, "pooling_weight: expected shape"),
        ((x, one, [three], one, projection[:, :4], (6,)), {}, "projection_weight: expected shape"),
        ((x, one, [three], one, projection, (0,)), {}, "rates: expected integers >= 1, got 0"),
        ((x, one, [three], one, projection, (6,)), {"biases": [None]}, "biases: expected 3, one per branch, got 1"),
        ((x[..., :0], one, [three], one, projection, (6,)), {}, "at least one pixel"),
        ((x, one, [three], one, projection, (6,)), {"algorithm": "fast"}, "algorithm: expected auto"),
    ):
        with pytest.raises(ValueError, match=f"aspp: {'.*' if 'pixel' in text else ''}{text}"):
            ops.aspp(*arguments, **options)
    with pytest.raises(TypeError, match="aspp: pooling_weight: expected dtype float32 as input, got float64"):
        ops.aspp(x, one, [three], one.double(), projection, (6,))
    with pytest.raises(TypeError, match=r"aspp: rates: expected integers, got 1\.5"):
        ops.aspp(x, one, [three], one, projection, (1.5,))
