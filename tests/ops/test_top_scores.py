import pytest
import torch
from fastvision.ops.multiclass_nms import stable_topk, stable_topk_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, LAYOUTS, lay_out, seeds


@st.composite
def problems(draw):
    n = draw(st.sampled_from([0, 1, 15, 16, 17, 63, 64, 65, 1023, 5000]))
    return {
        "seed": draw(seeds),
        "shape": (*draw(st.sampled_from([(), (1,), (3,), (2, 2), (0,)])), n),
        "k": min(n, draw(st.sampled_from([0, 1, 7, 300, 5000]))),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "layout": draw(st.sampled_from(LAYOUTS)),
        "threshold": draw(st.sampled_from([None, -3.0, 0.25, 0.9, 1.0, 1e300])),
        "levels": draw(st.sampled_from([3, 1000])),  # few: most are equal
    }


@given(p=problems())
def test_matches_reference(backend, p):
    g = backend.vary(p["seed"])
    scores = torch.randint(-p["levels"], p["levels"] + 1, p["shape"], generator=g) / p["levels"]
    for value in (torch.nan, torch.inf, -torch.inf, -0.0):
        scores = torch.where(torch.rand(p["shape"], generator=g) < 0.05, value, scores)
    scores = scores.to(p["dtype"])
    top = stable_topk(lay_out(scores.to(backend.device), p["layout"]), p["k"], p["threshold"])
    assert torch.equal(top.cpu(), stable_topk_reference(scores, p["k"], p["threshold"]))


def test_long_row_for_any_number_of_threads(backend):
    scores = torch.randint(0, 5000, (200_001,), generator=backend.vary(1)) / 5000
    expected = stable_topk_reference(scores, 1500, 0.5)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(stable_topk(scores.to(backend.device), 1500, 0.5).cpu(), expected)
    finally:
        torch.set_num_threads(before)


def test_rising_scores_and_a_threshold_between_two_floats(backend):
    scores = torch.arange(100_000, device=backend.device)[None] / 100_000
    assert stable_topk(scores, 3).tolist() == [[99_999, 99_998, 99_997]]
    near = torch.tensor([0.05, 0.0499, 0.051], device=backend.device)
    assert float(near[0]) > 0.05  # float32 rounds it up
    assert stable_topk(near, 3, 0.05).tolist() == [2, 0, 1]


def test_vmap_equals_a_loop(backend):
    scores = torch.rand(4, 3, 20, generator=backend.vary(3)).to(backend.device)
    got = torch.func.vmap(lambda s: stable_topk(s, 5, 0.5))(scores)
    assert torch.equal(got, torch.stack([stable_topk(s, 5, 0.5) for s in scores]))


def test_bad_arguments(backend):
    scores = torch.rand(2, 3, device=backend.device)
    for arguments in ((4,), (-1,), (1, torch.nan)):
        with pytest.raises(ValueError, match=r"top_scores: \w+: expected"):
            stable_topk(scores, *arguments)
    with pytest.raises(TypeError, match=r"top_scores: scores: expected dtype"):
        stable_topk(scores.int(), 1)
