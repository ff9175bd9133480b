import math

import pytest
import torch
from fastvision import _lib, ops
from fastvision.ops.box_iou import box_iou_reference
from fastvision.ops.soft_nms import soft_nms_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, LAYOUTS, lay_out, random_boxes, seeds

METHODS = ("gaussian", "linear", "naive")


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "n": draw(st.sampled_from([0, 1, 2, 17, 31, 33, 64, 65, 150, 257])),
        "groups": draw(st.sampled_from([None, 1, 3, 40])),
        "valid": draw(st.booleans()),
        "options": {
            "method": draw(st.sampled_from(METHODS)),
            "iou_threshold": draw(st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0])),
            "sigma": draw(st.sampled_from([0.5, 0.05, 3.0, 1e-300])),
            "score_threshold": draw(st.sampled_from([1e-3, 0.0, 0.4, -1.0])),
        },
        "max_output": draw(st.sampled_from([None, None, 0, 1, 10])),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "ties": draw(st.booleans()),
        "strange": draw(st.booleans()),
        "layouts": draw(st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS))),
    }


def inputs(backend, p, batch=()):
    g = backend.vary(p["seed"])
    boxes = random_boxes(g, *batch, p["n"], dtype=p["dtype"])
    scores = torch.rand(*batch, p["n"], generator=g)
    if p["ties"]:
        scores = (scores * 4).round() / 4
    scores = scores.to(p["dtype"])
    if p["strange"] and p["n"]:
        scores[..., p["n"] // 3] = -0.5
        scores[..., p["n"] // 2] = torch.inf
        scores[..., 0] = torch.nan
        boxes[..., -1, 0] = torch.inf
    groups = torch.randint(-2, p["groups"] - 2, (*batch, p["n"]), generator=g) if p["groups"] else None
    valid = torch.rand(*batch, p["n"], generator=g) > 0.2 if p["valid"] else None
    boxes, scores = (lay_out(t.to(backend.device), layout) for t, layout in zip((boxes, scores), p["layouts"]))
    return boxes, scores, *(None if t is None else t.to(backend.device) for t in (groups, valid))


def widened(t):
    return None if t is None else (t.float() if t.dtype in ALL_DTYPES[2:] else t).cpu()


def assert_suppressed_softly(keep, kept_scores, boxes, scores, groups, valid, options, most, tolerance):
    """What Soft-NMS promises, replayed in float64 in the order of the result: no near tie is an error."""
    boxes, current = boxes.double(), scores.double()
    overlaps = box_iou_reference(boxes, boxes)
    if groups is not None:
        overlaps *= groups[:, None] == groups[None, :]
    threshold, last = options["score_threshold"], math.inf
    alive = boxes.isfinite().all(-1) & (current > threshold)
    if valid is not None:
        alive &= valid
    for box, score in zip(keep.tolist(), kept_scores.double().tolist()):
        assert alive[box]
        assert score <= last
        last = score
        assert score == pytest.approx(float(current[box]), rel=tolerance)
        assert current[alive].max() <= score * (1 + tolerance) if score > 0 else True
        alive[box] = False
        weight = torch.exp(-overlaps[box].square() / options["sigma"])
        weight = torch.where(weight < 1e-37, 0.0, weight)  # the least weight of float32
        alive &= weight > 0
        current = torch.minimum(current, current * weight)
        alive &= current > threshold * (1 - tolerance) - tolerance**2
    left = alive & (current > threshold * (1 + tolerance) + tolerance**2)
    assert len(keep) == most or not left.any()


@given(p=problems())
def test_matches_reference(backend, p):
    boxes, scores, groups, _ = inputs(backend, p)
    keep, kept_scores = ops.soft_nms(boxes, scores, **p["options"], idxs=groups, max_output=p["max_output"])
    assert kept_scores.dtype == p["dtype"]
    boxes, scores, groups = (widened(t) for t in (boxes, scores, groups))
    if p["options"]["method"] == "gaussian" and p["dtype"] != torch.float64:
        # exp is rounded differently from torch's; the scores of 16-bit types are rounded once more.
        tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[p["dtype"]]
        most = len(boxes) if p["max_output"] is None else p["max_output"]
        args = (boxes, scores, groups, None, p["options"], most, tolerance)
        return assert_suppressed_softly(keep.cpu(), kept_scores.cpu(), *args)
    want, want_scores = soft_nms_reference(boxes, scores, **p["options"], idxs=groups, max_output=p["max_output"])
    assert keep.tolist() == want.tolist()
    if p["options"]["method"] == "gaussian":
        torch.testing.assert_close(kept_scores.cpu(), want_scores, rtol=1e-12, atol=0)
    else:
        assert torch.equal(kept_scores.cpu(), want_scores.to(p["dtype"]))


@given(p=problems(), batch=st.sampled_from([(), (1,), (3,), (0,), (2, 2)]), more=st.sampled_from([0, 3]))
def test_padded_equals_each_problem(backend, p, batch, more):
    boxes, scores, groups, valid = inputs(backend, {**p, "dtype": torch.float32}, batch)
    most = p["n"] + more if p["max_output"] is None else p["max_output"]
    keep, kept_scores, count = ops.soft_nms_padded(
        boxes, scores, **p["options"], idxs=groups, valid=valid, max_output=most
    )
    assert keep.shape == kept_scores.shape == (*batch, most)
    assert count.shape == batch
    flat = [
        None if t is None else t.reshape(math.prod(batch), *t.shape[len(batch) :])
        for t in (boxes, scores, groups, valid, keep, kept_scores, count)
    ]
    for i in range(math.prod(batch)):
        b, s, g, v, k, ks, n = (None if t is None else t[i] for t in flat)
        if v is not None:
            s = torch.where(v, s, torch.nan)
        want, want_scores = ops.soft_nms(b, s, **p["options"], idxs=g, max_output=most)
        assert int(n) == len(want)
        assert k.tolist() == want.tolist() + [-1] * (most - len(want))
        assert ks.tolist() == want_scores.tolist() + [0.0] * (most - len(want))


@given(p=problems())
def test_backends_and_instruction_sets_agree_to_the_bit(backend, p):
    boxes, scores, groups, _ = inputs(backend, {**p, "dtype": [torch.float32, torch.float64][p["seed"] % 2]})
    options = {**p["options"], "max_output": p["max_output"]}
    keep, kept_scores = ops.soft_nms(boxes, scores, **options, idxs=groups)
    threads = torch.get_num_threads()
    _lib.use_namespace("fastvision")
    try:
        torch.set_num_threads(1)
        boxes, scores, groups = (None if t is None else t.cpu() for t in (boxes, scores, groups))
        want, want_scores = ops.soft_nms(boxes, scores, **options, idxs=groups)
    finally:
        torch.set_num_threads(threads)
        _lib.use_namespace(backend.namespace)
    assert torch.equal(keep.cpu(), want)
    assert torch.equal(kept_scores.cpu(), want_scores)


@given(p=problems())
def test_properties(backend, p):
    """Kept boxes are a subset, each once; scores never rise; the order of the input does not matter; naive is nms."""
    p = {**p, "ties": False, "dtype": torch.float64, "strange": False}
    boxes, scores, groups, _ = inputs(backend, p)
    keep, kept_scores = ops.soft_nms(boxes, scores, **p["options"], idxs=groups)
    assert len(keep.unique()) == len(keep)
    assert (kept_scores <= scores[keep]).all()
    assert (kept_scores.diff() <= 0).all()
    assert (kept_scores > p["options"]["score_threshold"]).all()
    shuffle = torch.randperm(p["n"], generator=torch.Generator().manual_seed(p["seed"])).to(backend.device)
    shuffled_groups = None if groups is None else groups[shuffle]
    shuffled = ops.soft_nms(boxes[shuffle], scores[shuffle], **p["options"], idxs=shuffled_groups)
    duplicates = kept_scores.unique().numel() < len(kept_scores)
    assert duplicates or shuffle[shuffled[0]].tolist() == keep.tolist()
    assert torch.equal(shuffled[1], kept_scores)
    naive = ops.soft_nms(boxes, scores, **{**p["options"], "method": "naive"}, idxs=groups)
    one_group = torch.zeros_like(scores).long() if groups is None else groups
    options = {"score_threshold": p["options"]["score_threshold"]}
    plain = ops.batched_nms(boxes, scores, one_group, p["options"]["iou_threshold"], **options)
    assert naive[0].tolist() == plain.tolist()
    assert torch.equal(naive[1], scores[plain])


def test_more_boxes_than_threads(backend):
    g = backend.vary(5)
    boxes = random_boxes(g, 1100, size=60.0, dtype=torch.float32).to(backend.device)
    scores = torch.rand(1100, generator=g).to(backend.device)
    for groups in (None, torch.zeros(1100, dtype=torch.int64)):
        idxs = None if groups is None else groups.to(backend.device)
        keep, kept_scores = ops.soft_nms(boxes, scores, method="linear", idxs=idxs, max_output=40)
        want, want_scores = soft_nms_reference(boxes.cpu(), scores.cpu(), method="linear", max_output=40)
        assert keep.tolist() == want.tolist()
        assert torch.equal(kept_scores.cpu(), want_scores)


@given(seed=seeds, scale=st.sampled_from([1e-38, 1e-25, 1.0, 1e18, 1e37]))
def test_any_scale(backend, seed, scale):
    g = backend.vary(seed)
    boxes, scores = (random_boxes(g, 60) / 20 * scale).float(), torch.rand(60, generator=g)
    keep, kept_scores = ops.soft_nms(boxes.to(backend.device), scores.to(backend.device))
    options = {"method": "gaussian", "sigma": 0.5, "score_threshold": 1e-3}
    assert_suppressed_softly(keep.cpu(), kept_scores.cpu(), boxes, scores, None, None, options, 60, 1e-5)


def test_gradient_is_an_error(backend):
    boxes, scores = torch.rand(3, 4, device=backend.device), torch.rand(3, device=backend.device, requires_grad=True)
    with pytest.raises(RuntimeError, match="soft_nms: this op has no gradient"):
        ops.soft_nms(boxes, scores)[1].sum().backward()
    with pytest.raises(RuntimeError, match="soft_nms_padded: this op has no gradient"):
        ops.soft_nms_padded(boxes, scores)[1].sum().backward()


def test_padded_works_under_vmap(backend):
    g = backend.vary(1)
    boxes, scores = random_boxes(g, 4, 20, dtype=torch.float32), torch.rand(4, 20, generator=g)
    boxes, scores = boxes.to(backend.device), scores.to(backend.device)
    results = torch.func.vmap(lambda b, s: ops.soft_nms_padded(b, s, max_output=6))(boxes, scores)
    for i in range(4):
        for got, want in zip(results, ops.soft_nms_padded(boxes[i], scores[i], max_output=6)):
            assert torch.equal(got[i], want)
    with pytest.raises(RuntimeError, match="soft_nms_padded"):
        torch.func.vmap(ops.soft_nms)(boxes, scores)


def test_errors(backend):
    boxes, scores = torch.rand(3, 4, device=backend.device), torch.rand(3, device=backend.device)
    for f in (ops.soft_nms, ops.soft_nms_padded):
        with pytest.raises(ValueError, match="method: expected one of gaussian, linear, naive, got 'foo'"):
            f(boxes, scores, method="foo")
        for name, values in {
            "sigma": (0.0, -1.0, math.nan, math.inf),
            "iou_threshold": (-0.1, 1.5, math.nan),
            "score_threshold": (math.nan, -math.inf),
            "max_output": (-1,),
        }.items():
            for value in values:
                with pytest.raises(ValueError, match=f"{name}: expected"):
                    f(boxes, scores, **{name: value})
        with pytest.raises(ValueError, match="scores: expected one per box"):
            f(boxes, scores[:2])
        with pytest.raises(TypeError, match=r"use boxes\.float"):
            f(boxes.long(), scores)
        with pytest.raises(TypeError, match="scores: expected dtype float32 as boxes, got float64"):
            f(boxes, scores.double())
        with pytest.raises(TypeError, match="idxs: expected dtype int64"):
            f(boxes, scores, idxs=scores)
