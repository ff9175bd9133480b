from functools import partial

import pytest
import torch
from fastvision import ops
from fastvision.ops.total_variation import total_variation_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, FORMATS, LAYOUTS, assert_close, lay_out, seeds

FORMS = [
    {"p": 1},
    {"p": 2},
    {"isotropic": True},
    {"isotropic": True, "beta": 1.0},
    {"isotropic": True, "beta": 1.5},
    {"isotropic": True, "beta": 3.0},
]


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "planes": draw(st.sampled_from([(), (1,), (2, 3), (2, 0), (1, 33), (3, 17), (2, 2, 2)])),
        "size": draw(st.tuples(*2 * [st.sampled_from([0, 1, 2, 3, 7, 8, 9, 16, 17, 31, 33, 65])])),
        "form": draw(st.sampled_from(FORMS)),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "format": draw(st.sampled_from(FORMATS)),
        "layout": draw(st.sampled_from(LAYOUTS)),
    }


def input_of(backend, p):
    g = backend.vary(p["seed"])
    x = torch.randint(-8, 8, (*p["planes"], *p["size"]), generator=g) / 8  # many equal neighbours
    if len(p["planes"]) == 2:
        x = x.to(memory_format=p["format"])
    return lay_out(x.to(p["dtype"]), p["layout"])


@given(p=problems())
def test_matches_reference(backend, p):
    x = input_of(backend, p)
    out = ops.total_variation(x.to(backend.device), **p["form"], reduction="none")
    expected = total_variation_reference(x.double(), **p["form"])
    assert out.dtype == (torch.float64 if p["dtype"] == torch.float64 else torch.float32)
    assert_close(out, expected)
    for reduction in ("sum", "mean"):
        got = ops.total_variation(x.to(backend.device), **p["form"], reduction=reduction)
        assert_close(got, getattr(expected, reduction)() if expected.numel() else torch.zeros(()))


@given(p=problems())
def test_gradient_matches_reference(backend, p):
    x = input_of(backend, p)
    ours, theirs = x.to(backend.device).requires_grad_(), x.double().requires_grad_()
    out = ops.total_variation(ours, **p["form"], reduction="none")
    g = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(p["seed"]))
    (gradient,) = torch.autograd.grad(out, ours, g.to(out))
    (expected,) = torch.autograd.grad(total_variation_reference(theirs, **p["form"]), theirs, g.to(out.dtype).double())
    assert gradient.dtype == x.dtype
    assert_close(gradient, expected)
    if len(p["planes"]) == 2 and p["layout"] == "contiguous" and x.numel() and x.shape[1] > 1:
        assert gradient.is_contiguous(memory_format=p["format"])


@pytest.mark.parametrize("form", FORMS)
def test_first_and_second_gradient(backend, form):
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=backend.vary(1)).to(backend.device).requires_grad_()
    for f in (partial(ops.total_variation, **form), partial(ops.total_variation, **form, reduction="none")):
        torch.autograd.gradcheck(f, (x,))
        torch.autograd.gradgradcheck(f, (x,))


def test_layouts_and_threads_give_equal_bits(backend):
    x = torch.rand(2, 5, 70, 33, generator=backend.vary(2)).to(backend.device)
    expected = ops.total_variation(x, reduction="none")
    assert torch.equal(ops.total_variation(lay_out(x, "strided"), reduction="none"), expected)
    torch.set_num_threads(1)
    assert torch.equal(ops.total_variation(x, reduction="none"), expected)


def test_not_finite_values_stay_in_their_plane(backend):
    x = torch.rand(1, 4, 9, 9, generator=backend.vary(3)).to(backend.device)
    clean = ops.total_variation(x, reduction="none")
    x[0, 1, 4, 4], x[0, 3, 8, 8] = torch.nan, torch.inf
    for format in FORMATS:
        moved = x.to(memory_format=format).requires_grad_()
        out = ops.total_variation(moved, reduction="none")
        torch.testing.assert_close(out[0, ::2], clean[0, ::2])
        assert out[0, 1].isnan()
        assert out[0, 3] == torch.inf
        (gradient,) = torch.autograd.grad(out.sum(), moved)
        assert gradient[0, 1].isnan().nonzero().tolist() == [[3, 4], [4, 3], [4, 4], [4, 5], [5, 4]]
        assert gradient[0, [0, 2, 3]].isfinite().all()


def test_sums_of_16_bit_images_do_not_stall(backend):
    x = torch.arange(512).remainder(2).expand(512, 512).to(backend.device, torch.bfloat16)
    assert ops.total_variation(x).item() == 512 * 511


def test_vmap_equals_a_loop(backend):
    x = torch.rand(3, 2, 4, 5, generator=backend.vary(4)).to(backend.device)
    mapped = torch.func.vmap(ops.total_variation, in_dims=1)(x)
    torch.testing.assert_close(mapped, torch.stack([ops.total_variation(x[:, i]) for i in range(2)]))


def test_bad_arguments(backend):
    x = torch.rand(4, 4, device=backend.device)
    for options in ({"p": 3}, {"reduction": "avg"}, {"isotropic": True, "beta": 0.0}):
        with pytest.raises(ValueError, match=r"total_variation: (p|reduction|beta): expected"):
            ops.total_variation(x, **options)
    with pytest.raises(ValueError, match=r"x: expected shape \(..., H, W\)"):
        ops.total_variation(x[0])
    with pytest.raises(TypeError, match="x: expected dtype float16"):
        ops.total_variation(x.int())
