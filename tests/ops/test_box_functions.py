"""box_area, box_convert, clip_boxes_to_image, remove_small_boxes and masks_to_boxes."""

import importlib
import itertools
import math

import pytest
import torch
from fastvision import ops
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, LAYOUTS, assert_close, few, lay_out, random_boxes, seeds

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
PLAIN, ROTATED = ("xyxy", "xywh", "cxcywh"), ("xywhr", "cxcywhr", "xyxyxyxy")
layouts = st.sampled_from(LAYOUTS)


@given(seed=seeds, n=few, fmt=st.sampled_from(PLAIN), dtype=st.sampled_from(ALL_DTYPES), layout=layouts)
def test_areas_of_floats(seed, n, fmt, dtype, layout):
    boxes = random_boxes(torch.Generator().manual_seed(seed), n, dtype=dtype)
    area = ops.box_area(lay_out(boxes, layout), fmt)
    assert area.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    a, b, c, d = boxes.double().unbind(-1)
    width, height = (c - a, d - b) if fmt == "xyxy" else (c, d)
    assert_close(area, width.clamp(min=0) * height.clamp(min=0))


@given(data=st.data(), dtype=st.sampled_from(INTEGERS))
def test_integers_never_wrap(data, dtype):
    limits = torch.iinfo(dtype)
    most = min(limits.max, 2**62 - 1)
    corners = st.integers(max(limits.min, -(2**62)), most)
    rows = data.draw(st.lists(st.tuples(corners, corners, corners, corners), max_size=5))
    boxes = torch.tensor(rows, dtype=dtype).view(-1, 4)
    wanted = [min(max(c - a, 0) * max(d - b, 0), 2**63 - 1) for a, b, c, d in rows]
    for area, exact in zip(ops.box_area(boxes).tolist(), wanted):
        assert area == exact or exact > 2**63 - 2**10, "only near the largest number there is rounding"
    least = data.draw(st.integers(0, 300))
    large = [i for i, (a, b, c, d) in enumerate(rows) if c - a >= least and d - b >= least]
    if most < 2**52:
        assert ops.remove_small_boxes(boxes, least).tolist() == large
    height, width = data.draw(st.tuples(st.integers(0, 1000), st.integers(0, 1000)))
    clipped = ops.clip_boxes_to_image(boxes, (height, width))
    assert clipped.dtype == dtype
    inside = [[min(max(v, 0), (width, height)[k % 2]) for k, v in enumerate(row)] for row in rows]
    assert clipped.tolist() == [[min(v, limits.max) for v in row] for row in inside]


def test_areas_of_extreme_boxes():
    for dtype in (torch.float32, torch.float64):
        huge = torch.finfo(dtype).max
        boxes = torch.tensor([[-huge, 1, huge, 1], [-huge, -huge, huge, huge], [huge, huge, -huge, -huge]], dtype=dtype)
        assert ops.box_area(boxes).tolist() == [0, math.inf, 0]
    halves = torch.tensor([[0.0, 0, 300, 300]], dtype=torch.float16)
    assert ops.box_area(halves).item() == 90000
    boxes = torch.tensor([[0.0, 0, 2, 3], [1, 1, 1, 4]], dtype=torch.float64, requires_grad=True)
    ops.box_area(boxes).sum().backward()
    assert boxes.grad.tolist() == [[-3, -2, 3, 2], [-3, 0, 3, 0]]


@given(seed=seeds, n=few, dtype=st.sampled_from(ALL_DTYPES), layout=layouts)
def test_clipping_and_removal(seed, n, dtype, layout):
    g = torch.Generator().manual_seed(seed)
    boxes = random_boxes(g, n, dtype=dtype) - 4
    placed = lay_out(boxes, layout)
    clipped = ops.clip_boxes_to_image(placed, (8, 12.5))
    assert torch.equal(clipped, torch.minimum(boxes.clamp(min=0), boxes.new_tensor([12.5, 8, 12.5, 8])))
    assert clipped.dtype == dtype
    sides = boxes.double()[:, 2:] - boxes.double()[:, :2]
    least = float(sides.flatten()[:1].sum())
    kept = ops.remove_small_boxes(placed, least)
    assert kept.dtype == torch.int64
    if dtype == torch.float32:
        sides = boxes[:, 2:] - boxes[:, :2]
    assert torch.equal(kept, (sides >= least).all(1).nonzero()[:, 0])


