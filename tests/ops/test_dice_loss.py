import itertools

import pytest
import torch
from fastvision import ops
from fastvision.ops.dice_loss import dice_loss_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, LAYOUTS, assert_close, lay_out, seeds
from test_sigmoid_focal_loss import arrange, run
from torch.nn import functional

SHAPES = [
    (0, 3, 4),
    (2, 0, 4),
    (2, 3),
    (2, 1, 5),
    (2, 3, 0, 4),
    (3, 5, 33, 32),
    (1, 40, 6, 5),
    (2, 2, 1025),
    (300, 2, 3),
]


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "shape": draw(st.sampled_from(SHAPES)),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "layouts": draw(st.tuples(st.sampled_from([*LAYOUTS, "channels_last"]), st.sampled_from(LAYOUTS))),
        "activation": draw(st.sampled_from(["sigmoid", "softmax"])),
        "smooth": draw(st.sampled_from([0.0, 1e-3, 1.0])),
        "labelled": draw(st.booleans()),
        "ignore": draw(st.booleans()),
    }


def inputs(backend, p):
    """Logits, targets as given, targets as dense, what is kept."""
    g = backend.vary(p["seed"])
    n, classes, *rest = p["shape"]
    x = (torch.randn(p["shape"], generator=g, dtype=torch.float64) * 3).to(p["dtype"])
    kept = torch.ones(p["shape"], dtype=torch.bool)
    if p["labelled"] and classes:
        labels = torch.randint(0, classes, (n, *rest), generator=g)
        dense = functional.one_hot(labels, classes).movedim(-1, 1)
        if p["ignore"]:
            pixels = torch.rand(n, *rest, generator=g) < 0.8
            labels, kept = torch.where(pixels, labels, 255), pixels[:, None].expand(p["shape"])
        return x, labels, dense, kept
    targets = torch.rand(p["shape"], generator=g).round(decimals=1).to(p["dtype"])
    if p["ignore"]:
        kept = torch.rand(p["shape"], generator=g) < 0.8
        targets = torch.where(kept, targets, 255)
    return x, targets, targets, kept


@given(p=problems())
def test_matches_reference(backend, p):
    x, targets, dense, kept = inputs(backend, p)
    moved = [arrange(t.to(backend.device), layout) for t, layout in zip((x, targets), p["layouts"])]
    options = {"activation": p["activation"], "smooth": p["smooth"], "ignore_index": 255 if p["ignore"] else None}
    losses, gradient, g = run(ops.dice_loss, *moved, reduction="none", **options)
    exact = x.double().requires_grad_()
    expected = dice_loss_reference(exact, dense.double(), p["activation"], p["smooth"], kept)
    (expected_gradient,) = torch.autograd.grad(expected, exact, g.double().cpu())
    assert losses.dtype == (torch.float64 if p["dtype"] == torch.float64 else torch.float32)
    assert gradient.dtype == p["dtype"]
    assert_close(losses, expected)
    assert_close(gradient, expected_gradient)
    assert_close(ops.dice_loss(*moved, **options), expected.mean() if expected.numel() else torch.tensor(0.0))
    assert_close(ops.dice_loss(*moved, reduction="sum", **options), expected.sum(), scale=10)


@given(seed=seeds, activation=st.sampled_from(["sigmoid", "softmax"]), smooth=st.sampled_from([0.0, 1.0]))
def test_between_0_and_1(backend, seed, activation, smooth):
    g = backend.vary(seed)
    scale = 10.0 ** torch.randint(-3, 38, (3, 4, 1, 1), generator=g)
    x = (torch.randn(3, 4, 5, 6, generator=g) * scale).clamp(-3e38, 3e38).to(backend.device)
    labels = torch.randint(0, 4, (3, 5, 6), generator=g).to(backend.device)
    for targets in (labels, torch.rand(3, 4, 5, 6, generator=g).to(backend.device)):
        losses, gradient, _ = run(
            ops.dice_loss, x, targets, activation=activation, smooth=smooth, reduction="none", grad_seed=seed
        )
        assert (losses >= -1e-6).all()
        assert (losses <= 1 + 1e-6).all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_gradcheck(backend, activation, reduction):
    g = backend.vary(1)
    x = torch.randn(2, 3, 4, generator=g, dtype=torch.float64).to(backend.device).requires_grad_()
    t = torch.rand(2, 3, 4, generator=g, dtype=torch.float64).to(backend.device)
    labels = torch.tensor([[0, 2, 1, 9], [2, 2, 0, 1]], device=backend.device)
    options = {"activation": activation, "reduction": reduction}
    torch.autograd.gradcheck(lambda x: ops.dice_loss(x, t, **options), (x,))
    torch.autograd.gradcheck(lambda x: ops.dice_loss(x, labels, ignore_index=9, smooth=0.1, **options), (x,))


