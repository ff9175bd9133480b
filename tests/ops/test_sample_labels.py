import pytest
import torch
from fastvision import ops
from fastvision.ops.sample_labels import sample_labels_reference
from hypothesis import given
from hypothesis import strategies as st
from support import LAYOUTS, lay_out, seeds


@given(
    seed=seeds,
    shape=st.sampled_from([(0,), (1,), (50,), (3, 40), (0, 5), (2, 2, 30)]),
    batch_size=st.sampled_from([0, 1, 8, 100]),
    fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    dtype=st.sampled_from([torch.int64, torch.float32, torch.float64, torch.float16, torch.int8]),
)
def test_counts_and_kinds(backend, seed, shape, batch_size, fraction, dtype):
    g = torch.Generator(backend.device).manual_seed(seed)
    labels = torch.randint(-2, 3, shape, generator=backend.vary(seed)).to(dtype)
    on_device = labels.to(backend.device)
    positive, negative = (m.cpu() for m in ops.sample_labels(on_device, batch_size, fraction, generator=g))
    assert positive.shape == negative.shape == labels.shape
    assert (labels[positive] >= 1).all()
    assert (labels[negative] == 0).all()
    for row, p, n in zip(*(t[None].flatten(0, -2) for t in (labels, positive, negative))):
        wanted = min(int((row >= 1).sum()), int(batch_size * fraction))
        assert p.sum() == wanted
        assert n.sum() == min(int((row == 0).sum()), batch_size - wanted)


@given(
    seed=seeds,
    n=st.sampled_from([0, 1, 63, 64, 65, 129, 1000]),
    rows=st.sampled_from([(), (1,), (3,)]),
    sizes=st.sampled_from([(0, 0), (0, 9), (4, 16), (200, 200), (3, 2000)]),
    dtype=st.sampled_from([torch.int64, torch.float32]),
    layout=st.sampled_from(LAYOUTS),
)
def test_matches_reference(backend, seed, n, rows, sizes, dtype, layout):
    labels = torch.randint(-1, 6, (*rows, n), generator=backend.vary(seed))
    labels = torch.where(labels > 2, 0, labels).to(dtype)
    if dtype == torch.float32:
        labels = torch.where(labels == 2, torch.nan, labels)  # of no kind
    moved, start = lay_out(labels.to(backend.device), layout), torch.tensor(seed - 2**40, device=backend.device)
    got = backend.ops.sample_labels(moved, start, *sizes)
    for mask, expected in zip(got, sample_labels_reference(labels, seed - 2**40, *sizes)):
        assert torch.equal(mask.cpu(), expected)


def test_every_candidate_is_equally_likely():
    labels = torch.tensor([1] * 10 + [0] * 20)
    g = torch.Generator().manual_seed(0)
    totals = torch.zeros(30)
    for _ in range(2000):
        positive, negative = ops.sample_labels(labels, 10, 0.5, generator=g)
        totals += positive + negative.int()
    assert (totals[:10] / 2000 - 5 / 10).abs().max() < 0.05
    assert (totals[10:] / 2000 - 5 / 20).abs().max() < 0.05


def test_seed_decides():
    labels = torch.randint(2, (1000,))
    first, second, other = (
        ops.sample_labels(labels, 64, 0.5, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_errors():
    labels = torch.zeros(4)
    for args, name in (
        ((-1, 0.5), "batch_size"),
        ((4, 1.5), "positive_fraction"),
        ((4, float("nan")), "positive_frac"),
    ):
        with pytest.raises(ValueError, match=f"sample_labels: {name}"):
            ops.sample_labels(labels, *args)
    with pytest.raises(ValueError, match="sample_labels: labels"):
        ops.sample_labels(torch.tensor(1.0), 4, 0.5)