def test_boxes_that_are_not_numbers():
    boxes = torch.tensor([[0.0, 0, math.nan, 5], [0, 0, math.inf, 5], [-math.inf, 0, 3, 5]])
    assert ops.remove_small_boxes(boxes, 1).tolist() == [1, 2]
    clipped = ops.clip_boxes_to_image(boxes, (4, 9))
    assert clipped[1:].tolist() == [[0, 0, 9, 4], [0, 0, 3, 4]]
    assert clipped.isnan().nonzero().tolist() == [[0, 2]]


@given(seed=seeds, size=st.tuples(few, st.integers(0, 9), st.integers(0, 70)), kind=st.integers(0, 3), layout=layouts)
def test_boxes_around_masks(seed, size, kind, layout):
    masks = torch.rand(size, generator=torch.Generator().manual_seed(seed)) < 0.03
    masks = masks.to((torch.bool, torch.uint8, torch.int64, torch.float16)[kind]) * (1 if kind == 0 else -1)
    masks = masks if kind else masks.bool()
    wanted = []
    for mask in masks:
        y, x = mask.nonzero().unbind(1)
        wanted.append([float(f) for f in (x.min(), y.min(), x.max(), y.max())] if len(x) else [0.0] * 4)
    placed = lay_out(masks, layout) if kind == 3 or layout == "transposed" else masks  # NaN between the others' pixels
    boxes = ops.masks_to_boxes(placed)
    assert boxes.dtype == torch.float32
    assert boxes.tolist() == wanted


@given(
    seed=seeds,
    n=few,
    pair=st.sampled_from([*itertools.product(PLAIN, PLAIN), *itertools.product(ROTATED, ROTATED)]),
    dtype=st.sampled_from(ALL_DTYPES),
)
def test_conversion_and_back(seed, n, pair, dtype):
    g = torch.Generator().manual_seed(seed)
    boxes = torch.cat([torch.rand(n, 2, generator=g) * 9, 1 + torch.rand(n, 2, generator=g) * 9], 1).double()
    source = "cxcywh"
    if pair[0] in ROTATED:
        boxes = torch.cat([boxes, torch.rand(n, 1, generator=g) * 340 - 170], 1)
        source = "cxcywhr"
    first = ops.box_convert(boxes, source, pair[0])
    assert_close(ops.box_convert(first, pair[0], source), boxes)
    there = ops.box_convert(first.to(dtype), *pair)
    assert there.dtype == dtype
    if dtype in (torch.float32, torch.float64):
        assert_close(there, ops.box_convert(boxes, source, pair[1]), 200)


def test_rotated_boxes_turn_counterclockwise():
    corners = ops.box_convert(torch.tensor([[5.0, 5, 4, 2, 90]]), "cxcywhr", "xyxyxyxy")
    torch.testing.assert_close(corners, torch.tensor([[4.0, 7, 4, 3, 6, 3, 6, 7]]))
    whole = ops.box_convert(torch.tensor([[5, 5, 4, 2, 90]]), "cxcywhr", "xyxyxyxy")
    assert whole.tolist() == [[4, 7, 4, 3, 6, 3, 6, 7]]
    upright = torch.tensor([[1.0, 2, 4, 2, 0]], dtype=torch.float64, requires_grad=True)
    for pair in itertools.permutations(ROTATED, 2):
        boxes = ops.box_convert(upright, "xywhr", pair[0]).detach().requires_grad_()
        torch.autograd.gradcheck(lambda b, pair=pair: ops.box_convert(b, *pair), (boxes,))


