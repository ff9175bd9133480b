import pytest
import torch
from fastvision import ops
from fastvision.ops.softmax_focal_loss import softmax_focal_loss_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, LAYOUTS, assert_close, seeds
from test_sigmoid_focal_loss import arrange, gammas, reductions, run
from torch.nn import functional

SHAPES = [(0, 3), (5, 1), (1, 2), (33, 80), (300, 7), (2, 5, 9), (2, 21, 9, 8), (2, 3, 0, 4), (1, 4, 30, 31), (3, 600)]
# Around the sizes of vectors, where classes lie together.
SHAPES += [(17, 31), (40, 32), (15, 33), (2, 65, 3, 5), (1, 95)]


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "shape": draw(st.sampled_from(SHAPES)),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "layouts": draw(st.tuples(st.sampled_from([*LAYOUTS, "channels_last"]), st.sampled_from(LAYOUTS))),
        "alpha": draw(st.sampled_from([None, 0.25])),
        "gamma": draw(gammas),
        "reduction": draw(reductions),
        "weighted": draw(st.booleans()),
        "ignore_index": draw(st.sampled_from([-100, 0, 2**40])),
    }


def inputs(backend, p):
    g = backend.vary(p["seed"])
    n, classes, *rest = p["shape"]
    x = (torch.randn(p["shape"], generator=g, dtype=torch.float64) * 4).to(p["dtype"])
    labels = torch.randint(0, classes, (n, *rest), generator=g)
    labels = torch.where(torch.rand(n, *rest, generator=g) < 0.2, p["ignore_index"], labels)
    weight = torch.rand(classes, generator=g) + 0.5 if p["weighted"] else None
    return x, labels, weight


@given(p=problems())
def test_matches_reference(backend, p):
    x, labels, weight = inputs(backend, p)
    options = {name: p[name] for name in ("alpha", "gamma", "reduction", "ignore_index")}
    moved = [arrange(t.to(backend.device), layout) for t, layout in zip((x, labels), p["layouts"])]
    on_device = None if weight is None else weight.to(backend.device)
    loss, gradient, g = run(ops.softmax_focal_loss, *moved, weight=on_device, **options)
    exact = x.double().requires_grad_()
    wide = None if weight is None else weight.double()
    expected = softmax_focal_loss_reference(exact, labels, weight=wide, **options)
    (expected_gradient,) = torch.autograd.grad(expected, exact, g.double().cpu())
    reduced = torch.float64 if p["dtype"] == torch.float64 else torch.float32
    assert loss.dtype == (p["dtype"] if p["reduction"] == "none" else reduced)
    assert_close(loss, expected, scale=max(1, labels.numel() / 100))
    # The reference's own gradient is not finite where p rounds to 1 and gamma < 1.
    assert_close(gradient, torch.where(expected_gradient.isfinite(), expected_gradient, gradient.double().cpu()))


@given(seed=seeds, reduction=reductions, weighted=st.booleans())
def test_without_focus_it_is_cross_entropy(backend, seed, reduction, weighted):
    g = backend.vary(seed)
    x, labels = torch.randn(40, 9, 3, generator=g) * 5, torch.randint(0, 9, (40, 3), generator=g)
    labels[5:9] = -100
    weight = torch.rand(9, generator=g) + 0.1 if weighted else None
    device = None if weight is None else weight.to(backend.device)
    loss = ops.softmax_focal_loss(
        x.to(backend.device), labels.to(backend.device), gamma=0, weight=device, reduction=reduction
    )
    wide = None if weight is None else weight.double()
    assert_close(loss, functional.cross_entropy(x.double(), labels, wide, reduction=reduction), scale=2)


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 1.0, 2.0, 40.0])
def test_finite_for_every_finite_input(backend, gamma):
    values = torch.tensor([0.0, -1e-30, 1.0, -87.4, 88.0, 1e4, -1e38, 1e38])
    x = torch.cartesian_prod(values, values, values).to(backend.device)
    for label in range(3):
        labels = torch.full((len(x),), label, device=backend.device)
        loss, gradient, _ = run(ops.softmax_focal_loss, x, labels, None, gamma, reduction="none")
        assert loss.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_gradcheck(backend, gamma, reduction):
    g = backend.vary(1)
    x = torch.randn(4, 5, 2, generator=g, dtype=torch.float64).to(backend.device).requires_grad_()
    labels = torch.tensor([[0, 4], [2, -100], [3, 1], [2, 2]], device=backend.device)
    weight = torch.rand(5, generator=g, dtype=torch.float64).to(backend.device)
    torch.autograd.gradcheck(
        lambda x: ops.softmax_focal_loss(x, labels, 0.5, gamma, weight=weight, reduction=reduction), (x,)
    )


