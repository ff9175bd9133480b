import math

import pytest
import torch
from fastvision import _lib, ops
from fastvision.ops.box_iou import box_iou_reference
from fastvision.ops.mask_iou import mask_iou_reference
from fastvision.ops.matrix_nms import matrix_nms_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, LAYOUTS, lay_out, random_boxes, seeds
from test_mask_iou import in_form, random_masks


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "batch": draw(st.sampled_from([(), (), (1,), (3,), (0,), (2, 2)])),
        "n": draw(st.sampled_from([0, 1, 2, 17, 33, 64, 65, 150])),
        "what": draw(st.sampled_from(["boxes", "dense", "packed"])),
        "groups": draw(st.sampled_from([None, 1, 3, 40])),
        "options": {
            "kernel": draw(st.sampled_from(["gaussian", "linear"])),
            "sigma": draw(st.sampled_from([2.0, 0.1, 1e-30, 1e30])),
        },
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "ties": draw(st.booleans()),
        "strange": draw(st.booleans()),
        "layouts": draw(st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS))),
    }


def inputs(backend, p):
    g = backend.vary(p["seed"])
    if p["what"] == "boxes":
        items = random_boxes(g, *p["batch"], p["n"], dtype=p["dtype"])
    else:
        items = random_masks(g, *p["batch"], p["n"], 5, 11)
    scores = torch.rand(*p["batch"], p["n"], generator=g)
    if p["ties"]:
        scores = (scores * 4).round() / 4
    scores = scores.to(p["dtype"])
    if p["strange"] and p["n"]:
        scores[..., p["n"] // 3] = -0.5
        scores[..., p["n"] // 2] = torch.inf
        scores[..., 0] = torch.nan
        if p["what"] == "boxes":
            items[..., -1, 0] = torch.nan
    groups = torch.randint(-2, p["groups"] - 2, scores.shape, generator=g).to(backend.device) if p["groups"] else None
    items = items.to(backend.device) if p["what"] != "boxes" else lay_out(items.to(backend.device), p["layouts"][0])
    return items, lay_out(scores.to(backend.device), p["layouts"][1]), groups


def given_form(items, p):
    return items if p["what"] == "boxes" else in_form(items, p["what"])


def expected(items, scores, groups, options):
    wide = scores.float() if scores.dtype in ALL_DTYPES[2:] else scores
    if items.dtype == torch.bool:
        flat = items.flatten(-2).double()
        inter = flat @ flat.T
        area = flat.sum(-1)
        union = area[:, None] + area[None, :] - inter
        overlaps, takes_part = torch.where(union > 0, inter / union.clamp(min=1), 0).to(wide.dtype), None
    else:
        boxes = items.to(wide.dtype)
        overlaps, takes_part = box_iou_reference(boxes, boxes), boxes.isfinite().all(-1)
    left = matrix_nms_reference(overlaps, wide, idxs=groups, takes_part=takes_part, **options)
    return left.to(scores.dtype)


@given(p=problems())
def test_matches_reference(backend, p):
    items, scores, groups = inputs(backend, p)
    left = ops.matrix_nms(given_form(items, p), scores, idxs=groups, **p["options"])
    assert left.shape == scores.shape
    assert left.dtype == p["dtype"]
    problems, rows = math.prod(p["batch"]), len(p["batch"])
    flat = [None if t is None else t.cpu().reshape(problems, *t.shape[rows:]) for t in (items, scores, groups, left)]
    for i in range(problems):
        one_items, one_scores, one_groups, got = (None if t is None else t[i] for t in flat)
        want = expected(one_items, one_scores, one_groups, p["options"])
        if p["options"]["kernel"] == "linear":
            assert torch.equal(got, want)
        else:  # exp is rounded differently from torch's, and is 0 where that is not a normal number
            tolerance = {torch.float64: 1e-12, torch.float32: 2e-6}.get(p["dtype"], 1e-2)
            torch.testing.assert_close(got, want, rtol=tolerance, atol=1e-37 if tolerance < 1e-3 else 1e-7)


@given(p=problems())
def test_properties(backend, p):
    """No score rises, the best of a group keeps its own, order does not matter, and backends agree to the bit."""
    p = {**p, "batch": (), "ties": False, "strange": False, "dtype": ALL_DTYPES[p["seed"] % 2]}
    items, scores, groups = inputs(backend, p)
    items = given_form(items, p)
    left = ops.matrix_nms(items, scores, idxs=groups, **p["options"])
    assert ((left >= 0) & (left <= scores)).all()
    for group in (torch.zeros_like(scores) if groups is None else groups).unique():
        members = torch.arange(p["n"], device=scores.device) if groups is None else (groups == group).nonzero()[:, 0]
        best = members[scores[members].argmax()]
        assert left[best] == scores[best]
    if scores.unique().numel() == p["n"]:
        shuffle = torch.randperm(p["n"], generator=torch.Generator().manual_seed(p["seed"])).to(backend.device)
        shuffled_groups = None if groups is None else groups[shuffle]
        shuffled = ops.matrix_nms(items[shuffle], scores[shuffle], idxs=shuffled_groups, **p["options"])
        assert torch.equal(shuffled, left[shuffle])
    threads = torch.get_num_threads()
    _lib.use_namespace("fastvision")
    try:
        torch.set_num_threads(1)
        idxs = None if groups is None else groups.cpu()
        assert torch.equal(ops.matrix_nms(items.cpu(), scores.cpu(), idxs=idxs, **p["options"]), left.cpu())
    finally:
        torch.set_num_threads(threads)
        _lib.use_namespace(backend.namespace)


@pytest.mark.parametrize("what", ["boxes", "dense"])
def test_several_chunks(backend, what):
    """More items than the CPU kernel has rows in memory, and a batch that makes the CUDA kernel take few of them."""
    g = backend.vary(4)
    rows, n = (1, 300) if backend.name == "cpu" else (300, 130)
    items = random_boxes(g, 1, n, size=30.0, dtype=torch.float32) if what == "boxes" else random_masks(g, 1, n, 3, 9)
    scores = torch.rand(1, n, generator=g)
    left = ops.matrix_nms(
        items.expand(rows, *items.shape[1:]).to(backend.device),
        scores.expand(rows, n).to(backend.device),
        kernel="linear",
    )
    assert torch.equal(left.cpu(), expected(items[0], scores[0], None, {"kernel": "linear"}).expand(rows, n))


def test_a_mask_inside_another(backend):
    """Worked by hand: 2 of 4 pixels, IoU 1/2; the third overlaps both, but the second counts only 1/2 of it."""
    rows = [[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0]]
    masks = torch.tensor(rows, dtype=torch.bool, device=backend.device)[:, None]
    scores = torch.tensor([1.0, 0.5, 0.25], device=backend.device)
    assert torch.equal(ops.mask_iou(masks, masks).cpu(), mask_iou_reference(masks.cpu(), masks.cpu()))
    assert ops.matrix_nms(masks, scores, kernel="linear").tolist() == [1.0, 0.25, 0.1875]
    gaussian = ops.matrix_nms(masks, scores, sigma=1.0).cpu()
    # min(exp(-1/16), exp(-1/4) / exp(-1/4)) for the third
    torch.testing.assert_close(gaussian, torch.tensor([1.0, 0.5 * math.exp(-1 / 4), 0.25 * math.exp(-1 / 16)]))


@pytest.mark.parametrize("size", [(0, 1), (3, 0)])
def test_masks_without_pixels_do_not_overlap(backend, size):
    scores = torch.tensor([0.5, 0.9, 0.7], device=backend.device)
    masks = torch.zeros(3, *size, dtype=torch.bool, device=backend.device)
    assert torch.equal(ops.matrix_nms(masks, scores), scores)
    assert torch.equal(ops.mask_iou(masks, masks), torch.zeros(3, 3, device=backend.device))


def test_sigma_beyond_float32(backend):
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1], [3, 3, 4, 4]], device=backend.device)
    scores = torch.tensor([0.9, 0.8, 0.7], device=backend.device)
    assert torch.equal(ops.matrix_nms(boxes, scores, sigma=1e300), scores * torch.tensor([1, 0, 1]).to(scores))
    assert torch.equal(ops.matrix_nms(boxes, scores, sigma=1e-300), scores)


