"""Average precision: one number for a ranking of detections."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Values = Tensor | NDArray[Any] | Sequence[float]
Method = Literal["voc07", "voc10", "coco"]

METHODS = ("voc07", "voc10", "coco")


def precision_recall_curve(
    scores: Values, matched: Values, num_targets: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall after each detection, best score first; equal scores keep their order, NaN comes last.

    Args:
        scores: ``(N,)``.
        matched: ``(N,)``, whether the detection is a true positive.
        num_targets: Number of targets to be found.

    Returns:
        Two float64 arrays ``(N,)``. Recall is NaN where there is nothing to be found.

    Raises:
        ValueError: Shapes that differ, or ``num_targets`` below 0 or below the number of matches.

    >>> precision, recall = precision_recall_curve([0.9, 0.8, 0.7], [True, False, True], 4)
    >>> precision.round(3).tolist(), recall.tolist()
    ([1.0, 0.5, 0.667], [0.25, 0.25, 0.5])
    """
    found, rank = _cumulated(scores, matched, num_targets)
    with np.errstate(invalid="ignore"):
        return found / rank, found / np.float64(num_targets)


def average_precision(scores: Values, matched: Values, num_targets: int, method: Method = "voc10") -> float:
    """Mean over recall of the interpolated precision: the best precision at that recall or any higher one.

    Args:
        scores, matched, num_targets: As in :func:`precision_recall_curve`.
        method: ``"voc07"``: mean at the 11 recalls 0, 0.1, ..., 1 (Everingham et al., IJCV 2010). ``"voc10"``: area
            under the whole curve, as PASCAL VOC does from 2010 on. ``"coco"``: mean at 101 recalls, as pycocotools.

    Returns:
        In [0, 1]; NaN if there are no targets. Errors as in :func:`precision_recall_curve`.

    >>> average_precision([0.9, 0.8, 0.7], [True, False, True], 2)
    0.8333333333333333
    """
    if method not in METHODS:
        raise ValueError(f"average_precision: method: expected one of {', '.join(METHODS)}, got {method!r}")
    found, rank = _cumulated(scores, matched, num_targets)
    if num_targets == 0:
        return float("nan")
    precision = found / (rank + (np.spacing(1.0) if method == "coco" else 0.0))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if method == "voc10":
        gained = np.diff(found, prepend=0.0)
        return float((best * gained).sum() / num_targets)
    if method == "voc07":  # in whole numbers, so that a recall of 3/10 counts as 0.3
        first = np.searchsorted(10 * found, np.arange(11) * num_targets)
    else:
        first = np.searchsorted(found / num_targets, np.linspace(0.0, 1.0, 101))
    return float(np.append(best, 0.0)[first].mean())


def _cumulated(scores: Values, matched: Values, num_targets: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True positives among the best 1, 2, 3, ... detections, and those numbers."""
    score, match = (np.asarray(v.cpu() if isinstance(v, Tensor) else v, dtype=np.float64) for v in (scores, matched))
    if score.ndim != 1 or match.shape != score.shape:
        got = f"{score.shape} and {match.shape}"
        raise ValueError(f"average_precision: scores, matched: expected one shape (N,), got {got}")
    found = np.cumsum(match[np.argsort(-score, kind="stable")] != 0, dtype=np.float64)
    if num_targets < (found[-1] if len(found) else 0):
        raise ValueError(f"average_precision: num_targets: expected at least the number of matches, got {num_targets}")
    return found, np.arange(1.0, len(score) + 1)
