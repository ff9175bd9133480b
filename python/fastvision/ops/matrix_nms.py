"""Matrix NMS. Kernels: csrc/kernels/matrix_nms.{h,cpp,cu}. Binding: csrc/torch/matrix_nms.cpp."""

import math

import torch
from torch import Tensor

from .. import _lib
from . import _arguments
from .mask_iou import check_masks

_op = _lib.Op[Tensor]("matrix_nms")

_KERNELS = ("gaussian", "linear")
_MASKS = (torch.bool, torch.uint8)


def matrix_nms(
    boxes_or_masks: Tensor, scores: Tensor, *, idxs: Tensor | None = None, kernel: str = "gaussian", sigma: float = 2.0
) -> Tensor:
    """Matrix NMS (Wang et al., SOLOv2, NeurIPS 2020): lowers each score by what overlaps it, all at once.

    With the items in order of score (descending, ties by ascending index), item j keeps the share
    min over i < j of f(IoU(i, j)) / f(c(i)) of its score, at most 1, where c(i) is the largest IoU of item i with one
    before it and f is the kernel.

    Args:
        boxes_or_masks: Boxes ``(..., N, 4)``, xyxy, floating point; or masks, bool ``(..., N, H, W)`` or packed uint8
            ``(..., N, H, ceil(W / 8))`` as in :func:`mask_iou`. Each leading index is a problem of its own.
        scores: Scores ``(..., N)``, with boxes of the same dtype. 16-bit types are computed in float32. Scores below 0
            stay as they are.
        idxs: Group of each item ``(..., N)``, any integers; items of different groups do not meet.
        kernel: f: ``"gaussian"`` exp(-sigma * IoU^2) or ``"linear"`` 1 - IoU.
        sigma: Greater than 0; for gaussian.

    Returns:
        The scores that are left, ``(..., N)``, in the order and dtype of ``scores``. An item with c(i) = 1 lowers
        nothing in the linear form. An item with a NaN score or a coordinate that is not finite gets 0 and lowers
        nothing.

    Deterministic: the same bits on every backend, instruction set and number of threads. No gradient. Never waits for
    the device; works under vmap. Each pair is looked at once, memory is linear in N beside the packed masks.

    Raises:
        TypeError: Another dtype.
        ValueError: An unknown kernel, wrong shapes, devices or sigma.

    >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.0], [3.0, 3.0, 4.0, 4.0]])
    >>> matrix_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), kernel="linear")
    tensor([0.9000, 0.4000, 0.7000])
    """
    if kernel not in _KERNELS:
        raise ValueError(f"matrix_nms: kernel: expected one of {', '.join(_KERNELS)}, got {kernel!r}")
    dtype = scores.dtype
    if boxes_or_masks.dtype in _MASKS:
        if dtype in (torch.float16, torch.bfloat16):
            scores = scores.float()
    else:
        boxes_or_masks, scores = _arguments.widen("matrix_nms", "boxes", boxes_or_masks, "scores", scores)
    groups = None if idxs is None else _arguments.group_names("matrix_nms", "idxs", idxs)
    left: Tensor = _op(boxes_or_masks, scores, groups, _KERNELS.index(kernel), sigma)
    return left.to(dtype)


@_lib.register_fake("matrix_nms")
def _(items: Tensor, scores: Tensor, groups: Tensor | None, kernel: int, sigma: float) -> Tensor:
    op = "matrix_nms"
    _arguments.floats(op, "scores", scores)
    if items.dtype in _MASKS:
        name, rows = "masks", items.shape[:-2]
        check_masks(op, name, items)
    else:
        name, rows = "boxes", items.shape[:-1]
        _arguments.floats(op, name, items)
        _arguments.shape(items.dim() >= 2 and items.shape[-1] == 4, op, name, items, "(..., N, 4)")
        _arguments.same_dtype(op, "scores", scores, name, items)
    for other, t in (("scores", scores), ("idxs", groups)):
        if t is not None:
            got = f"shape {tuple(t.shape)} for {tuple(items.shape)}"
            _lib.check(t.shape == rows, op, ": ", other, ": expected one per box or mask, got ", got)
            _arguments.same_device(op, other, t, name, items)
    _lib.check(0 < sigma < math.inf, op, ": sigma: expected a finite number > 0, got ", sigma)
    return scores.new_empty(scores.shape)


_lib.register_no_gradient(_op)
_lib.register_batch_vmap(_op, 3)


def matrix_nms_reference(
    overlaps: Tensor,
    scores: Tensor,
    *,
    idxs: Tensor | None = None,
    takes_part: Tensor | None = None,
    kernel: str = "gaussian",
    sigma: float = 2.0,
) -> Tensor:
    """The definition of :func:`matrix_nms` in plain PyTorch, on the IoU ``(N, N)`` of all pairs."""
    meets = ~scores.isnan() if takes_part is None else takes_part & ~scores.isnan()
    order = torch.where(scores.isnan(), torch.inf, scores).argsort(descending=True, stable=True)
    overlaps = torch.where(meets[:, None] & meets[None, :], overlaps, 0)
    if idxs is not None:
        overlaps = torch.where(idxs[:, None] == idxs[None, :], overlaps, 0)
    overlaps = overlaps[order][:, order].triu(1)  # [i, j] for i before j
    n = len(scores)
    compensation = torch.cat([overlaps, overlaps.new_zeros(1, n)]).amax(0)[:, None].expand(n, n)
    if kernel == "gaussian":
        factors = torch.exp(-sigma * (overlaps.square() - compensation.square()))
    else:
        whole = compensation >= 1
        factors = torch.where(whole, 1, (1 - overlaps) / torch.where(whole, 1, 1 - compensation))
    before = torch.ones(n, n, dtype=torch.bool, device=scores.device).triu(1)
    factors = torch.where(before, factors, 1)
    factor = torch.cat([factors, factors.new_ones(1, n)]).amin(0)
    ranked = scores[order]
    left = torch.where(factor > 0, torch.minimum(ranked, ranked * factor), ranked.clamp(max=0))
    out = torch.empty_like(scores)
    out[order] = torch.where(meets[order], left, 0)
    return out
