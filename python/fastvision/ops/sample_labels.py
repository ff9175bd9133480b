"""Random choice of training samples. Kernels: csrc/kernels/sample_labels.{h,cpp,cu}. Binding:
csrc/torch/sample_labels.cpp."""

import torch
from torch import Tensor

from .. import _lib
from . import _arguments

_op = _lib.Op[tuple[Tensor, Tensor]]("sample_labels")


def sample_labels(
    labels: Tensor, batch_size: int, positive_fraction: float, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Choose at most ``batch_size`` anchors or proposals per image, positives up to a share of them.

    Args:
        labels: ``(..., N)`` integers or floats: >= 1 positive, 0 negative, below 0 ignored.
        batch_size: Samples per image; negatives fill up what positives leave.
        positive_fraction: Largest share of positives, in [0, 1].
        generator: Source of randomness on the device of ``labels``; the same seed gives the same choice.

    Returns:
        bool masks of the positives and negatives chosen, of the labels' shape. Never waits for the device.

    Raises:
        ValueError: A negative ``batch_size``, a fraction outside [0, 1], no dimension.

    >>> positive, negative = sample_labels(torch.tensor([1, 0, 0, -1, 2]), 3, 0.5)
    >>> int(positive.sum()), int(negative.sum())
    (1, 2)
    """
    if labels.dim() == 0:
        raise ValueError("sample_labels: labels: expected shape (..., N), got ()")
    if batch_size < 0:
        raise ValueError(f"sample_labels: batch_size: expected an integer >= 0, got {batch_size}")
    if not 0 <= positive_fraction <= 1:
        raise ValueError(f"sample_labels: positive_fraction: expected a number in [0, 1], got {positive_fraction}")
    if labels.dtype not in (torch.int64, torch.float32):
        labels = torch.where(labels >= 1, 1, torch.where(labels == 0, 0, -1))
    seed = torch.randint(-(2**63), 2**63 - 1, (), generator=generator, device=labels.device)
    positive, negative = _op(labels, seed, int(batch_size * positive_fraction), batch_size)
    return positive, negative


@_lib.register_fake("sample_labels")
def _(labels: Tensor, seed: Tensor, positives: int, samples: int) -> tuple[Tensor, Tensor]:
    _arguments.shape(labels.dim() >= 1, "sample_labels", "labels", labels, "(..., N)")
    _arguments.same_device("sample_labels", "seed", seed, "labels", labels)
    _lib.check(0 <= positives <= samples, "sample_labels: positives: expected 0..", samples, ", got ", positives)
    return labels.new_empty(labels.shape, dtype=torch.bool), labels.new_empty(labels.shape, dtype=torch.bool)


_lib.register_batch_vmap(_op, 1)


def sample_labels_reference(labels: Tensor, seed: int, positives: int, samples: int) -> tuple[Tensor, Tensor]:
    """The definition in plain Python: of each row the candidates with the largest keys."""
    n = labels.shape[-1]
    masks = torch.zeros((2, labels.numel()), dtype=torch.bool)
    for start in range(0, labels.numel(), max(n, 1)):
        row = labels.flatten()[start : start + n].tolist()
        best = sorted(range(n), key=lambda i: _random_key(seed, start + i), reverse=True)
        chosen = [start + i for i in best if row[i] >= 1][:positives]
        others = [start + i for i in best if row[i] == 0][: samples - len(chosen)]
        masks[0, chosen], masks[1, others] = True, True
    return masks[0].view(labels.shape), masks[1].view(labels.shape)


def _random_key(seed: int, i: int) -> int:
    z = (seed + (i + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return (z ^ z >> 31) >> 1
