import numpy as np
import pytest
from fastvision import _host
from hostile import outcomes_of, run

GOOD = "{'size': [2, 2], 'counts': '22'}"
REFUSED = {
    "ops.rle_decode([{'size': [100000, 100000], 'counts': '04'}])": "objects[0]: expected a size of at most",
    f"ops.rle_decode([{GOOD}, {{'size': [2, 2], 'counts': '23'}}])": "objects[1]: expected counts that add up",
    f"ops.rle_decode([{GOOD}, {{'size': [2, 2], 'counts': '21'}}])": "width = 4, got 3",
    f"ops.rle_decode([{GOOD}, {{'size': [4, 1], 'counts': '22'}}])": "objects[1]: size: expected [2, 2] as the first",
    "ops.rle_area([{'size': [65535, 65537], 'counts': ''}])": "width = 4294967295, got 0",
    "ops.rle_area([{'size': [2**31, 2**33], 'counts': '0'}])": "pixels, got [2147483648, 8589934592]",
    "ops.rle_area([{'size': [2**80, 1], 'counts': '0'}])": "objects[0]: size: expected an integer of 64 bits",
    "ops.rle_area([{'size': [-2, -2], 'counts': '4'}])": "expected a size [height, width] >= 0, got [-2, -2]",
    "ops.rle_area([{'size': [2], 'counts': '4'}])": "expected [height, width], got 1 numbers",
    "ops.rle_area([{'size': [2, 2]}])": 'objects[0]: expected a dict with "size" and "counts", got one without',
    "ops.rle_area([{'size': [2, 2], 'counts': [5, -1]}])": "width = 4, got more at position 0",
    "ops.rle_area([{'size': [2, 2], 'counts': [2, -1, 3]}])": "expected counts >= 0, got -1 at position 1",
    "ops.rle_area([{'size': [2, 2], 'counts': [2**63]}])": "objects[0]: counts: expected integers of 64 bits",
    "ops.rle_area([{'size': [2, 2], 'counts': [2**62, 2**62, 2**62]}])": "got more at position 0",
    "ops.rle_area([{'size': [2, 2], 'counts': b'2\\xff'}])": "expected characters '0' to 'o' in counts, got code 255",
    "ops.rle_area([{'size': [2, 2], 'counts': '2\\u00e9'}])": "got code 195",
    "ops.rle_area([{'size': [2, 2], 'counts': '2\\0' + '2'}])": "got code 0",
    "ops.rle_area([{'size': [2, 2], 'counts': '\\ud800'}])": "counts: expected ASCII text, got other characters",
    "ops.rle_area([{'size': [2, 2], 'counts': '2R'}])": "got a string that is cut off",
    "ops.rle_area([{'size': [2, 2], 'counts': 'o' * 100000}])": "counts of at most 7 characters",
    "ops.rle_area([{'size': [2, 2], 'counts': 'TPPPPPP0'}])": "counts of at most 7 characters, got more at position 0",
    "ops.rle_area([{'size': [2, 2], 'counts': 'ooooooO'}])": "expected counts >= 0, got -1 at position 0",
    "ops.rle_iou([], [], [True])": "crowd: expected shape (0), got (1,)",
    f"ops.rle_iou([{GOOD}], [{{'size': [1, 4], 'counts': '22'}}])": "b[0]: size: expected [2, 2]",
    "ops.rle_merge([])": "expected at least one mask, got none",
    "ops.rle_from_string('22', 3, 3)": "width = 9, got 4",
    "ops.rle_from_polygons([], 4, 4)": "expected at least one polygon, got none",
    "ops.rle_from_polygons([[]], 4, 4)": "polygons[0]: expected at least 3 points, got 0",
    "ops.rle_from_polygons([[0, 0, 1, 1]], 4, 4)": "polygons[0]: expected at least 3 points, got 2",
    "ops.rle_from_polygons([[0, 0, 4, 0, 4, 4], [0, 0, 1, 1, 2]], 4, 4)": "polygons[1]: expected an even number",
    "ops.rle_from_polygons([[0, 0, nan, 4, 4, 4]], 4, 4)": "polygons[0]: expected finite coordinates",
    "ops.rle_from_polygons([[0, 0, -inf, 4, 4, 4]], 4, 4)": "polygons[0]: expected finite coordinates",
    "ops.rle_from_polygons([[0, 0, 1e9, 4, 4, 4]], 4, 4)": "in [-1e6, 1e6], got 1000000000.0",
    "ops.rle_from_polygons([[0, 0, 1e300, 4, 4, 4]], 4, 4)": "in [-1e6, 1e6]",
    "ops.rle_from_polygons([np.zeros((3, 3))], 4, 4)": "polygons[0]: expected coordinates x, y, x, y, ...",
    "ops.rle_from_polygons([[0, 0, 4, 0, 4, 4]], -1, 4)": "height: expected an integer in [0, 2**32), got -1",
    "ops.rle_from_polygons([[0, 0, 4, 0, 4, 4]], 10**5, 10**5)": "polygons[0]: expected a size of at most",
    "ops.rle_from_polygons([[0, 0, 1e6, 0] * 30000], 2, 2**31 - 1)": "expected a polygon that crosses fewer than",
    "ops.rle_encode(torch.zeros(2, 2, dtype=torch.bool))": "masks: expected shape (N, H, W), got (2, 2)",
    "ops.rle_encode(np.broadcast_to(np.zeros(1, np.uint8), (1, 2**17, 2**17)))": "a size of at most 4294967295 pixels",
    "ops.rle_to_boxes([], 'cxcywh')": "fmt: expected 'xyxy' or 'xywh'",
}
REFUSED_TYPES = {
    "ops.rle_area([3])": 'objects[0]: expected a dict with "size" and "counts", got int',
    "ops.rle_area({'size': [2, 2], 'counts': '22'})": "objects: expected a list of masks, got dict",
    "ops.rle_area([{'size': 4, 'counts': '22'}])": "size: expected [height, width], got int",
    "ops.rle_area([{'size': [2.0, 2], 'counts': '22'}])": "size: expected an integer, got float",
    "ops.rle_area([{'size': [2, 2], 'counts': 22}])": "counts: expected bytes, str or a list of integers, got int",
    "ops.rle_area([{'size': [2, 2], 'counts': [2.0, 2.0]}])": "counts: expected integers, got float",
    "ops.rle_encode(torch.zeros(1, 2, 2))": "expected dtype bool or uint8, got float32",
    "ops.rle_encode(np.zeros((1, 2, 2), np.int8))": "expected dtype bool or uint8, got int8",
    "ops.rle_encode([[[0, 1]]])": "masks: expected a tensor or a NumPy array, got list",
    "ops.rle_from_polygons([['a', 'b']], 4, 4)": "polygons[0]: expected numbers",
    "ops.rle_from_string(22, 2, 2)": "text: expected str or bytes, got int",
}
ACCEPTED = {
    "ops.rle_decode([{'size': [2, 2], 'counts': '0TPPPPP0'}]).sum().item()": "4",
    "ops.rle_area([{'size': [65535, 65537], 'counts': [0, 4294967295]}]).item()": "4294967295",
    "ops.rle_to_boxes([{'size': [65535, 65537], 'counts': [0, 2**32 - 1]}]).tolist()": "[[0.0, 0.0, 65537.0, 65535.0]]",
    "ops.rle_from_polygons([[-1e6, -1e6, 1e6, -1e6, 1e6, 1e6, -1e6, 1e6]], 4, 4)": "{'size': [4, 4], 'counts': b'0`0'}",
    "len(ops.rle_from_polygons([[0, 0, 1e6, 0] * 100], 65535, 65537)['counts'])": "7",
    "ops.rle_decode([{'size': [0, 7], 'counts': ''}]).shape": "torch.Size([1, 0, 7])",
}