def test_gradients_that_there_are_not_raise(backend):
    x, labels = torch.rand(5, 3, device=backend.device, requires_grad=True), torch.zeros(5, dtype=torch.long)
    labels, weight = labels.to(backend.device), torch.ones(3, device=backend.device, requires_grad=True)
    with pytest.raises(RuntimeError, match="softmax_focal_loss: weight: this argument has no gradient"):
        ops.softmax_focal_loss(x, labels, weight=weight).backward()
    (gradient,) = torch.autograd.grad(ops.softmax_focal_loss(x, labels), x, create_graph=True)
    with pytest.raises(RuntimeError, match="softmax_focal_loss_backward: this op has no gradient"):
        gradient.sum().backward()


def test_infinite_logits_of_other_classes_count_for_nothing(backend):
    x = torch.tensor([[1.0, -torch.inf, 2.0], [0.0, 1.0, -torch.inf]], device=backend.device)
    labels = torch.tensor([0, 1], device=backend.device)
    loss, gradient, _ = run(ops.softmax_focal_loss, x, labels, gamma=0.5, reduction="none")
    plain = ops.softmax_focal_loss(x[:1, ::2], labels[:1], gamma=0.5, reduction="none")
    assert torch.equal(loss[:1], plain)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("shape", [(700, 30), (3, 30, 21, 17)])
def test_same_bits_for_any_threads_and_instruction_set(shape):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=g)
    labels = torch.randint(0, 30, (shape[0], *shape[2:]), generator=g)
    results = []
    for threads in (1, 2, 3):
        for isa in ("baseline", "avx2", "avx512"):
            torch.set_num_threads(threads)
            try:
                torch.ops.fastvision.set_cpu_isa(isa)
            except RuntimeError:  # this machine has it not
                continue
            results.append(run(ops.softmax_focal_loss, x, labels, gamma=1.5)[:2])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_keeps_channels_last(backend):
    x = torch.randn(2, 3, 4, 5, device=backend.device).to(memory_format=torch.channels_last).requires_grad_()
    loss = ops.softmax_focal_loss(x, torch.zeros(2, 4, 5, dtype=torch.long, device=backend.device))
    assert torch.autograd.grad(loss, x)[0].is_contiguous(memory_format=torch.channels_last)


def test_gradient_larger_than_caches():
    """It is stored past them, and has the bits of that of a part."""
    g = torch.Generator().manual_seed(0)
    x, labels = torch.randn(1, 21, 650, 650, generator=g), torch.randint(0, 21, (1, 650, 650), generator=g)
    whole = run(ops.softmax_focal_loss, x, labels, reduction="sum")[1]
    part = run(ops.softmax_focal_loss, x[:, :, :64], labels[:, :64], reduction="sum")[1]
    assert whole.nbytes >= 2**25 > part.nbytes
    assert torch.equal(whole[:, :, :64], part)
    part = run(ops.softmax_focal_loss, x[:, :, -63:], labels[:, -63:], reduction="sum")[1]
    assert torch.equal(whole[:, :, -63:], part)
