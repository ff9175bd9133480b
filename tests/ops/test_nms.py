import math

import pytest
import torch
from fastvision import ops
from fastvision.ops.multiclass_nms import multiclass_nms_reference
from fastvision.ops.nms import nms_reference
from hypothesis import given
from hypothesis import strategies as st
from support import LAYOUTS, lay_out, random_boxes, seeds

THRESHOLDS = [0.0, 0.1, 0.3, 0.5, 0.7, 1.0]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "n": draw(st.sampled_from([0, 1, 2, 31, 33, 63, 64, 65, 150, 257])),
        "groups": draw(st.sampled_from([None, 1, 3, 40])),
        "valid": draw(st.booleans()),
        "iou_threshold": draw(st.sampled_from(THRESHOLDS)),
        "score_threshold": draw(st.sampled_from([None, None, 0.5])),
        "max_output": draw(st.sampled_from([None, None, 0, 1, 10])),
        "dtype": draw(st.sampled_from(DTYPES)),
        "ties": draw(st.booleans()),
        "nan": draw(st.booleans()),
        "layouts": draw(st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS))),
    }


def inputs(backend, p, batch=()):
    g = backend.vary(p["seed"])
    boxes = random_boxes(g, *batch, p["n"], dtype=p["dtype"])
    scores = torch.rand(*batch, p["n"], generator=g)
    if p["ties"]:
        scores = (scores * 4).round() / 4
    scores = scores.to(p["dtype"])
    if p["nan"] and p["n"]:
        scores[..., 0] = torch.nan
        boxes[..., -1, 0] = torch.inf
        scores[..., p["n"] // 2] = torch.inf
    groups = torch.randint(-2, p["groups"] - 2, (*batch, p["n"]), generator=g) if p["groups"] else None
    valid = torch.rand(*batch, p["n"], generator=g) > 0.2 if p["valid"] else None
    device = backend.device
    boxes, scores = (lay_out(t.to(device), layout) for t, layout in zip((boxes, scores), p["layouts"]))
    return boxes, scores, *(None if t is None else t.to(device) for t in (groups, valid))


def widened(*tensors):
    return [None if t is None else (t.float() if t.dtype in DTYPES[2:] else t).cpu() for t in tensors]


def expected(p, boxes, scores, groups, valid):
    boxes, scores, groups, valid = widened(boxes, scores, groups, valid)
    options = {"idxs": groups, "valid": valid}
    return nms_reference(
        boxes, scores, p["iou_threshold"], **options, score_threshold=p["score_threshold"], max_output=p["max_output"]
    )


@given(p=problems())
def test_matches_reference(backend, p):
    boxes, scores, groups, _ = inputs(backend, p)
    options = {"score_threshold": p["score_threshold"], "max_output": p["max_output"]}
    if groups is None:
        keep = ops.nms(boxes, scores, p["iou_threshold"], **options)
    else:
        keep = ops.batched_nms(boxes, scores, groups, p["iou_threshold"], **options)
    assert keep.tolist() == expected(p, boxes, scores, groups, None).tolist()


@given(p=problems(), batch=st.sampled_from([(), (1,), (3,), (0,), (2, 2)]))
def test_padded_matches_reference(backend, p, batch):
    most = 12 if p["max_output"] is None else p["max_output"]
    p = {**p, "max_output": most}
    boxes, scores, groups, valid = inputs(backend, p, batch)
    keep, count = ops.nms_padded(
        boxes, scores, p["iou_threshold"], most, idxs=groups, valid=valid, score_threshold=p["score_threshold"]
    )
    assert keep.shape == (*batch, most)
    assert count.shape == batch
    problems = math.prod(batch)
    tensors = (boxes, scores, groups, valid)
    rows = [None if t is None else t.reshape(problems, *t.shape[len(batch) :]) for t in tensors]
    for i in range(problems):
        want = expected(p, *(None if t is None else t[i] for t in rows)).tolist()
        assert keep.reshape(problems, most)[i].tolist() == want + [-1] * (most - len(want))
        assert count.flatten()[i] == len(want)


def test_a_large_group_equals_the_same_boxes_in_pieces(backend):
    """More boxes than one block takes on CUDA; far apart pieces do not meet."""
    g = backend.vary(7)
    boxes = random_boxes(g, 9001, size=300.0, dtype=torch.float32).to(backend.device)
    scores = torch.rand(9001, generator=g).to(backend.device)
    keep = ops.nms(boxes, scores, 0.3)
    assert keep.tolist() == ops.batched_nms(boxes, scores, torch.zeros_like(scores).long(), 0.3).tolist()
    most = ops.nms(boxes, scores, 0.3, max_output=100)
    assert most.tolist() == keep[:100].tolist()


@given(p=problems())
def test_properties(backend, p):
    """Each box is kept at most once, best first, apart from others of its group; suppression is idempotent and does not
    depend on the order of distinct scores."""
    boxes, scores, groups, _ = inputs(backend, {**p, "ties": False, "dtype": torch.float32})
    groups = torch.zeros_like(scores).long() if groups is None else groups
    keep = ops.batched_nms(boxes, scores, groups, p["iou_threshold"])
    assert len(set(keep.tolist())) == len(keep)
    assert set(keep.tolist()) <= set(range(p["n"]))
    assert (scores[keep].diff() <= 0).all()
    overlaps = ops.box_iou(boxes[keep].double(), boxes[keep].double()).fill_diagonal_(0)
    same_group = groups[keep][:, None] == groups[keep]
    assert (overlaps[same_group] <= p["iou_threshold"] + 1e-6).all()
    again = ops.batched_nms(boxes[keep], scores[keep], groups[keep], p["iou_threshold"])
    assert again.tolist() == list(range(len(keep)))
    if scores[~scores.isnan()].unique().numel() == (~scores.isnan()).sum():
        shuffle = torch.randperm(p["n"], generator=torch.Generator().manual_seed(p["seed"])).to(backend.device)
        shuffled = ops.batched_nms(boxes[shuffle], scores[shuffle], groups[shuffle], p["iou_threshold"])
        assert shuffle[shuffled].tolist() == keep.tolist()


@given(seed=seeds, scale=st.sampled_from([1e-38, 1e-25, 1.0, 1e18, 1e37]))
def test_any_scale(backend, seed, scale):
    g = backend.vary(seed)
    boxes, scores = random_boxes(g, 60, size=8.0), torch.rand(60, generator=g).double()
    scaled = (boxes * scale).float()
    keep = ops.nms(scaled.to(backend.device), scores.float().to(backend.device), 0.4)
    assert keep.tolist() == nms_reference(scaled.double(), scores.float().double(), 0.4).tolist()


@st.composite
def class_problems(draw):
    return {
        "seed": draw(seeds),
        "shape": draw(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 7, 40]), st.integers(1, 4))),
        "shared": draw(st.booleans()),
        "options": {
            "score_threshold": draw(st.sampled_from([-1.0, 0.3])),
            "iou_threshold": draw(st.sampled_from(THRESHOLDS)),
            "pre_topk": draw(st.sampled_from([0, 5, 1000])),
            "max_output": draw(st.sampled_from([1, 20])),
            "class_agnostic": draw(st.booleans()),
        },
        "dtype": draw(st.sampled_from([torch.float32, torch.float64])),
    }


