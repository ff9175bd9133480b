import itertools
import math

import pytest
import torch
from fastvision.engine import one_cycle, train
from torch import nn


class Line(nn.Module):
    """Fits y = 2 x + 1; two losses."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(1, 1)

    def loss(self, images, targets):
        errors = [self.line(x) - t["y"] for x, t in zip(images, targets)]
        return {"square": torch.stack(errors).square().mean(), "absolute": torch.stack(errors).abs().mean()}


def batches(n, size=4):
    g = torch.Generator().manual_seed(1)
    for _ in range(n):
        xs = [torch.rand(1, generator=g) for _ in range(size)]
        yield xs, [{"y": 2 * x + 1} for x in xs]


def fit(model, n=1000, **options):
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0)
    return train(model, batches(n), optimizer, one_cycle(0.1), **options)


def test_learns_and_reports():
    model, seen = Line(), []
    log = fit(model, steps=200, on_step=seen.append)
    assert model.line.weight.item() == pytest.approx(2, abs=0.05)
    assert model.line.bias.item() == pytest.approx(1, abs=0.05)
    assert model.training
    assert log.steps == seen
    assert [s.number for s in seen] == list(range(1, 201))
    assert seen[49].share == 0.25
    assert seen[-1].images == 800
    assert seen[-1].loss == pytest.approx(sum(seen[-1].losses.values()))
    assert seen[-1].loss < 0.1 < seen[0].loss
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(seen))
    assert log.cpu_seconds > 0


def test_repeats_bit_by_bit():
    first, second = Line(), Line()
    log, again = fit(first, steps=50), fit(second, steps=50)
    assert torch.equal(first.line.weight, second.line.weight)
    assert [s.losses for s in log.steps] == [s.losses for s in again.steps]


def test_rate_follows_the_schedule():
    log = fit(Line(), steps=10)
    rate = one_cycle(0.1)
    assert [s.learning_rate for s in log.steps] == [rate(k / 10) for k in range(10)]


def test_one_cycle_equals_torch():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.3, total_steps=101, cycle_momentum=False, pct_start=31 / 101
    )
    ours = one_cycle(0.3, warm_up=0.3)
    for k in range(101):
        assert ours(k / 100) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step() if k < 100 else None


def test_seconds_bound_the_time():
    log = fit(Line(), n=10**9, seconds=0.2)
    assert 0.2 <= log.steps[-1].seconds < 2
    assert log.steps[-1].share == 1
    assert log.steps[0].share < 0.5
    assert fit(Line(), seconds=1e-9).steps[-1].number == 1


def test_ends_with_its_batches():
    assert fit(Line(), n=3, steps=100).steps[-1].share == 0.03


def test_gradients_are_clipped():
    model = Line()
    optimizer = torch.optim.SGD(model.parameters())
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    train(model, batches(1), optimizer, lambda _: 1.0, steps=1, max_gradient_norm=0.01)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm() == pytest.approx(0.01, rel=1e-3)


def test_a_loss_that_is_not_finite_ends_it_before_the_step():
    model = Line()
    before = model.line.weight.clone()
    bad = iter([([torch.tensor([math.nan])], [{"y": torch.zeros(1)}])])
    with pytest.raises(FloatingPointError, match="step 1: the loss is not finite"):
        train(model, bad, torch.optim.SGD(model.parameters()), one_cycle(1.0), steps=1)
    assert torch.equal(model.line.weight, before)


@pytest.mark.parametrize(
    "wrong", [{}, {"steps": 1, "seconds": 1.0}, {"steps": 0}, {"seconds": 0.0}, {"seconds": math.nan}]
)
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match="train: expected"):
        fit(Line(), **wrong)
    with pytest.raises(ValueError, match="one_cycle"):
        one_cycle(-1)
