import math

import pytest
import torch
from fastvision import ops
from fastvision.ops.box_coder import decode_boxes_reference, encode_boxes_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, LAYOUTS, assert_close, lay_out, seeds


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "shape": draw(st.sampled_from([(), (0,), (1,), (7,), (16,), (33,), (65,), (2, 5), (3, 300)])),
        "classes": draw(st.sampled_from([None, 1, 3, 17])),
        "weights": draw(st.sampled_from([(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (1.0, 2.0, 3.0, 4.0)])),
        "image_size": draw(st.sampled_from([None, (20, 30)])),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "layout": draw(st.sampled_from(LAYOUTS)),
    }


def inputs(backend, p):
    g = backend.vary(p["seed"])

    def boxes(*shape):
        corner = torch.rand(*shape, 2, generator=g, dtype=torch.float64) * 20
        return torch.cat([corner, corner + torch.rand(*shape, 2, generator=g, dtype=torch.float64) * 9 + 1], -1)

    inner = p["shape"] if p["classes"] is None else (*p["shape"], p["classes"])
    reference, target = boxes(*p["shape"]), boxes(*inner)
    codes = torch.randn(*inner, 4, generator=g, dtype=torch.float64) * torch.tensor([1.0, 1.0, 3.0, 3.0])
    return [lay_out(t.to(p["dtype"]).to(backend.device), p["layout"]) for t in (reference, target, codes)]


def wide(t):
    return t.double().cpu()


@given(p=problems())
def test_matches_reference(backend, p):
    reference, target, codes = inputs(backend, p)
    encoded = ops.encode_boxes(reference, target, p["weights"])
    assert encoded.dtype == p["dtype"]
    assert_close(encoded, encode_boxes_reference(wide(reference), wide(target), p["weights"]), scale=4.0)
    options = {"clip": 2.0, "image_size": p["image_size"]}
    decoded = ops.decode_boxes(reference, codes, p["weights"], **options)
    assert decoded.dtype == p["dtype"]
    assert_close(decoded, decode_boxes_reference(wide(reference), wide(codes), p["weights"], **options), scale=10.0)


@given(p=problems())
def test_gradients_match_reference(backend, p):
    p = {**p, "dtype": torch.float64}
    reference, target, codes = inputs(backend, p)
    options = {"clip": 2.0, "image_size": p["image_size"]}
    for f, f_reference, other in (
        (ops.encode_boxes, encode_boxes_reference, target),
        (
            lambda *args: ops.decode_boxes(*args, **options),
            lambda *args: decode_boxes_reference(*args, **options),
            codes,
        ),
    ):
        ours = [t.detach().requires_grad_() for t in (reference, other)]
        theirs = [wide(t).detach().requires_grad_() for t in (reference, other)]
        out, expected = f(*ours, p["weights"]), f_reference(*theirs, p["weights"])
        grad = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(p["seed"]))
        wanted = torch.autograd.grad(expected, theirs, grad)
        for gradient, want in zip(torch.autograd.grad(out, ours, grad.to(backend.device)), wanted):
            assert_close(gradient, want, scale=10.0)


@given(p=problems())
def test_decoding_inverts_encoding(backend, p):
    reference, target, _ = inputs(backend, {**p, "dtype": torch.float32})
    codes = ops.encode_boxes(reference, target, p["weights"])
    assert_close(ops.decode_boxes(reference, codes, p["weights"]), target, scale=10.0)


def test_clip_keeps_the_exponential_finite(backend):
    reference = torch.tensor([[0.0, 0.0, 10.0, 10.0]], device=backend.device)
    box = ops.decode_boxes(reference, torch.tensor([[0.0, 0.0, 1e4, -1e4]], device=backend.device))
    side = 10 * 1000 / 16
    assert_close(box, torch.tensor([[5 - side / 2, 5.0, 5 + side / 2, 5.0]]), scale=10.0)
    assert math.isclose(math.exp(math.log(1000 / 16)), 1000 / 16)


@pytest.mark.parametrize("f", [ops.encode_boxes, ops.decode_boxes])
def test_gradcheck(backend, f):
    g = torch.Generator().manual_seed(0)
    corner = torch.rand(3, 2, generator=g, dtype=torch.float64)
    reference = torch.cat([corner, corner + 1 + torch.rand(3, 2, generator=g, dtype=torch.float64)], 1)
    other = reference[:, None].repeat(1, 2, 1) + 0.1 * torch.rand(3, 2, 4, generator=g, dtype=torch.float64)
    inputs = [t.to(backend.device).requires_grad_() for t in (reference, other)]
    torch.autograd.gradcheck(f, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unusual_numbers_among_ordinary_ones(backend, dtype):
    """Empty sides, infinities and NaN give what the formula gives, and leave the boxes beside them alone."""
    backend.vary(None)
    reference = torch.tensor([[0.0, 0, 4, 8]], dtype=dtype).repeat(40, 1)
    target = torch.tensor([[1.0, 1, 3, 9]], dtype=dtype).repeat(40, 1)
    codes = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=dtype).repeat(40, 1)
    target[3, 2], target[17, 3], target[20, 2], target[39, 0] = 1.0, -1.0, torch.inf, torch.nan
    target[5, 2] = 1.0 + 1e-3
    codes[3, 2], codes[17, 3], codes[20, 2], codes[39, 2] = -torch.inf, -95.0, 1e30, torch.nan
    moved = [t.to(backend.device) for t in (reference, target, codes)]
    for got, want in (
        (ops.encode_boxes(moved[0], moved[1]), encode_boxes_reference(reference, target)),
        (ops.decode_boxes(moved[0], moved[2]), decode_boxes_reference(reference, codes)),
        (ops.decode_boxes(moved[0], moved[2], clip=95.0), decode_boxes_reference(reference, codes, clip=95.0)),
    ):
        torch.testing.assert_close(got.cpu(), want, equal_nan=True, rtol=1e-5, atol=1e-6)