@given(p=class_problems())
def test_multiclass_matches_reference(backend, p):
    g = backend.vary(p["seed"])
    batch, rows, classes = p["shape"]
    boxes = random_boxes(g, batch, rows, 1 if p["shared"] else classes, dtype=p["dtype"])
    scores = ((torch.rand(batch, rows, classes, generator=g) * 16).round() / 16).to(p["dtype"])
    found = ops.multiclass_nms(boxes.to(backend.device), scores.to(backend.device), **p["options"])
    want = multiclass_nms_reference(boxes, scores, **p["options"])
    for b in range(batch):
        n = int(found.count[b])
        assert list(zip(found.index[b, :n].tolist(), found.labels[b, :n].tolist())) == want[b]
        for k, (row, label) in enumerate(want[b]):
            assert torch.equal(found.boxes[b, k].cpu(), boxes[b, row, 0 if p["shared"] else label])
            assert found.scores[b, k] == scores[b, row, label]
        assert (found.index[b, n:] == -1).all()
        assert (found.labels[b, n:] == -1).all()
        assert not found.boxes[b, n:].any()
        assert not found.scores[b, n:].any()


def test_compiles_with_a_result_of_unknown_size():
    f = torch.compile(lambda b, s: b[ops.nms(b, s, 0.5)], fullgraph=True, backend="aot_eager")
    for n in (0, 1, 3, 100):
        g = torch.Generator().manual_seed(n)
        boxes, scores = random_boxes(g, n, dtype=torch.float32), torch.rand(n, generator=g)
        assert torch.equal(f(boxes, scores), boxes[ops.nms(boxes, scores, 0.5)])


def test_padded_works_under_vmap(backend):
    g = backend.vary(1)
    boxes, scores = random_boxes(g, 4, 20, dtype=torch.float32), torch.rand(4, 20, generator=g)
    boxes, scores = boxes.to(backend.device), scores.to(backend.device)
    keep, count = torch.func.vmap(lambda b, s: ops.nms_padded(b, s, 0.5, 6))(boxes, scores)
    for i in range(4):
        want = ops.nms_padded(boxes[i], scores[i], 0.5, 6)
        assert torch.equal(keep[i], want[0])
        assert count[i] == want[1]
    with pytest.raises(RuntimeError, match="nms_padded"):
        torch.func.vmap(lambda b, s: ops.nms(b, s, 0.5))(boxes, scores)
