import math

import pytest
import torch
from fastvision import ops
from fastvision.ops.nms_rotated import nms_rotated_reference
from hypothesis import given
from hypothesis import strategies as st
from support import LAYOUTS, lay_out, random_boxes, random_rotated_boxes, seeds

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "n": draw(st.sampled_from([0, 1, 2, 31, 33, 64, 65, 100])),
        "groups": draw(st.sampled_from([None, 1, 3, 40])),
        # Between the overlaps that round numbers give, where rounding would decide.
        "iou_threshold": draw(st.sampled_from([0.0123, 0.1234, 0.3456, 0.5678, 0.7891, 0.9987])),
        "max_output": draw(st.sampled_from([None, None, 0, 1, 10])),
        "convention": {"angle": draw(st.sampled_from(["deg", "rad"])), "clockwise": draw(st.booleans())},
        "dtype": draw(st.sampled_from(DTYPES)),
        "ties": draw(st.booleans()),
        "bad": draw(st.booleans()),
        "layouts": draw(st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS))),
    }


def inputs(backend, p):
    g = backend.vary(p["seed"])
    boxes = random_rotated_boxes(g, p["n"])
    if p["convention"]["angle"] == "rad":
        boxes[:, 4] *= math.pi / 180
    scores = torch.rand(p["n"], generator=g)
    if p["ties"]:
        scores = (scores * 4).round() / 4
    if p["bad"] and p["n"]:
        scores[0] = torch.nan
        boxes[-1, p["seed"] % 5] = torch.inf
        scores[p["n"] // 2] = torch.inf
    groups = torch.randint(-2, p["groups"] - 2, (p["n"],), generator=g) if p["groups"] else None
    tensors = (t.to(p["dtype"]).to(backend.device) for t in (boxes, scores))
    boxes, scores = (lay_out(t, layout) for t, layout in zip(tensors, p["layouts"]))
    return boxes, scores, None if groups is None else groups.to(backend.device)


def run(p, boxes, scores, groups, **options):
    if groups is None:
        return ops.nms_rotated(boxes, scores, p["iou_threshold"], **p["convention"], **options)
    return ops.batched_nms_rotated(boxes, scores, groups, p["iou_threshold"], **p["convention"], **options)


@given(p=problems())
def test_matches_reference(backend, p):
    boxes, scores, groups = inputs(backend, p)
    expected = nms_rotated_reference(
        boxes.double().cpu(),
        scores.double().cpu(),
        p["iou_threshold"],
        idxs=None if groups is None else groups.cpu(),
        max_output=p["max_output"],
        **p["convention"],
    )
    assert run(p, boxes, scores, groups, max_output=p["max_output"]).tolist() == expected.tolist()


@given(p=problems())
def test_keeps_what_box_iou_rotated_says(backend, p):
    """Bit for bit: the decisions are those of the overlaps in the boxes' own precision."""
    boxes, scores, groups = inputs(backend, p)
    if p["dtype"] in (torch.float16, torch.bfloat16):
        boxes, scores = boxes.float(), scores.float()
    overlap = ops.box_iou_rotated(boxes, boxes, **p["convention"]) > torch.tensor(p["iou_threshold"]).to(boxes)
    if groups is not None:
        overlap &= groups[:, None] == groups
    takes_part = boxes.isfinite().all(1) & ~scores.isnan()
    kept = []
    for i in scores.nan_to_num(-math.inf).argsort(descending=True, stable=True).tolist():
        if takes_part[i] and not any(overlap[k, i] for k in kept):
            kept.append(i)
    assert run(p, boxes, scores, groups).tolist() == kept


@given(p=problems())
def test_groups_equal_a_loop(backend, p):
    boxes, scores, groups = inputs(backend, {**p, "groups": p["groups"] or 3})
    kept = []
    for name in groups.unique():
        own = (groups == name).nonzero().flatten()
        kept += own[run(p, boxes[own], scores[own], None)].tolist()
    ranks = scores.argsort(descending=True, stable=True).tolist()
    assert run(p, boxes, scores, groups).tolist() == sorted(kept, key=ranks.index)


@given(seed=seeds, scale=st.sampled_from([1e-38, 1e-20, 1.0, 1e18, 1e36]))
def test_any_scale(backend, seed, scale):
    g = backend.vary(seed)
    boxes, scores = random_rotated_boxes(g, 33), torch.rand(33, generator=g)
    boxes[:, :4] *= scale
    boxes = boxes.float()
    keep = ops.nms_rotated(boxes.to(backend.device), scores.to(backend.device), 0.4321)
    unscaled = torch.cat([boxes[:, :4].double() / scale, boxes[:, 4:].double()], 1)
    assert keep.tolist() == nms_rotated_reference(unscaled, scores.double(), 0.4321).tolist()


def test_angle_zero_is_nms(backend):
    """More boxes than one block takes on CUDA."""
    g = backend.vary(7)
    boxes = random_boxes(g, 3001, size=200.0)
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    scores = torch.rand(3001, generator=g).double().to(backend.device)
    centred = torch.cat([ops.box_convert(boxes, "xyxy", "cxcywh"), torch.zeros(3001, 1)], 1).to(backend.device)
    keep = ops.nms_rotated(centred, scores, 0.30001)
    assert keep.tolist() == ops.nms(boxes.to(backend.device), scores, 0.30001).tolist()
    assert ops.nms_rotated(centred, scores, 0.30001, max_output=100).tolist() == keep[:100].tolist()


def test_messages(backend):
    boxes, scores = torch.rand(3, 5, device=backend.device), torch.rand(3, device=backend.device)
    with pytest.raises(ValueError, match=r"nms_rotated: boxes: expected shape \(..., N, 5\), got \(3, 4\)"):
        ops.nms_rotated(boxes[:, :4], scores, 0.5)
    with pytest.raises(ValueError, match="nms_rotated: angle: expected 'deg' or 'rad', got 'turns'"):
        ops.nms_rotated(boxes, scores, 0.5, angle="turns")
    with pytest.raises(ValueError, match="iou_threshold"):
        ops.nms_rotated(boxes, scores, 1.5)
    with pytest.raises(TypeError, match=r"boxes.*int64"):
        ops.nms_rotated(boxes.long(), scores, 0.5)
    with pytest.raises(ValueError, match="idxs"):
        ops.batched_nms_rotated(boxes, scores, torch.tensor([0, 1], device=backend.device), 0.5)
    with pytest.raises(RuntimeError, match="nms_rotated"):
        torch.func.vmap(lambda b, s: ops.nms_rotated(b, s, 0.5))(boxes[None], scores[None])