def test_bad_arguments():
    boxes, five = torch.rand(3, 4), torch.rand(3, 5)
    calls = {
        r"box_area: boxes: expected shape \(\.\.\., 4\), got \(3, 5\)": lambda: ops.box_area(five),
        "box_area: fmt: expected one of xyxy, xywh, cxcywh, got 'xy'": lambda: ops.box_area(boxes, "xy"),
        r"clip_boxes_to_image: boxes: expected shape": lambda: ops.clip_boxes_to_image(five, (3, 3)),
        r"clip_boxes_to_image: size: expected \(height, width\)": lambda: ops.clip_boxes_to_image(boxes, (3, 3, 3)),
        r"clip_boxes_to_image: size: expected finite": lambda: ops.clip_boxes_to_image(boxes, (3, -1)),
        r"clip_boxes_to_image: size: .*nan": lambda: ops.clip_boxes_to_image(boxes, (math.nan, 1)),
        r"remove_small_boxes: boxes: expected shape \(N, 4\)": lambda: ops.remove_small_boxes(boxes[None], 1),
        r"remove_small_boxes: min_size": lambda: ops.remove_small_boxes(boxes, math.nan),
        r"masks_to_boxes: masks: expected shape \(N, H, W\), got \(3, 4\)": lambda: ops.masks_to_boxes(boxes),
        r"box_convert: boxes: expected shape \(\.\.\., 8\)": lambda: ops.box_convert(five, "xyxyxyxy", "xywhr"),
        r"box_convert: out_fmt: expected one of xywhr": lambda: ops.box_convert(five, "xywhr", "xyxy"),
        r"box_convert: in_fmt: expected one of xyxy": lambda: ops.box_convert(five, "xywhx", "xyxy"),
    }
    for message, call in calls.items():
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_compute_as_plain_torch_does(backend, n, dtype):
    """Where a gradient is needed plain torch computes: the same bits, for numbers of any kind."""
    boxes = torch.randn(n, 2, 4, dtype=dtype, generator=backend.vary(n)) * 100
    boxes[n // 2 :, 0, 1], boxes[n // 3 :, 1, 2] = torch.inf, torch.nan
    boxes[: n // 4] *= torch.finfo(dtype).max / 1000
    for moved in (boxes, boxes[:, 0], boxes[::2], boxes[:, :, :1].expand(n, 2, 4), boxes.mT.contiguous().mT):
        moved = moved.to(backend.device)
        plain = moved.detach().requires_grad_()
        results = [(ops.box_area(moved, fmt), ops.box_area(plain, fmt)) for fmt in PLAIN]
        for start, end in itertools.permutations(PLAIN, 2):
            results.append((ops.box_convert(moved, start, end), ops.box_convert(plain, start, end)))
        for got, want in results:
            torch.testing.assert_close(got, want.detach(), rtol=0, atol=0, equal_nan=True)
            assert got.is_contiguous()


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_areas_of_many_boxes(backend, dtype):
    """More than one thread takes."""
    boxes = random_boxes(backend.vary(0), 40_001, dtype=dtype)
    sides = boxes.double()[:, 2:] - boxes.double()[:, :2]
    assert_close(ops.box_area(boxes.to(backend.device)), sides.clamp(min=0).prod(1))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_unknown_formats_of_raw_ops(device):
    boxes = torch.zeros(3, 4, device=device)
    for call in (
        lambda: torch.ops.fastvision.box_area(boxes, 3),
        lambda: torch.ops.fastvision.box_convert(boxes, 0, -1),
    ):
        with pytest.raises(RuntimeError, match="format: expected 0 to 2"):
            call()


def test_boxes_on_devices_without_kernels_are_computed_by_torch(monkeypatch):
    boxes = torch.tensor([[0.0, 0, 2, 3]])
    for module, name, value in (("box_convert", "_has_kernel_on", lambda device: False), ("box_area", "_op", None)):
        monkeypatch.setattr(importlib.import_module(f"fastvision.ops.{module}"), name, value)
    assert ops.box_area(boxes).tolist() == [6]
    assert ops.box_convert(boxes, "xyxy", "cxcywh").tolist() == [[1, 1.5, 2, 3]]
