import numpy as np
import torch
from fastvision import _host, ops
from hypothesis import given
from masks import draw_masks, problems
from support import seeds


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
def test_noise_of_any_density(seed):
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, 200, 2).tolist()
    noise = (rng.random((h, w)) < rng.random()) * rng.integers(1, 256, (h, w)).astype(np.uint8)
    strided = np.full((h, w + 3), 7, np.uint8)
    strided[:, :w] = noise
    ends = np.flatnonzero(np.diff((noise != 0).T.ravel().astype(int), prepend=0))
    counts = np.diff([0, *ends, h * w]).tolist()
    expected = ops.rle_to_string({"size": [h, w], "counts": counts}).encode()
    for mask in (noise, strided[:, :w], np.asfortranarray(noise)):
        assert ops.rle_encode(mask[None])[0]["counts"] == expected
    packed = np.packbits(noise != 0, axis=1, bitorder="little")
    packed[:, -1] |= 255 << (w - 1) % 8 + 1 & 255  # what lies behind a row does not matter
    assert _host.rle_encode_bits(packed[None], w, 1) == ops.rle_encode(noise[None])
    assert (ops.rle_decode([{"size": [h, w], "counts": expected}])[0].numpy() == (noise != 0)).all()


def test_counts_whose_differences_are_as_large_as_can_be():
    for pixels in (2**31 - 1, 2**32 - 1):
        counts = [0, 0, 0, 0, pixels] + [0] * 15
        text = ops.rle_to_string({"size": [1, pixels], "counts": counts})
        assert ops.rle_from_string(text, 1, pixels) == {"size": [1, pixels], "counts": text.encode()}
        assert ops.rle_area([{"size": [1, pixels], "counts": text}]).item() == 0
        assert ops.rle_area([{"size": [1, pixels], "counts": [0, *counts]}]).item() == pixels


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