def test_works_under_vmap_and_has_no_gradient(backend):
    g = backend.vary(1)
    boxes, scores = random_boxes(g, 4, 20, dtype=torch.float32), torch.rand(4, 20, generator=g)
    boxes, scores = boxes.to(backend.device), scores.to(backend.device)
    assert torch.equal(torch.func.vmap(ops.matrix_nms)(boxes, scores), ops.matrix_nms(boxes, scores))
    with pytest.raises(RuntimeError, match="matrix_nms: this op has no gradient"):
        ops.matrix_nms(boxes, scores.requires_grad_()).sum().backward()


def test_errors(backend):
    boxes, scores = torch.rand(3, 4, device=backend.device), torch.rand(3, device=backend.device)
    masks = torch.ones(3, 4, 9, dtype=torch.bool, device=backend.device)
    with pytest.raises(ValueError, match="kernel: expected one of gaussian, linear, got 'cubic'"):
        ops.matrix_nms(boxes, scores, kernel="cubic")
    for sigma in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="sigma: expected a finite number > 0"):
            ops.matrix_nms(boxes, scores, sigma=sigma)
    with pytest.raises(TypeError, match=r"use boxes\.float"):
        ops.matrix_nms(boxes.long(), scores)
    with pytest.raises(TypeError, match="scores: expected dtype float32 as boxes"):
        ops.matrix_nms(boxes, scores.double())
    with pytest.raises(ValueError, match="boxes: expected shape"):
        ops.matrix_nms(boxes[:, :3], scores)
    with pytest.raises(ValueError, match="scores: expected one per box or mask"):
        ops.matrix_nms(masks, scores[:2])
    with pytest.raises(ValueError, match="masks: expected shape"):
        ops.matrix_nms(masks[0], scores)
    with pytest.raises(TypeError, match="idxs: expected dtype int64"):
        ops.matrix_nms(boxes, scores, idxs=scores)
