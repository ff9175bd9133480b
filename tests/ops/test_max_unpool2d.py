import pytest
import torch
from fastvision import ops
from fastvision.ops.max_unpool2d import max_unpool2d_reference
from hypothesis import given
from support import lay_out
from test_max_pool2d import input_of, pairs, problems


@given(p=problems(dilations=(1,)))
def test_unpool_matches_reference(backend, p):
    """Overlapping windows included, where of equal places the last value stays and alone has a gradient."""
    p = {**p, "nan": False}
    x = input_of(backend, p)
    out, index = ops.max_pool2d(
        x.to(backend.device), *pairs(p["window"]), return_indices=True, compact_indices=p["compact"]
    )
    if not p["compact"]:  # anywhere, not only in the own window
        g = torch.Generator().manual_seed(p["seed"])
        anywhere = torch.randint(0, p["size"][0] * p["size"][1], index.shape, generator=g).to(backend.device)
        index = torch.where(
            torch.rand(index.shape, generator=g).to(backend.device) < 0.2 * (p["seed"] % 2), anywhere, index
        )
    kernel, stride, padding, _ = pairs(p["window"])
    values = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(backend.device, p["dtype"])
    ours = lay_out(values.to(memory_format=p["format"]), p["layout"]).requires_grad_()
    got = ops.max_unpool2d(ours, lay_index(index, p), kernel, stride, padding, p["size"])
    theirs = values.double().cpu().requires_grad_()
    expected = max_unpool2d_reference(theirs, index.cpu(), p["window"], p["size"])
    assert got.dtype == p["dtype"]
    torch.testing.assert_close(got.double().cpu(), expected, rtol=0, atol=0)
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(2)).to(p["dtype"])
    (gradient,) = torch.autograd.grad(got, ours, weight.to(backend.device))
    (wanted,) = torch.autograd.grad(expected, theirs, weight.double())
    torch.testing.assert_close(gradient.double().cpu(), wanted, rtol=0, atol=0)


def lay_index(index, p):
    return index.to(memory_format=p["format"]) if p["seed"] % 2 else index.contiguous()


@pytest.mark.parametrize("compact", [False, True])
def test_unpool_of_pool_keeps_exactly_the_maxima(backend, compact):
    x = torch.randperm(2 * 3 * 18 * 35, generator=backend.vary(1)).view(2, 3, 18, 35).float().to(backend.device) + 1
    out, index = ops.max_pool2d(x, 2, return_indices=True, compact_indices=compact)
    back = ops.max_unpool2d(out, index, 2, output_size=x.shape)
    assert torch.equal(back, torch.where(torch.isin(x, out), x, 0))
    assert torch.equal(ops.max_unpool2d(out[0], index[0], 2, output_size=x.shape), back[0])


@pytest.mark.parametrize("compact", [False, True])
def test_first_and_second_gradients(backend, compact):
    x = torch.randperm(2 * 5 * 6, generator=backend.vary(2)).view(1, 2, 5, 6).double().to(backend.device)
    out, index = ops.max_pool2d(x, 3, 2, 1, return_indices=True, compact_indices=compact)
    unpool = lambda x: ops.max_unpool2d(x, index, 3, 2, 1, (5, 6))  # noqa: E731
    torch.autograd.gradcheck(unpool, (out.requires_grad_(),))
    torch.autograd.gradgradcheck(unpool, (out,))


def test_vmap_equals_a_loop(backend):
    x = torch.rand(3, 2, 4, 6, 6, generator=backend.vary(3)).to(backend.device)
    pooled = [ops.max_pool2d(v, 2, return_indices=True) for v in x]
    out, index = (torch.stack(t) for t in zip(*pooled))
    back = torch.func.vmap(lambda x, i: ops.max_unpool2d(x, i, 2))(out, index)
    assert torch.equal(back, torch.stack([ops.max_unpool2d(o, i, 2) for o, i in pooled]))


def test_bad_output_size(backend):
    out, index = ops.max_pool2d(torch.rand(1, 2, 4, 4, device=backend.device), 2, return_indices=True)
    with pytest.raises(ValueError, match=r"output_size: expected between \[3, 3\] and \[5, 5\], got \[6, 4\]"):
        ops.max_unpool2d(out, index, 2, output_size=(6, 4))


def test_index_out_of_the_map(backend):
    x = torch.ones(1, 1, 2, 2, device=backend.device)
    index = torch.tensor([[[[0, 3], [99, 12]]]], device=backend.device)
    if backend.name == "cpu":
        with pytest.raises(ValueError, match=r"indices: .* row 2, got 99"):
            ops.max_unpool2d(x, index, 2)
    else:
        assert ops.max_unpool2d(x, index, 2).sum() == 3
        assert ops.device_errors(backend.device) == (1, ("max_unpool2d", 2))
