import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from fastvision.data import DigitsOnPhotos, digits_on_photos
from hypothesis import given
from hypothesis import strategies as st

ASSETS = Path(digits_on_photos.__file__).parent / "assets"
splits = st.sampled_from(["train", "test"])


def digest(image, target):
    whole = hashlib.sha256(image.numpy().tobytes())
    for key in ("boxes", "labels", "masks"):
        whole.update(target[key].numpy().tobytes())
    return whole.hexdigest()


@given(split=splits, seed=st.integers(0, 2**70), index=st.integers(0, 2**62 - 1), size=st.sampled_from([40, 80, 224]))
def test_every_item_is_sound(split, seed, index, size):
    image, target = DigitsOnPhotos(split, length=2**62, seed=seed, size=size)[index]
    boxes, labels, masks = target["boxes"], target["labels"], target["masks"]
    assert image.shape == (3, size, size)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert 0 <= image.min() <= image.max() <= 1
    n = len(labels)
    assert 1 <= n <= 4
    assert boxes.shape == (n, 4)
    assert boxes.dtype == torch.float32
    assert masks.shape == (n, size, size)
    assert masks.dtype == torch.bool
    assert labels.dtype == torch.int64
    assert ((labels >= 1) & (labels <= 10)).all()
    assert masks.sum(0).max() == 1  # none is empty, none covers another
    for box, mask in zip(boxes.long().tolist(), masks):
        x1, y1, x2, y2 = box
        inside = mask[y1:y2, x1:x2]
        assert inside.sum() == mask.sum() > 0
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


@given(split=splits, seed=st.integers(0, 1000), index=st.integers(0, 999))
def test_items_depend_on_split_seed_and_index_alone(split, seed, index):
    data = DigitsOnPhotos(split, seed=seed)
    item = digest(*data[index])
    data[(index + 7) % 1000]
    assert digest(*data[index]) == item
    assert digest(*DigitsOnPhotos(split, seed=seed, length=5000)[index]) == item
    assert digest(*DigitsOnPhotos(split, seed=seed + 1)[index]) != item
    assert digest(*data[(index + 1) % 1000]) != item
    other = DigitsOnPhotos("test" if split == "train" else "train", seed=seed)
    assert not torch.equal(data[index][1]["boxes"], other[index][1]["boxes"])


@pytest.mark.parametrize(("split", "expected"), [("train", "e39ca4b86714c59e"), ("test", "2c205eb89692c219")])
def test_the_bits_are_those_of_every_machine(split, expected):
    # Promised wherever Pillow decodes JPEG with libjpeg-turbo, as all its wheels do, on any processor and operating
    # system: photographs without interpolated chroma, Pillow's fixed-point resizing, PCG64, and elementwise float32
    # operations that are rounded one by one. Seen alike with NumPy 1.24 and 2.4, Pillow 10.0 and 13.0, and with the
    # vector code of NumPy and of the decoder switched off.
    data, whole = DigitsOnPhotos(split, length=20), hashlib.sha256()
    for image, target in (data[i] for i in range(20)):
        whole.update(digest(image, target).encode())
    assert whole.hexdigest()[:16] == expected


def test_splits_share_neither_digits_nor_photographs():
    photos = {split: {p.read_bytes() for p in (ASSETS / split).glob("*.jpg")} for split in ("train", "test")}
    assert [len(photos[split]) for split in ("train", "test")] == [7, 4]
    assert not photos["train"] & photos["test"]
    train, test = DigitsOnPhotos("train"), DigitsOnPhotos("test")
    assert (len(train._digits), len(test._digits)) == (1438, 359)
    assert not {d.tobytes() for d in train._digits} & {d.tobytes() for d in test._digits}
    for data in (train, test):
        assert set(data._labels.tolist()) == set(range(10))


def test_labels_are_of_the_digits_shown():
    # The ground truth of a nearest-neighbour classifier on enlarged masks: chance would be one in ten.
    data, right, seen = DigitsOnPhotos("test", length=60, digit_size=(32, 36)), 0, 0
    train = DigitsOnPhotos("train")
    known = np.stack([np.asarray(digit.resize((16, 16))) > 120 for digit in train._digits])
    for _, target in (data[i] for i in range(60)):
        for label, mask, box in zip(target["labels"], target["masks"], target["boxes"].long().tolist()):
            cut = mask[box[1] : box[3], box[0] : box[2]].float()[None, None]
            shape = torch.nn.functional.interpolate(cut, (16, 12), mode="nearest")[0, 0].numpy() > 0.5
            distance = (known[:, :, 2:14] ^ shape).sum((1, 2))
            right += int(train._labels[distance.argmin()]) + 1 == int(label)
            seen += 1
    assert right / seen > 0.6


def test_indices_and_iteration():
    data = DigitsOnPhotos("test", length=3)
    assert len(data) == 3
    assert digest(*data[-1]) == digest(*data[2])
    for index in (3, -4):
        with pytest.raises(IndexError):
            data[index]
    assert len([data[i] for i in range(len(data))]) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"split": "validation"},
        {"length": -1},
        {"seed": -1},
        {"max_digits": 0},
        {"size": 16},
        {"size": 225},
        {"digit_size": (40, 30)},
        {"digit_size": (4, 30)},
        {"digit_size": (16, 81)},
    ],
)
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match="DigitsOnPhotos"):
        DigitsOnPhotos(**wrong)


def test_every_photograph_has_a_source_and_a_licence():
    text = (ASSETS / "LICENSES.md").read_text("utf-8")
    listed = set(re.findall(r"^\| (\S+\.jpg) \|.*\| (?:CC0|public domain) \|$", text, re.M))
    assert listed == {str(p.relative_to(ASSETS)) for p in ASSETS.glob("*/*.jpg")}
    assert sum(p.stat().st_size for p in ASSETS.rglob("*") if p.is_file()) < 220_000
