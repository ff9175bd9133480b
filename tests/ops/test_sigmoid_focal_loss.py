import pytest
import torch
from fastvision import ops
from fastvision.ops.sigmoid_focal_loss import sigmoid_focal_loss_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, LAYOUTS, assert_close, lay_out, seeds
from torch.nn import functional

SHAPES = [(), (7,), (0, 5), (3, 0), (5, 1), (33, 80), (2, 3, 17), (2, 21, 9, 8), (1, 4096), (1025, 2), (40, 91)]
LABELLED = [(0, 5), (5, 1), (33, 80), (2, 3, 17), (1025, 2), (40, 91), (1, 3000)]
gammas = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.7])
alphas = st.sampled_from([-1.0, 0.0, 0.25, 1.0])
reductions = st.sampled_from(["none", "mean", "sum"])


@st.composite
def problems(draw, shapes):
    return {
        "seed": draw(seeds),
        "shape": draw(st.sampled_from(shapes)),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "layouts": draw(st.tuples(st.sampled_from([*LAYOUTS, "channels_last"]), st.sampled_from(LAYOUTS))),
        "numbers": (draw(alphas), draw(gammas), draw(reductions)),
        "weighted": draw(st.booleans()),
        "ignore": draw(st.booleans()),
    }


def arrange(t, layout):
    if layout == "channels_last":
        return t.to(memory_format=torch.channels_last) if t.dim() == 4 else t
    return lay_out(t, layout) if t.dim() else t


def run(f, inputs, *args, grad_seed=0, **options):
    """The loss, and its gradient for a random gradient of the loss."""
    inputs = inputs.detach().requires_grad_()
    loss = f(inputs, *args, **options)
    g = torch.randn(loss.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(grad_seed))
    g = g.to(loss.device, loss.dtype)
    return loss.detach(), torch.autograd.grad(loss, inputs, g)[0], g


def expected_of(p, inputs, targets, kept, weight, g):
    """By the reference in float64: ignored values taken out, weights multiplied in."""
    alpha, gamma, reduction = p["numbers"]
    x = inputs.double().cpu().requires_grad_()
    losses = sigmoid_focal_loss_reference(x, torch.where(kept, targets.double(), 0), alpha, gamma)
    losses = torch.where(kept, losses if weight is None else losses * weight.double().cpu(), 0)
    loss = losses if reduction == "none" else losses.sum() / (max(kept.sum(), 1) if reduction == "mean" else 1)
    return loss.detach(), torch.autograd.grad(loss, x, g.double().cpu())[0]


def compare(p, backend, inputs, targets, dense, kept, weight, ignore):
    alpha, gamma, reduction = p["numbers"]
    options = {"weight": weight, "ignore_index": ignore}
    loss, gradient, g = run(ops.sigmoid_focal_loss, inputs, targets, alpha, gamma, reduction, **options)
    expected, expected_gradient = expected_of(p, inputs, dense, kept, weight, g)
    reduced = torch.float64 if p["dtype"] == torch.float64 else torch.float32
    assert loss.dtype == (p["dtype"] if reduction == "none" else reduced)
    assert loss.shape == expected.shape
    assert gradient.dtype == p["dtype"]
    assert_close(loss, expected, scale=max(1, inputs.numel() / 100) if reduction == "sum" else 1)
    assert_close(gradient, expected_gradient)


@given(p=problems(SHAPES))
def test_dense_targets(backend, p):
    g = backend.vary(p["seed"])
    x = (torch.randn(p["shape"], generator=g, dtype=torch.float64) * 4).to(p["dtype"])
    hard = torch.rand(p["shape"], generator=g) < 0.3
    soft = torch.rand(p["shape"], generator=g)
    targets = torch.where(torch.rand(p["shape"], generator=g) < 0.5, hard, soft).to(p["dtype"])
    kept = torch.ones(p["shape"], dtype=torch.bool)
    if p["ignore"]:
        kept = torch.rand(p["shape"], generator=g) < 0.8
        targets = torch.where(kept, targets, 255)
    weight = torch.rand(p["shape"][-1], generator=g) + 0.5 if p["weighted"] and p["shape"] else None
    x, t = (arrange(v.to(backend.device), layout) for v, layout in zip((x, targets), p["layouts"]))
    weight = None if weight is None else weight.to(backend.device)
    compare(p, backend, x, t, targets, kept, weight, 255 if p["ignore"] else None)


@given(p=problems(LABELLED), label_type=st.sampled_from([torch.int64, torch.int32, torch.uint8]))
def test_class_labels(backend, p, label_type):
    g = backend.vary(p["seed"])
    *rows, classes = p["shape"]
    x = (torch.randn(p["shape"], generator=g, dtype=torch.float64) * 4).to(p["dtype"])
    labels = torch.randint(0, classes + 1, rows, generator=g).clamp(max=250)
    dense = functional.one_hot(labels, max(classes + 1, 251))[..., :classes]
    kept = torch.ones(p["shape"], dtype=torch.bool)
    if p["ignore"]:
        rows_kept = torch.rand(rows, generator=g) < 0.8
        labels, kept = torch.where(rows_kept, labels, 255), rows_kept[..., None].expand(p["shape"])
    weight = (torch.rand(classes, generator=g) + 0.5).to(backend.device) if p["weighted"] else None
    x = arrange(x.to(backend.device), p["layouts"][0])
    labels = lay_out(labels.to(backend.device, label_type), p["layouts"][1])
    compare(p, backend, x, labels, dense, kept, weight, 255 if p["ignore"] else None)