def test_infinite_logits(backend):
    """Softmax of plus infinity is NaN, minus infinity has no part; a sigmoid has both ends."""
    for value, activation in itertools.product((torch.inf, -torch.inf, torch.nan), ("softmax", "sigmoid")):
        x = torch.linspace(-1, 1, 24).view(2, 3, 4)
        x[0, 1, 2] = value
        labels = torch.tensor([[0, 2, 1, 0], [2, 2, 0, 1]])
        dense = functional.one_hot(labels, 3).movedim(-1, 1)
        out = ops.dice_loss(
            x.to(backend.device), labels.to(backend.device), activation=activation, smooth=1.0, reduction="none"
        )
        expected = dice_loss_reference(x.double(), dense, activation)
        torch.testing.assert_close(out.cpu().double(), expected, equal_nan=True, rtol=1e-5, atol=1e-6)


def test_gradients_that_there_are_not_raise(backend):
    x, t = (torch.rand(2, 3, 4, device=backend.device, requires_grad=True) for _ in range(2))
    with pytest.raises(RuntimeError, match="dice_loss: targets: this argument has no gradient"):
        ops.dice_loss(x, t).backward()
    (gradient,) = torch.autograd.grad(ops.dice_loss(x, t.detach()), x, create_graph=True)
    with pytest.raises(RuntimeError, match="dice_loss_backward: this op has no gradient"):
        gradient.sum().backward()


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_same_bits_for_any_threads_and_instruction_set(activation, channels_last):
    g = torch.Generator().manual_seed(0)
    x = lay_out(torch.randn(3, 5, 40, 41, generator=g), "contiguous")
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    labels = torch.randint(0, 5, (3, 40, 41), generator=g)
    results = []
    for threads in (1, 2, 3):
        for isa in ("baseline", "avx2", "avx512"):
            torch.set_num_threads(threads)
            try:
                torch.ops.fastvision.set_cpu_isa(isa)
            except RuntimeError:  # this machine has it not
                continue
            results.append(run(ops.dice_loss, x, labels, activation=activation)[:2])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_bad_arguments(backend):
    x, t = torch.rand(2, 3, 4, device=backend.device), torch.rand(2, 3, 4, device=backend.device)
    for code in (-1, 3):
        with pytest.raises(RuntimeError, match=f"reduction: expected none, mean or sum .* got {code}"):
            backend.ops.dice_loss(x, t, False, 1.0, None, code)
    for options in ({"activation": "tanh"}, {"smooth": -1.0}, {"smooth": torch.inf}, {"reduction": "avg"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            ops.dice_loss(x, t, **options)
    with pytest.raises(ValueError, match=r"targets: expected shape \(2, 3, 4\) as logits, got \(2, 3, 5\)"):
        ops.dice_loss(x, torch.rand(2, 3, 5, device=backend.device))
    with pytest.raises(TypeError, match="targets: expected dtype float32 as logits, got float64"):
        ops.dice_loss(x, t.double())
    labels = torch.tensor([[0, 1, 2, 0], [0, 3, 2, 2]], device=backend.device)
    if backend.name == "cpu":
        with pytest.raises(ValueError, match=r"targets: expected a class label in 0..2 in row 5, got 3"):
            ops.dice_loss(x, labels)
    else:
        assert torch.equal(ops.dice_loss(x, labels), ops.dice_loss(x, labels, ignore_index=3))
        assert ops.device_errors(backend.device) == (1, ("dice_loss", 5))


def test_gradient_larger_than_caches():
    """It is stored past them."""
    x = torch.randn(1, 21, 650, 650, generator=torch.Generator().manual_seed(0))
    labels = x.roll(1, 2).argmax(1)
    gradients = []
    for leaf in (x.requires_grad_(), x.detach().double().requires_grad_()):
        loss = ops.dice_loss(leaf, labels, activation="softmax", reduction="sum")
        gradients.append(torch.autograd.grad(loss, leaf)[0])
    assert gradients[0].nbytes >= 2**25
    torch.testing.assert_close(gradients[0].double(), gradients[1], rtol=1e-4, atol=1e-9)
