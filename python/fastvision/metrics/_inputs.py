"""torchvision's dictionaries of several images, read into one array per key."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import ops

Dicts = Sequence[Mapping[str, Any]]


class Batch:
    """Predictions or targets of several images. Every error names the image and the key."""

    def __init__(self, owner: str, name: str, dicts: Dicts) -> None:
        if isinstance(dicts, (Mapping, str)) or not isinstance(dicts, Sequence):
            raise TypeError(f"{owner}: {name}: expected a list of dicts, got {type(dicts).__name__}")
        for i, entries in enumerate(dicts):
            if not isinstance(entries, Mapping):
                raise TypeError(f"{owner}: {name}[{i}]: expected a dict, got {type(entries).__name__}")
        self._label = f"{owner}: {name}"
        self._dicts = dicts
        self.counts = np.array([self._count(i) for i in range(len(dicts))], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._dicts)

    def images(self) -> NDArray[np.int64]:
        """The number of the image that each object belongs to."""
        return np.repeat(np.arange(len(self)), self.counts)

    def integers(self, key: str) -> NDArray[np.int64]:
        return self._column(key, (), np.int64, None)

    def floats(self, key: str, *tail: int, default: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """All objects' values as float64; those of images without the key from ``default``."""
        return self._column(key, tail, np.float64, default)

    def flags(self, key: str) -> NDArray[np.bool_]:
        """All objects' values as bool, False for images without the key."""
        return self._column(key, (), np.bool_, np.zeros(self.counts.sum(), np.bool_))

    def boxes(self) -> NDArray[np.float64]:
        """Boxes as x, y, width, height."""
        boxes = self.floats("boxes", 4)
        boxes[:, 2:] -= boxes[:, :2]
        return boxes

    def check_finite(self, key: str, values: NDArray[np.float64]) -> None:
        """For targets: their numbers come from people, so one that is not finite is a mistake in the data."""
        if not np.isfinite(values).all():
            wrong = int(np.argmax(~np.isfinite(values).all(1)))
            image = int(self.images()[wrong])
            row = wrong - int(self.counts[:image].sum())
            raise ValueError(f"{self._label}[{image}][{key!r}]: expected finite numbers, got others in row {row}")

    def masks(self) -> tuple[list[ops.rle.RunLengths], list[list[int] | None]]:
        """All objects' masks as run lengths, and the masks' size in each image that has any."""
        masks: list[ops.rle.RunLengths] = []
        sizes: list[list[int] | None] = []
        for i, count in enumerate(self.counts):
            try:
                encoded = _run_lengths(self._value(i, "masks"))
                first = list(encoded[0]["size"]) if encoded else None
                if any(list(mask["size"]) != first for mask in encoded):
                    raise ValueError("expected masks of one size, got different ones")
            except (TypeError, ValueError) as error:
                raise ValueError(f"{self._label}[{i}]['masks']: {error}") from None
            if len(encoded) != count:
                raise ValueError(f"{self._label}[{i}]['masks']: expected {count} masks as labels, got {len(encoded)}")
            masks += encoded
            sizes.append(first)
        return masks, sizes

    def _value(self, i: int, key: str) -> Any:
        if key not in self._dicts[i]:
            raise ValueError(f"{self._label}[{i}]: expected the key {key!r}, got {', '.join(self._dicts[i]) or 'none'}")
        return self._dicts[i][key]

    def _count(self, i: int) -> int:
        labels = self._value(i, "labels")
        try:
            return len(labels)
        except TypeError:
            raise ValueError(f"{self._label}[{i}]['labels']: expected shape (N,), got {labels!r:.80}") from None

    def _tensor(self, i: int, key: str) -> Tensor:
        value = self._value(i, key)
        if isinstance(value, Tensor):
            return value.detach()
        try:
            return torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{self._label}[{i}][{key!r}]: expected a tensor or an array, got {value!r:.80}") from None

    def _column(self, key: str, tail: tuple[int, ...], dtype: Any, default: NDArray[Any] | None) -> NDArray[Any]:
        missing = {i for i, entries in enumerate(self._dicts) if key not in entries} if default is not None else set()
        tensors: list[Tensor] = []
        for i, count in enumerate(self.counts.tolist()):
            if i in missing:
                tensors.append(torch.zeros((count, *tail)))
                continue
            t = self._tensor(i, key)
            if t.shape != (count, *tail):
                if count or t.numel():
                    shape = f"({', '.join(map(str, (count, *tail)))}{'' if tail else ','})"
                    raise ValueError(f"{self._label}[{i}][{key!r}]: expected shape {shape}, got {tuple(t.shape)}")
                t = t.new_zeros((0, *tail))
            if count and (t.is_complex() or (dtype is np.int64 and (t.is_floating_point() or t.dtype == torch.bool))):
                expected = "integers" if dtype is np.int64 else "real numbers"
                raise TypeError(f"{self._label}[{i}][{key!r}]: expected {expected}, got {t.dtype}")
            tensors.append(t.to(tensors[0].device) if tensors else t)
        if not tensors:
            return np.zeros((0, *tail), dtype)
        column: NDArray[Any] = torch.cat(tensors).cpu().to(_TORCH[dtype]).numpy()
        if missing and default is not None:
            absent = np.isin(self.images(), list(missing))
            column[absent] = default[absent]
        return column


_TORCH = {np.int64: torch.int64, np.float64: torch.float64, np.bool_: torch.bool}


def _run_lengths(masks: Any) -> list[ops.rle.RunLengths]:
    """Run lengths of dense masks ``(N, H, W)``, or of a mask head's probabilities ``(N, 1, H, W)`` above a half."""
    if isinstance(masks, (list, tuple)):
        ops.rle_area(masks)  # refuses what is no mask
        return list(masks)
    if len(masks.shape) == 4 and masks.shape[1] == 1:
        masks = masks[:, 0] > 0.5
    return ops.rle_encode(masks)