@given(seed=seeds, reduction=reductions)
def test_without_focus_it_is_binary_cross_entropy(backend, seed, reduction):
    g = backend.vary(seed)
    x, t = torch.randn(70, 9, generator=g) * 3, torch.rand(70, 9, generator=g)
    loss = ops.sigmoid_focal_loss(x.to(backend.device), t.to(backend.device), -1, 0, reduction)
    assert_close(loss, functional.binary_cross_entropy_with_logits(x.double(), t.double(), reduction=reduction))


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 1.0, 2.0, 40.0])
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_finite_for_every_finite_input(backend, gamma, reduction):
    sizes = torch.tensor([0.0, 1e-45, 1e-38, 1e-8, 1e-3, 1, 16, 80, 87.3, 87.4, 88, 104, 1e4, 1e30, 3.4e38])
    x = torch.cat([sizes, -sizes]).to(backend.device)
    for t in (0.0, 1e-45, 1e-38, 1e-7, 0.5, 1 - 2**-24, 1.0):
        for alpha in (-1.0, 0.25):
            loss, gradient, _ = run(ops.sigmoid_focal_loss, x, torch.full_like(x, t), alpha, gamma, reduction)
            assert gradient.isfinite().all()
            assert reduction == "sum" or loss.isfinite().all()


def test_nan_reaches_what_depends_on_it(backend):
    x, t = torch.zeros(40), torch.zeros(40)
    x[7], t[33] = torch.nan, torch.nan
    loss, gradient, _ = run(ops.sigmoid_focal_loss, x.to(backend.device), t.to(backend.device))
    assert loss.isnan().nonzero().flatten().tolist() == [7, 33]
    assert gradient.isnan().nonzero().flatten().tolist() == [7, 33]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_gradcheck(backend, gamma, reduction):
    g = backend.vary(1)
    x = torch.randn(4, 3, generator=g, dtype=torch.float64, device="cpu").to(backend.device).requires_grad_()
    t = torch.rand(4, 3, generator=g, dtype=torch.float64).to(backend.device)
    labels = torch.tensor([0, 3, 2, 1], device=backend.device)
    torch.autograd.gradcheck(lambda x: ops.sigmoid_focal_loss(x, t, 0.25, gamma, reduction), (x,))
    torch.autograd.gradcheck(lambda x: ops.sigmoid_focal_loss(x, labels, 0.25, gamma, reduction, ignore_index=2), (x,))


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_gradients_that_there_are_not_raise(backend, reduction):
    x, t = (torch.rand(5, device=backend.device, requires_grad=True) for _ in range(2))
    with pytest.raises(RuntimeError, match="sigmoid_focal_loss: targets: this argument has no gradient"):
        ops.sigmoid_focal_loss(x, t, reduction=reduction).sum().backward()
    (gradient,) = torch.autograd.grad(ops.sigmoid_focal_loss(x, t.detach(), reduction="sum"), x, create_graph=True)
    with pytest.raises(RuntimeError, match="sigmoid_focal_loss_backward: this op has no gradient"):
        gradient.sum().backward()


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_gradient_of_the_forward_pass_is_not_shared(backend, factor):
    """With retain_graph the gradient that the forward pass computed is used again."""
    x = torch.randn(50, generator=backend.vary(0)).to(backend.device).requires_grad_()
    loss = ops.sigmoid_focal_loss(x, torch.zeros_like(x), reduction="sum") * factor
    loss.backward(retain_graph=True)
    once = x.grad.clone()
    loss.backward(retain_graph=True)
    assert torch.equal(x.grad, 2 * once)
    x.grad.zero_()
    loss.backward()
    assert torch.equal(x.grad, once)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_same_bits_for_any_threads_and_instruction_set(dtype):
    g = torch.Generator().manual_seed(0)
    x, t = ((torch.rand(50, 409, generator=g) * 4).to(dtype) for _ in range(2))
    results = []
    for threads in (1, 2, 3):
        for isa in ("baseline", "avx2", "avx512"):
            torch.set_num_threads(threads)
            try:
                torch.ops.fastvision.set_cpu_isa(isa)
            except RuntimeError:  # this machine has it not
                continue
            results.append(run(ops.sigmoid_focal_loss, x, t / 4, 0.25, 1.5, "mean")[:2])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_keeps_channels_last(backend):
    x = torch.randn(2, 3, 4, 5, device=backend.device).to(memory_format=torch.channels_last).requires_grad_()
    loss = ops.sigmoid_focal_loss(x, torch.zeros(2, 3, 4, 5, device=backend.device))
    assert loss.is_contiguous(memory_format=torch.channels_last)
    assert torch.autograd.grad(loss.sum(), x)[0].is_contiguous(memory_format=torch.channels_last)


def test_autocast_promotes(backend):
    x, t = torch.randn(9, device=backend.device).bfloat16(), torch.rand(9, device=backend.device)
    with pytest.raises(TypeError, match="targets: expected dtype bfloat16 as inputs, got float32"):
        ops.sigmoid_focal_loss(x, t)
    with torch.autocast(backend.device, torch.bfloat16):
        assert torch.equal(ops.sigmoid_focal_loss(x, t), ops.sigmoid_focal_loss(x.float(), t))
        assert ops.sigmoid_focal_loss(x, t.bfloat16()).dtype == torch.bfloat16
