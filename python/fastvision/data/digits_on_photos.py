"""A small detection data set made on the fly: handwritten digits on photographs, nothing to download."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

Split = Literal["train", "test"]
Target = dict[str, Tensor]

_SPLITS = ("train", "test")
_ASSETS = Path(__file__).parent / "assets"
_TRAIN_DIGITS = 1438  # the others are the last ones scanned
# Ink, of 255, where an enlarged digit begins to cover the photograph and where it covers it fully; from the middle on a
# pixel belongs to the mask. The steep rise makes crisp strokes out of 8 x 8 pixels.
_INK_FROM, _INK_TO = 88, 152
_TRIES = 10


class DigitsOnPhotos(Dataset[tuple[Tensor, Target]]):
    """Scanned digits in random sizes and colours on random parts of photographs, with boxes, labels and masks.

    The images of one split share neither digits nor photographs with the other. An image depends on ``seed`` and its
    index alone and is made by integer and single operations of float arithmetic, so it has the same bits on every
    machine (whose Pillow decodes JPEG with libjpeg-turbo, as all its wheels do). Nothing is stored, so a training that
    asks for new indices never sees an image twice; one takes about a millisecond. The sources are listed in
    ``assets/LICENSES.md`` beside this file.

    Args:
        split: ``"train"`` (1438 digits, 7 photographs) or ``"test"`` (359 digits, 4 photographs).
        length: Number of images.
        size: Height and width of the images in pixels, 32 to 224.
        seed: Not negative.
        max_digits: An image has from 1 to this many digits; masks never overlap.
        digit_size: Smallest and largest height of a digit in pixels.

    Items are ``(image, target)``: float32 ``(3, size, size)`` in [0, 1]; and a dict of ``boxes``, float32 ``(N, 4)``
    xyxy, tight around the masks; ``labels``, int64 ``(N,)``, the digit plus 1; ``masks``, bool ``(N, size, size)``.

    >>> image, target = DigitsOnPhotos("test", length=10)[3]
    >>> tuple(image.shape), [DigitsOnPhotos.class_names[k - 1] for k in target["labels"]]
    ((3, 80, 80), ['1', '6', '9', '5'])
    """

    class_names = tuple("0123456789")

    def __init__(
        self,
        split: Split = "train",
        *,
        length: int = 1000,
        size: int = 80,
        seed: int = 0,
        max_digits: int = 4,
        digit_size: tuple[int, int] = (16, 36),
    ) -> None:
        if split not in _SPLITS:
            raise ValueError(f"DigitsOnPhotos: split: expected 'train' or 'test', got {split!r}")
        if length < 0 or seed < 0 or max_digits < 1:
            got = f"{length}, {seed}, {max_digits}"
            raise ValueError(f"DigitsOnPhotos: expected length and seed >= 0 and max_digits >= 1, got {got}")
        if not 32 <= size <= 224:
            raise ValueError(f"DigitsOnPhotos: size: expected 32 to 224, got {size}")
        if not 8 <= digit_size[0] <= digit_size[1] <= size:
            raise ValueError(f"DigitsOnPhotos: digit_size: expected 8 <= smallest <= largest <= size, got {digit_size}")
        self.split, self.length, self.size, self.seed = split, length, size, seed
        self.max_digits, self.digit_size = max_digits, digit_size
        self._digits, self._labels = _digits(split)
        self._photos = _photos(split)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        if not -self.length <= index < self.length:
            raise IndexError(f"DigitsOnPhotos: index {index} is out of range for {self.length} images")
        random = _Random((_SPLITS.index(self.split), self.seed, index % self.length))
        canvas = self._background(random)
        owner = np.zeros((self.size, self.size), np.uint8)  # 0, or the number of the digit that the pixel belongs to
        labels: list[int] = []
        for _ in range(random.integer(1, self.max_digits)):
            label = self._draw_digit(random, canvas, owner, len(labels) + 1)
            if label is not None:
                labels.append(label)
        # The difference of two uniform variables: a bell-like noise that needs no logarithm.
        canvas += (random.uniforms(canvas.shape) - random.uniforms(canvas.shape)) * np.float32(0.05)
        np.clip(canvas, 0, 1, out=canvas)
        masks = torch.from_numpy(owner) == torch.arange(1, len(labels) + 1)[:, None, None]
        target = {
            "boxes": torch.tensor([_box(mask) for mask in masks.numpy()]),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "masks": masks,
        }
        return torch.from_numpy(canvas), target

    def _background(self, random: "_Random") -> NDArray[np.float32]:
        """A part of a photograph at a random scale, position, handedness and tint."""
        photo = self._photos[random.integer(0, len(self._photos) - 1)]
        side = random.integer(self.size, min(photo.width, photo.height, 3 * self.size))
        left = random.integer(0, photo.width - side)
        top = random.integer(0, photo.height - side)
        part = photo.resize((self.size, self.size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
        if random.uniform(0, 1) < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tint = np.array([random.uniform(0.75, 1) for _ in range(3)], np.float32) / np.float32(255)
        return np.ascontiguousarray(np.asarray(part).transpose(2, 0, 1) * tint[:, None, None])

    def _draw_digit(
        self, random: "_Random", canvas: NDArray[np.float32], owner: NDArray[np.uint8], number: int
    ) -> int | None:
        """Draw a digit where it covers no other and return its label, or None if no such place was found."""
        which = random.integer(0, len(self._digits) - 1)
        height = random.integer(*self.digit_size)
        width = min(int(height * random.uniform(0.8, 1.2)), self.size)
        ink = np.asarray(self._digits[which].resize((width, height), Image.Resampling.BICUBIC))
        mask = ink >= (_INK_FROM + _INK_TO) // 2
        for _ in range(_TRIES):
            top, left = random.integer(0, self.size - height), random.integer(0, self.size - width)
            place = (slice(top, top + height), slice(left, left + width))
            if not owner[place][mask].any():
                break
        else:
            return None
        behind = canvas[:, place[0], place[1]]
        # Light on dark or dark on light. The mean of rounded values: its sum does not depend on the order.
        dark = (behind * 255).astype(np.int64).mean() < 127.5
        low, high = (0.55, 1.0) if dark else (0.0, 0.45)
        colour = np.array([random.uniform(low, high) for _ in range(3)], np.float32)[:, None, None]
        covered = (ink.astype(np.float32).clip(_INK_FROM, _INK_TO) - _INK_FROM) / np.float32(_INK_TO - _INK_FROM)
        opacity = covered * np.float32(random.uniform(0.8, 1))
        behind[:] = behind * (1 - opacity) + colour * opacity
        owner[place][mask] = number
        return int(self._labels[which]) + 1


class _Random:
    """Random numbers whose values are fixed by integers and single float operations, alike on every machine."""

    def __init__(self, seed: tuple[int, ...]) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))

    def integer(self, low: int, high: int) -> int:
        """Both ends included."""
        return int(self._generator.integers(low, high, endpoint=True))

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(self._generator.random())

    def uniforms(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return self._generator.random(shape, np.float32)


def _box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


@lru_cache
def _digits(split: Split) -> tuple[list[Image.Image], NDArray[np.uint8]]:
    with np.load(_ASSETS / "digits.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    part = slice(_TRAIN_DIGITS) if split == "train" else slice(_TRAIN_DIGITS, None)
    grey = (images[part].astype(np.uint16) * 255 // 16).astype(np.uint8)  # from 17 levels, 0 to 16
    return [Image.fromarray(image) for image in grey], labels[part]


@lru_cache
def _photos(split: Split) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted((_ASSETS / split).glob("*.jpg"))]
