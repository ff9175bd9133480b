import pytest
import torch
from fastvision import ops
from fastvision.ops.gram_loss import gram_loss_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, FORMATS, LAYOUTS, assert_close, lay_out, seeds, tf32


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "batch": draw(st.sampled_from([0, 1, 2, 3])),
        "channels": draw(st.sampled_from([0, 1, 2, 5, 17, 64, 65])),
        "size": draw(st.sampled_from([(0, 3), (1, 1), (4, 8), (5, 7), (1, 129), (1, 2053)])),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "format": draw(st.sampled_from(FORMATS)),
        "layout": draw(st.sampled_from(LAYOUTS)),
        "one_target": draw(st.booleans()),
        "normalize": draw(st.booleans()),
    }


def inputs_of(backend, p):
    """Small integers and a target that is not symmetric: sums are exact in float32."""
    g = backend.vary(p["seed"])
    x = torch.randint(-3, 4, (p["batch"], p["channels"], *p["size"]), generator=g).to(p["dtype"])
    images = 1 if p["one_target"] else p["batch"]
    target = torch.randint(-9, 10, (images, p["channels"], p["channels"]), generator=g)
    x = lay_out(x.to(memory_format=p["format"]), p["layout"])
    return x.to(backend.device), target.to(
        backend.device, torch.float64 if p["dtype"] == torch.float64 else torch.float32
    )


@given(p=problems())
def test_matches_reference(backend, p):
    x, target = inputs_of(backend, p)
    expected = gram_loss_reference(x.double(), target.double(), normalize=p["normalize"])
    losses = ops.gram_loss(x, target, normalize=p["normalize"], reduction="none")
    assert losses.dtype == target.dtype
    torch.testing.assert_close(losses.double(), expected, rtol=1e-6, atol=1e-6)
    for reduction, reduced in (("sum", expected.sum()), ("mean", expected.sum() / max(len(expected), 1))):
        loss = ops.gram_loss(x, target, normalize=p["normalize"], reduction=reduction)
        torch.testing.assert_close(loss.double(), reduced, rtol=1e-6, atol=1e-6)


@given(p=problems())
def test_gradient_matches_reference(backend, p):
    x, target = inputs_of(backend, p)
    ours, theirs = x.requires_grad_(), x.detach().double().requires_grad_()
    loss = ops.gram_loss(ours, target, normalize=p["normalize"], reduction="sum")
    expected = gram_loss_reference(theirs, target.double(), normalize=p["normalize"]).sum()
    (a,), (b,) = torch.autograd.grad(loss, [ours]), torch.autograd.grad(expected, [theirs])
    assert a.dtype == p["dtype"]
    if p["dtype"] == torch.float16:
        a, b = (t.clamp(-65504, 65504) for t in (a, b.to(a)))
    assert_close(a, b)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("images", [1, 2])
def test_first_and_second_gradient(backend, normalize, images):
    g = backend.vary(1)
    x = torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=g).to(backend.device).requires_grad_()
    target = torch.randn(images, 3, 3, dtype=torch.float64, generator=g).to(backend.device)
    for reduction in ("none", "mean"):
        options = {"normalize": normalize, "reduction": reduction}
        torch.autograd.gradcheck(lambda t, options=options: ops.gram_loss(t, target, **options), x)
        torch.autograd.gradgradcheck(lambda t, options=options: ops.gram_loss(t, target, **options), x)


def test_is_the_mean_squared_error_of_gram_matrix(backend):
    x, style = (torch.rand(n, 70, 12, 9, generator=backend.vary(n)).to(backend.device) for n in (2, 1))
    target = ops.gram_matrix(style, normalize=True)
    expected = torch.nn.functional.mse_loss(ops.gram_matrix(x, normalize=True), target.expand(2, -1, -1))
    torch.testing.assert_close(ops.gram_loss(x, target, normalize=True), expected)
    assert ops.gram_loss(style, target, normalize=True) == 0


def test_threads_give_equal_bits(backend):
    x = torch.randn(2, 300, 9, 40, generator=backend.vary(2)).to(backend.device)
    target = torch.zeros(1, 300, 300, device=backend.device)
    expected = ops.gram_loss(x, target, reduction="none")
    torch.set_num_threads(1)
    try:
        assert torch.equal(ops.gram_loss(x, target, reduction="none"), expected)
    finally:
        torch.set_num_threads(2)


def test_tf32_is_used_only_where_torch_allows_it(backend):
    x = torch.randn(1, 70, 16, 16, generator=backend.vary(5)).to(backend.device)
    target = torch.zeros(1, 70, 70, device=backend.device)
    exact, expected = ops.gram_loss(x, target), gram_loss_reference(x.double(), target.double())[0]
    with tf32(torch.backends.cuda.matmul):
        rounded = ops.gram_loss(x, target)
    torch.testing.assert_close(exact.double(), expected, atol=0, rtol=1e-6)
    torch.testing.assert_close(rounded.double(), expected, atol=0, rtol=1e-3)
    assert torch.equal(rounded, exact) == (backend.name == "cpu")


def test_not_finite_values_stay_in_their_image(backend):
    x = torch.randn(3, 4, 5, 5, generator=backend.vary(3)).to(backend.device)
    target = torch.zeros(1, 4, 4, device=backend.device)
    clean = ops.gram_loss(x, target, reduction="none")
    x[0, 1, 2, 3], x[2, 0, 0, 0] = torch.nan, torch.inf
    losses = ops.gram_loss(x, target, reduction="none")
    assert losses[0].isnan()
    assert losses[1] == clean[1]
    assert not losses[2].isfinite()


def test_vmap_equals_a_loop(backend):
    x = torch.randn(3, 2, 4, 5, 6, generator=backend.vary(4)).to(backend.device)
    for target in (torch.rand(1, 4, 4).to(x.device), torch.rand(3, 4, 4).to(x.device)):
        mapped = torch.func.vmap(lambda t, target=target: ops.gram_loss(t, target, reduction="none"), in_dims=1)(x)
        expected = torch.stack([ops.gram_loss(x[:, i], target, reduction="none") for i in range(2)])
        torch.testing.assert_close(mapped, expected)


def test_bad_arguments(backend):
    x, target = torch.rand(2, 3, 4, 5, device=backend.device), torch.zeros(1, 3, 3, device=backend.device)
    with pytest.raises(ValueError, match=r"gram_loss: x: expected shape \(N, C, H, W\), got \(3, 4, 5\)"):
        ops.gram_loss(x[0], target)
    for wrong in (target[0], target.expand(3, 3, 3), target[:, :2]):
        with pytest.raises(ValueError, match="gram_loss: target: expected shape"):
            ops.gram_loss(x, wrong)
    with pytest.raises(TypeError, match="gram_loss: target: expected dtype float32, got float64"):
        ops.gram_loss(x.half(), target.double())
    with pytest.raises(TypeError, match="gram_loss: x: expected dtype float16"):
        ops.gram_loss(x.int(), target)
    with pytest.raises(ValueError, match="gram_loss: reduction: expected 'none', 'mean' or 'sum', got 'max'"):
        ops.gram_loss(x, target, reduction="max")
    with pytest.raises(RuntimeError, match="target"):
        ops.gram_loss(x.requires_grad_(), target.requires_grad_()).backward()