def test_hostile_input_is_refused_and_harmless():
    for expected, cases in (("ValueError", REFUSED), ("TypeError", REFUSED_TYPES), ("ok", ACCEPTED)):
        for (source, wanted), (kind, text) in zip(cases.items(), outcomes_of(list(cases))):
            assert kind == expected, f"{source}: {kind}: {text}"
            assert wanted in text, f"{source}: {text}"


def test_the_first_wrong_mask_is_named_whatever_the_threads_do():
    masks = [{"size": [2, 2], "counts": b"22"}] * 37 + [{"size": [2, 2], "counts": b"9"}] * 200
    for threads in (1, 2, 8):
        with pytest.raises(ValueError, match=r"objects\[37\]: "):
            _host.rle_area(masks, threads)


def test_results_beyond_the_memory_are_an_error_that_says_so():
    source = "ops.rle_decode([{'size': [65535, 65537], 'counts': [4294967295]}] * 1000)"
    assert outcomes_of([source, "ops.rle_area([])"]) == [
        (
            "OutOfMemoryError",
            "rle_decode: out of memory: cannot allocate shape (1000, 65535, 65537) of bool (4294967295000 bytes)",
        ),
        ("ok", "tensor([], dtype=torch.int64)"),
    ]


def test_random_text_is_a_mask_or_an_error():
    program = """
rng = np.random.default_rng(0)
masks = 0
for _ in range(30000):
    size = rng.integers(0, 5, 2).tolist()
    mask = {"size": size, "counts": rng.integers(46, 114, rng.integers(0, 6), dtype=np.uint8).tobytes()}
    if rng.random() < 0.5:
        mask["counts"] = rng.integers(-1, 6, rng.integers(0, 6)).tolist()
    try:
        decoded = ops.rle_decode([mask])
    except ValueError:
        continue
    masks += 1
    assert decoded.sum() == ops.rle_area([mask])[0] and list(decoded.shape) == [1, *size]
    assert torch.equal(ops.rle_decode(ops.rle_encode(decoded)), decoded)
print(masks)
"""
    assert int(run(program)) > 100


