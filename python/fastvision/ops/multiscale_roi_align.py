"""RoIAlign over a feature pyramid. Kernels: csrc/kernels/roi_align.{h,cpp,cu}. Binding: csrc/torch/roi_align.cpp."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _lib
from . import _arguments
from ._regions import as_rois, check_rois, is_channels_last, new_features, output_size_pair, refuse_box_gradient
from .roi_align import roi_align_reference

_op = _lib.Op[Tensor]("multiscale_roi_align")
_backward_op = _lib.Op[list[Tensor]]("multiscale_roi_align_backward")


def multiscale_roi_align(
    features: Sequence[Tensor],
    rois: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    scales: Sequence[float],
    *,
    canonical_scale: float = 224.0,
    canonical_level: int = 4,
    sampling_ratio: int = 2,
    aligned: bool = False,
    levels: Tensor | None = None,
) -> Tensor:
    """:func:`roi_align` where each region reads the pyramid level that fits its size (Lin et al., FPN, CVPR 2017).

    One launch for all levels; a region of area ``a`` goes to level
    ``floor(canonical_level + log2(sqrt(a) / canonical_scale) + 1e-6)``, clamped to those there are, where a map of
    scale ``2**-k`` is level ``k``.

    Args:
        features: 1 to 8 maps ``(N, C, H_l, W_l)``, finest first, each half the scale of the one before.
        rois: Regions ``(K, 5)`` or a list with ``(k, 4)`` per image, as in :func:`roi_align`.
        output_size, sampling_ratio, aligned: As in :func:`roi_align`.
        scales: Pixels per unit of ``rois`` for each map, such as ``[1/4, 1/8, 1/16, 1/32]``.
        canonical_scale: Side of the region that belongs to ``canonical_level``.
        canonical_level: See above.
        levels: int64 ``(K,)`` indices into ``features`` that override the rule.

    Returns:
        ``(K, C, height, width)`` in the dtype and memory format of the first map.

    Gradients, determinism and errors as in :func:`roi_align`. Never waits for the device and keeps no state;
    torchvision's MultiScaleRoIAlign waits once per level and takes the scales from the first images that it sees.
    """
    out_h, out_w = output_size_pair("multiscale_roi_align", output_size)
    if not features:
        raise ValueError("multiscale_roi_align: features: expected 1 to 8 maps, got 0")
    first = features[0]
    regions = as_rois("multiscale_roi_align", rois, first.shape[0] if first.dim() else 0, first.dtype)
    maps, scale_list = list(features), [float(s) for s in scales]
    return _op(
        maps, regions, levels, scale_list, canonical_scale, canonical_level, out_h, out_w, sampling_ratio, aligned
    )


@_lib.register_fake("multiscale_roi_align")
def _(
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    scales: list[float],
    canonical_scale: float,
    canonical_level: int,
    out_h: int,
    out_w: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    op = "multiscale_roi_align"
    for map in features:
        check_rois(op, "features", map, rois)
        _arguments.same_dtype(op, "features", map, "the first map", features[0])
    _lib.check(
        len(scales) == len(features), op, ": scales: expected one per map (", len(features), "), got ", len(scales)
    )
    shape = rois.shape[0], features[0].shape[1], out_h, out_w
    return new_features(features[0], shape, is_channels_last(features[0]))


@_lib.register_fake("multiscale_roi_align_backward")
def _(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    scales: list[float],
    canonical_scale: float,
    canonical_level: int,
    sampling_ratio: int,
    aligned: bool,
    n: int,
    heights: list[int],
    widths: list[int],
    channels_last: bool,
) -> list[Tensor]:
    return [new_features(grad, (n, grad.shape[1], h, w), channels_last) for h, w in zip(heights, widths)]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, levels, *ctx.constants = inputs
    ctx.save_for_backward(rois, levels)
    ctx.shapes = [map.shape for map in features]
    ctx.channels_last = is_channels_last(features[0])


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    refuse_box_gradient("multiscale_roi_align", ctx.needs_input_grad[1])
    rois, levels = ctx.saved_tensors
    scales, canonical_scale, canonical_level, _, _, sampling_ratio, aligned = ctx.constants
    n, heights, widths = ctx.shapes[0][0], [shape[2] for shape in ctx.shapes], [shape[3] for shape in ctx.shapes]
    rule = (scales, canonical_scale, canonical_level, sampling_ratio, aligned)
    gradients = _backward_op(grad, rois, levels, *rule, n, heights, widths, ctx.channels_last)
    return gradients, *[None] * 9


def _setup_double_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    grad, rois, levels, scales, canonical_scale, canonical_level, sampling_ratio, aligned, *_ = inputs
    ctx.save_for_backward(rois, levels)
    sizes = grad.shape[2], grad.shape[3]
    ctx.constants = scales, canonical_scale, canonical_level, *sizes, sampling_ratio, aligned


def _double_backward(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    refuse_box_gradient("multiscale_roi_align", ctx.needs_input_grad[1])
    rois, levels = ctx.saved_tensors
    return _op(list(grads), rois, levels, *ctx.constants), *[None] * 11


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_autograd(_backward_op, _double_backward, _setup_double_context)


def multiscale_roi_align_reference(
    features: Sequence[Tensor],
    rois: Tensor,
    output_size: tuple[int, int],
    scales: Sequence[float],
    *,
    canonical_scale: float = 224.0,
    canonical_level: int = 4,
    sampling_ratio: int = 2,
    aligned: bool = False,
    levels: Tensor | None = None,
) -> Tensor:
    """The definition of :func:`multiscale_roi_align` in plain PyTorch."""
    finest = round(-math.log2(scales[0]))
    out = [features[0].new_zeros(0, features[0].shape[1], *output_size)]
    for k, roi in enumerate(rois):
        area = float((roi[3] - roi[1]) * (roi[4] - roi[2]))
        level = 0
        if levels is not None:
            level = int(levels[k])
        elif area > 0 and math.isfinite(area):
            fit = canonical_level + math.log2(math.sqrt(area) / canonical_scale) + 1e-6
            level = min(max(math.floor(fit) - finest, 0), len(features) - 1)
        args = output_size, scales[level], sampling_ratio, aligned
        out.append(roi_align_reference(features[level], roi[None], *args))
    return torch.cat(out)
