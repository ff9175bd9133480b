"""Run lengths against pycocotools."""

import numpy as np
import pycocotools.mask as reference
import torch
from fastvision import ops
from hypothesis import given
from hypothesis import strategies as st
from masks import LAYOUTS, draw_masks, lay_out, problems
from support import few, seeds


def as_reference(masks):
    return np.asfortranarray(masks.transpose(1, 2, 0))


@given(p=problems, layout=st.sampled_from(LAYOUTS))
def test_encode_equals_pycocotools_and_decode_reverses_it(p, layout):
    masks = draw_masks(p)
    given_masks = lay_out(masks, layout, p["seed"])
    before = given_masks.copy() if isinstance(given_masks, np.ndarray) else given_masks.clone()
    objects = ops.rle_encode(given_masks)
    assert objects == reference.encode(as_reference(masks))
    assert (given_masks == before).all()
    decoded = ops.rle_decode(objects)
    assert decoded.dtype == torch.bool
    if p["n"]:
        np.testing.assert_array_equal(decoded.numpy(), masks.astype(bool))


@given(seed=seeds, h=st.integers(1, 200), w=st.integers(1, 200))
def test_noise_equals_pycocotools(seed, h, w):
    rng = np.random.default_rng(seed)
    masks = (rng.random((2, h, w)) < rng.random()).astype(np.uint8)
    objects = ops.rle_encode(masks)
    assert objects == reference.encode(as_reference(masks))
    np.testing.assert_array_equal(ops.rle_decode(objects).numpy(), masks.astype(bool))


@given(p=problems, crowd=st.lists(st.booleans(), min_size=4, max_size=4), other=seeds)
def test_areas_boxes_overlaps_and_merges_equal_pycocotools(p, crowd, other):
    p = {**p, "n": max(p["n"], 1), "h": max(p["h"], 1), "w": max(p["w"], 1)}
    a, b = ops.rle_encode(draw_masks(p)), ops.rle_encode(draw_masks({**p, "seed": other, "kind": "blocks"}))
    crowd = crowd[: len(b)]
    np.testing.assert_array_equal(ops.rle_area(a).numpy(), reference.area(a))
    np.testing.assert_array_equal(ops.rle_to_boxes(a, "xywh").numpy(), reference.toBbox(a))
    np.testing.assert_array_equal(ops.rle_iou(a, b, crowd).numpy(), reference.iou(a, b, crowd))
    for intersect in (False, True):
        assert ops.rle_merge(a + b, intersect) == reference.merge(a + b, intersect)


@given(seed=seeds, h=few, w=few, scale=st.sampled_from([1.0, 10.0, 100.0, 2000.0, 1e5]), parts=st.integers(1, 3))
def test_polygons_equal_pycocotools(seed, h, w, scale, parts):
    rng = np.random.default_rng(seed)
    h, w = max(h, 1), max(w, 1)
    polygons = []
    for _ in range(parts):
        polygon = (rng.random((rng.integers(3, 9), 2)) - rng.choice([0, 0.3])) * scale
        polygon = rng.choice([polygon, polygon.round(), (5 * polygon).round() / 5])
        if rng.random() < 0.3:
            polygon[-1] = polygon[0]
        polygons.append(polygon)
    flat = [polygon.ravel().tolist() for polygon in polygons]
    expected = reference.merge(reference.frPyObjects(flat, h, w))
    assert ops.rle_from_polygons(flat, h, w) == expected
    assert ops.rle_from_polygons([torch.from_numpy(polygon) for polygon in polygons], h, w) == expected
