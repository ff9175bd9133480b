import numpy as np
import pycocotools.mask as reference
import torch
from fastvision import ops
from hypothesis import given
from hypothesis import strategies as st
from support import few, seeds


def draw_masks(p):
    """Masks (N, H, W) of 0 and 1: noise of any density, overlapping rectangles, nothing or everything."""
    rng = np.random.default_rng(p["seed"])
    n, h, w = p["n"], p["h"], p["w"]
    if p["kind"] == "noise":
        return (rng.random((n, h, w)) < rng.choice([0.01, 0.1, 0.5, 0.9])).astype(np.uint8)
    masks = np.full((n, h, w), p["kind"] == "full", np.uint8)
    for mask in masks if p["kind"] == "blocks" else ():
        for _ in range(3):
            y, x = rng.integers(0, h + 1), rng.integers(0, w + 1)
            mask[y : y + rng.integers(0, h + 1), x : x + rng.integers(0, w + 1)] ^= 1
    return masks


def lay_out(masks, layout, seed):
    """The same masks in another container, dtype or memory order."""
    if layout == "column major":
        return np.asfortranarray(masks.transpose(1, 2, 0)).transpose(2, 0, 1)
    if layout == "any value":
        return masks * np.random.default_rng(seed).integers(1, 256, masks.shape, dtype=np.uint8)
    if layout == "sliced":
        return np.repeat(np.repeat(masks, 2, 1), 3, 2)[:, ::2, ::3]
    if layout == "padded rows":
        return np.pad(masks, ((0, 0), (0, 0), (2, 3)), constant_values=1)[:, :, 2 : masks.shape[2] + 2]
    if layout == "backwards":
        return masks[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]
    return {"bool": masks.astype(bool), "tensor": torch.from_numpy(masks), "tensor bool": torch.from_numpy(masks) > 0}[
        layout
    ]


LAYOUTS = ("bool", "tensor", "tensor bool", "column major", "any value", "sliced", "padded rows", "backwards")
problems = st.fixed_dictionaries(
    {
        "seed": seeds,
        "n": st.integers(0, 4),
        "h": few | st.integers(1, 5),
        "w": few | st.integers(1, 5) | st.sampled_from([127, 128, 129, 200]),
        "kind": st.sampled_from(["noise", "blocks", "blocks", "empty", "full"]),
    }
)


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


@given(p=problems)
def test_definitions_in_plain_numpy(p):
    masks = draw_masks(p)
    objects = ops.rle_encode(masks)
    np.testing.assert_array_equal(ops.rle_area(objects).numpy(), masks.sum((1, 2)))
    for mask, box in zip(masks, ops.rle_to_boxes(objects).tolist()):
        y, x = mask.nonzero()
        assert box == ([x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 0, 0])
    flat = masks.reshape(p["n"], p["h"] * p["w"]).astype(float)
    shared = flat @ flat.T
    whole = flat.sum(1)[:, None] + flat.sum(1) - shared
    expected = np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)
    np.testing.assert_array_equal(ops.rle_iou(objects, objects).numpy(), expected)


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


@given(p=problems)
def test_text_and_lists_of_counts_stand_for_the_same_mask(p):
    for mask in ops.rle_encode(draw_masks({**p, "n": 1})):
        text = ops.rle_to_string(mask)
        assert text.encode() == mask["counts"]
        assert ops.rle_from_string(text, *mask["size"]) == mask
        decoded = ops.rle_decode([mask])[0].numpy()
        ends = np.flatnonzero(np.diff(decoded.T.ravel().astype(int), prepend=0))
        counts = np.diff([0, *ends, decoded.size])
        for same in (counts.tolist(), tuple(counts.tolist()), counts):
            listed = {"size": tuple(mask["size"]), "counts": same}
            assert ops.rle_to_string(listed) == text
        assert (ops.rle_decode([{**mask, "counts": text}])[0].numpy() == decoded).all()


@given(seed=seeds)
def test_runs_of_length_zero_anywhere(seed):
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, 6, 2).tolist()
    objects, masks = [], []
    for _ in range(2):
        cuts = np.sort(rng.integers(0, h * w + 1, rng.integers(0, 12)))
        counts = np.diff([0, *cuts, h * w])
        objects.append({"size": [h, w], "counts": counts.tolist()})
        masks.append(np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(w, h).T)
    np.testing.assert_array_equal(ops.rle_decode(objects).numpy(), masks)
    np.testing.assert_array_equal(ops.rle_area(objects).numpy(), np.sum(masks, (1, 2)))
    np.testing.assert_array_equal(ops.rle_decode([ops.rle_merge(objects)])[0].numpy(), masks[0] | masks[1])
    np.testing.assert_array_equal(ops.rle_decode([ops.rle_merge(objects, True)])[0].numpy(), masks[0] & masks[1])


def test_any_number_of_threads_gives_the_same():
    masks = (torch.rand(50, 40, 70, generator=torch.Generator().manual_seed(0)) < 0.3).to(torch.uint8)
    results = []
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        objects = ops.rle_encode(masks)
        results.append((objects, ops.rle_decode(objects), ops.rle_iou(objects, objects)))
    for objects, decoded, overlaps in results[1:]:
        assert objects == results[0][0]
        assert torch.equal(decoded, results[0][1])
        assert torch.equal(overlaps, results[0][2])


def test_empty_lists():
    assert ops.rle_encode(np.zeros((0, 5, 5), bool)) == []
    assert ops.rle_decode([]).shape == (0, 0, 0)
    assert ops.rle_area([]).shape == (0,)
    assert ops.rle_to_boxes([]).shape == (0, 4)
    assert ops.rle_iou([], [{"size": [1, 1], "counts": "1"}]).shape == (0, 1)
