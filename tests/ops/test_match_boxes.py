import torch
from fastvision import ops
from fastvision.ops.match_boxes import match_boxes_reference
from hypothesis import given
from hypothesis import strategies as st
from support import LAYOUTS, lay_out, random_boxes, seeds


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "batch": draw(st.sampled_from([(), (1,), (3,), (0,)])),
        "truths": draw(st.sampled_from([0, 1, 2, 7, 40, 129, 257])),
        "boxes": draw(st.sampled_from([0, 1, 15, 17, 31, 33, 64, 257, 600])),
        "thresholds": draw(st.sampled_from([(0.7, 0.3), (0.5, 0.5), (1.0, 0.0), (0.3, 0.1)])),
        "low_quality": draw(st.booleans()),
        "valid": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16])),
        "snap": draw(st.booleans()),
        "layouts": draw(st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS))),
    }


@given(p=problems())
def test_matches_reference(backend, p):
    g = backend.vary(p["seed"])
    gt, boxes = (random_boxes(g, *p["batch"], p[name]) for name in ("truths", "boxes"))
    if p["snap"]:  # many equal overlaps
        gt, boxes = gt.round(), boxes.round()
    gt, boxes = gt.to(p["dtype"]), boxes.to(p["dtype"])
    valid = torch.rand(*p["batch"], p["truths"], generator=g) > 0.3 if p["valid"] else None
    high, low = p["thresholds"]
    moved = [lay_out(t.to(backend.device), layout) for t, layout in zip((gt, boxes), p["layouts"])]
    mask = None if valid is None else valid.to(backend.device)
    match, overlap = ops.match_boxes(*moved, high, low, allow_low_quality=p["low_quality"], valid=mask)
    assert overlap.dtype == p["dtype"]
    wide = [t.float() if p["dtype"] == torch.bfloat16 else t for t in (gt, boxes)]
    rows = [(wide[0], wide[1], valid, match, overlap)]
    if p["batch"]:
        masks = valid if valid is not None else [None] * p["batch"][0]
        rows = list(zip(*wide, masks, match, overlap))
    for truth, candidates, usable, got, got_overlap in rows:
        want = match_boxes_reference(truth, candidates, high, low, allow_low_quality=p["low_quality"], valid=usable)
        assert torch.equal(got.cpu(), want[0])
        assert torch.equal(got_overlap.cpu(), want[1].to(p["dtype"]))


def test_boxes_that_nothing_overlaps_and_values_that_are_not_finite(backend):
    gt = torch.tensor([[0.0, 0, 4, 4], [torch.nan, 0, 4, 4], [50, 50, 50, 50]], device=backend.device)
    boxes = torch.tensor([[0.0, 0, 4, 4], [torch.inf, 0, 4, 4], [100, 100, 101, 101]], device=backend.device)
    match, overlap = ops.match_boxes(gt, boxes, 0.5, 0.3, allow_low_quality=True)
    assert match.tolist() == [0, -1, -1]
    assert overlap.tolist() == [1, 0, 0]


def test_no_matrix(backend):
    """20,000 x 20,000 overlaps would be 1.6 GB."""
    if backend.name == "emulated":
        return
    g = torch.Generator().manual_seed(0)
    boxes = random_boxes(g, 20_000, size=1000.0, dtype=torch.float32).to(backend.device)
    match, overlap = ops.match_boxes(boxes, boxes, 0.5, 0.3)
    proper = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
    assert (overlap[proper] == 1).all()
    assert (match[proper] >= 0).all()