def test_binding_takes_exact_arrays_only():
    good, out = [{"size": [2, 2], "counts": b"22"}], np.zeros((1, 2, 2), np.uint8)
    for wrong in (out.astype(np.float32), np.zeros((1, 2, 4), np.uint8)[:, :, ::2], out[:, :, ::-1]):
        with pytest.raises(TypeError):
            _host.rle_decode(good, wrong, 1)
    for wrong in (out[:, :1], out[0], np.zeros((2, 2, 2), np.uint8), np.frombuffer(b"0000", np.uint8).reshape(1, 2, 2)):
        with pytest.raises(ValueError):
            _host.rle_decode(good, wrong, 1)
    with pytest.raises(ValueError, match="threads: expected an integer >= 1, got 0"):
        _host.rle_decode(good, out, 0)
    assert not out.any()
    for wrong in (out.astype(np.int8), out[:, :, ::-1], [[[0]]]):
        with pytest.raises(TypeError):
            _host.rle_encode_bits(wrong, 9, 1)
    for wrong, width in ((out, 8), (out, 17), (out, -1), (out, 2**63 - 1), (out[0], 9)):
        with pytest.raises(ValueError):
            _host.rle_encode_bits(wrong, width, 1)
    with pytest.raises(TypeError):
        _host.rle_iou(good, good, np.zeros(1, np.uint8), 1)
    with pytest.raises(ValueError, match=r"crowd: expected shape \(1\), got \(1, 1\)"):
        _host.rle_iou(good, good, np.zeros((1, 1), bool), 1)
    for wrong in (np.zeros(6, np.float32), np.zeros(12)[::2], [0.0] * 6):
        with pytest.raises(TypeError, match=r"polygons\[0\]: expected a contiguous array of float64"):
            _host.rle_from_polygons([wrong], 4, 4)
