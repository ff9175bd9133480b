"""What the bindings of Soft-NMS check, for its fake kernels."""

import math

from torch import Tensor

from .. import _lib
from . import _arguments


def check_arguments(
    op: str,
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    sigma: float,
    score_threshold: float,
) -> None:
    """In the words of the bindings."""
    _arguments.floats(op, "boxes", boxes)
    _arguments.same_dtype(op, "scores", scores, "boxes", boxes)
    _arguments.shape(boxes.dim() >= 2 and boxes.shape[-1] == 4, op, "boxes", boxes, "(..., N, 4)")
    for name, t in (("scores", scores), ("idxs", groups), ("valid", valid)):
        if t is not None:
            same = t.shape == boxes.shape[:-1]
            got = f"shape {tuple(t.shape)} for boxes {tuple(boxes.shape)}"
            _lib.check(same, op, ": ", name, ": expected one per box, got ", got)
            _arguments.same_device(op, name, t, "boxes", boxes)
    in_range = 0 <= iou_threshold <= 1
    _lib.check(in_range, op, ": iou_threshold: expected a number in [0, 1], got ", iou_threshold)
    _lib.check(0 < sigma < math.inf, op, ": sigma: expected a finite number > 0, got ", sigma)
    finite = math.isfinite(score_threshold)
    _lib.check(finite, op, ": score_threshold: expected a finite number, got ", score_threshold)
