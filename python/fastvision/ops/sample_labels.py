"""Random choice of training samples, in plain PyTorch."""

import torch
from torch import Tensor


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
    n = labels.shape[-1]
    # Random keys that are all different: topk has nothing to choose.
    keys = torch.randint(2**31, labels.shape, generator=generator, device=labels.device)
    keys = keys * 2**31 + torch.arange(n, device=labels.device)
    most = min(int(batch_size * positive_fraction), n)
    positive = _choose(keys, labels >= 1, most, most)
    chosen = positive.sum(-1, keepdim=True)
    negative = _choose(keys, labels == 0, min(batch_size, n), batch_size - chosen)
    return positive, negative


def _choose(keys: Tensor, eligible: Tensor, places: int, count: int | Tensor) -> Tensor:
    """The ``count`` eligible elements of each row with the largest keys, of which ``places`` are looked at."""
    top = torch.where(eligible, keys, -1).topk(places, dim=-1)
    taken = (top.values >= 0) & (torch.arange(places, device=keys.device) < count)
    return torch.zeros_like(eligible).scatter(-1, top.indices, taken)
