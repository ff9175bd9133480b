"""RoIAlign. Kernels: csrc/kernels/roi_align.{h,cpp,cu}. Binding: csrc/torch/roi_align.cpp."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _lib
from ._regions import as_rois, check_rois, is_channels_last, new_features, output_size_pair, refuse_box_gradient
from ._roi_align_max import max_op

_op = _lib.Op[Tensor]("roi_align")
_backward_op = _lib.Op[Tensor]("roi_align_backward")


def roi_align(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    *,
    mode: str = "avg",
) -> Tensor:
    """Crop regions of a feature map to a fixed size by averaging bilinear samples (He et al., Mask R-CNN, ICCV 2017).

    Args:
        input: Features ``(N, C, H, W)``, NCHW or channels_last; float16, bfloat16, float32 or float64.
        boxes: Regions ``(K, 5)`` as (image index, x1, y1, x2, y2), or a list with ``(k, 4)`` for each image. In the
            dtype of ``input`` or, beside 16-bit features, in float32; coordinates are never rounded to 16 bits.
        output_size: Bins per region, one int or ``(height, width)``.
        spatial_scale: Pixels of ``input`` per unit of ``boxes``.
        sampling_ratio: Samples along each side of a bin, 1 to 256; 0 or -1 takes ``ceil(bin size)``.
        aligned: Subtract half a pixel so that pixel centres align, and allow regions smaller than a pixel.
        mode: ``"avg"``, or ``"max"`` for the maximum of the samples. Of equal samples the first in the order of rows
            counts; a NaN is the maximum; samples outside the map are 0, have no gradient and come before all others.

    Returns:
        ``(K, C, height, width)`` in the dtype and memory format of ``input``, accumulated in float32 (float64 for
        float64). A region with a coordinate that is not finite gives zeros; so does an inverted one if ``aligned``
        (otherwise its sides are at least 1). NaN features reach exactly the bins that read them.

    Differentiable in ``input``, any number of times (``"max"``: once); asking for the gradient of ``boxes`` is an
    error. Forward and backward are deterministic; on the CPU the backward of NCHW copies the
    gradient (``"max"``: the forward copies inputs that regions read much of, and keeps the sample of each maximum where
    a gradient is needed).

    Raises:
        TypeError: Integer boxes or dtypes that do not go together.
        ValueError: Wrong shapes or numbers; an image index out of range (on CUDA such a row is zero and counted, see
            :func:`device_errors`).

    torchvision reads out of bounds for a wrong image index and has no bfloat16, channels_last kernel, double backward,
    maximum or float32 boxes beside float16.

    >>> x = torch.arange(16.0).view(1, 1, 4, 4)
    >>> roi_align(x, torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]]), 2, sampling_ratio=2, aligned=True)
    tensor([[[[ 2.5000,  4.5000],
              [10.5000, 12.5000]]]])
    """
    out_h, out_w = output_size_pair("roi_align", output_size)
    rois = as_rois("roi_align", boxes, input.shape[0] if input.dim() else 0, input.dtype)
    if mode == "max":
        sampling = sampling_ratio, aligned
        return max_op(input, rois, spatial_scale, out_h, out_w, *sampling, _lib.may_need_gradient(input))[0]
    if mode != "avg":
        raise ValueError(f"roi_align: mode: expected 'avg' or 'max', got {mode!r}")
    return _op(input, rois, spatial_scale, out_h, out_w, sampling_ratio, aligned)


@_lib.register_fake("roi_align")
def _(
    input: Tensor, rois: Tensor, spatial_scale: float, out_h: int, out_w: int, sampling_ratio: int, aligned: bool
) -> Tensor:
    check_rois("roi_align", "input", input, rois)
    return new_features(input, (rois.shape[0], input.shape[1], out_h, out_w), is_channels_last(input))


@_lib.register_fake("roi_align_backward")
def _(
    grad: Tensor,
    rois: Tensor,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    n: int,
    h: int,
    w: int,
    channels_last: bool,
) -> Tensor:
    return new_features(grad, (n, grad.shape[1], h, w), channels_last)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, rois, *ctx.constants = inputs
    ctx.save_for_backward(rois)
    ctx.shape = input.shape
    ctx.channels_last = is_channels_last(input)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    refuse_box_gradient("roi_align", ctx.needs_input_grad[1])
    (rois,) = ctx.saved_tensors
    scale, _, _, sampling_ratio, aligned = ctx.constants
    n, _, h, w = ctx.shape
    gradient = _backward_op(grad, rois, scale, sampling_ratio, aligned, n, h, w, ctx.channels_last)
    return gradient, None, None, None, None, None, None


def _setup_double_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, rois, scale, sampling_ratio, aligned, *_ = inputs
    ctx.save_for_backward(rois)
    ctx.constants = scale, grad.shape[2], grad.shape[3], sampling_ratio, aligned


def _double_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The backward is linear in its gradient, and the forward is its transpose."""
    refuse_box_gradient("roi_align", ctx.needs_input_grad[1])
    (rois,) = ctx.saved_tensors
    return _op(grad, rois, *ctx.constants), *[None] * 8


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_autograd(_backward_op, _double_backward, _setup_double_context)


def roi_align_reference(
    input: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    *,
    mode: str = "avg",
) -> Tensor:
    """The definition of :func:`roi_align` in plain PyTorch, one region and one grid of samples at a time."""
    out_h, out_w = output_size
    shift = 0.5 if aligned else 0.0
    out = []
    for roi in rois:
        x1, y1, x2, y2 = roi[1:] * spatial_scale - shift
        w, h = x2 - x1, y2 - y1
        if not aligned:
            w, h = w.clamp(min=1), h.clamp(min=1)
        ny = sampling_ratio if sampling_ratio > 0 else math.ceil(h / out_h) if h.isfinite() else 0
        nx = sampling_ratio if sampling_ratio > 0 else math.ceil(w / out_w) if w.isfinite() else 0
        if ny * nx == 0 or not roi.isfinite().all() or w < 0 or h < 0:
            out.append(input.new_zeros(input.shape[1], out_h, out_w))
            continue
        y = y1 + (torch.arange(out_h * ny).to(rois) + 0.5) * h / (out_h * ny)
        x = x1 + (torch.arange(out_w * nx).to(rois) + 0.5) * w / (out_w * nx)
        samples = bilinear_reference(input[int(roi[0])], y, x)
        bins = samples.unflatten(1, (out_h, ny)).unflatten(3, (out_w, nx))
        out.append(bins.mean((2, 4)) if mode == "avg" else bins.amax((2, 4)))
    return torch.stack(out) if out else input.new_zeros(0, input.shape[1], out_h, out_w)


def bilinear_reference(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Samples of ``image (C, H, W)`` at every pair of ``y`` and ``x``; pixels of weight 0 are not read."""
    height, width = image.shape[-2:]

    def axis(v: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        inside = (v >= -1) & (v <= size)
        v = v.clamp(0, size - 1)
        low = v.floor().long().clamp(max=size - 1)
        return low, (low + 1).clamp(max=size - 1), (1 - (v - low)) * inside, (v - low) * inside

    y0, y1, wy0, wy1 = axis(y, height)
    x0, x1, wx0, wx1 = axis(x, width)
    total = image.new_zeros(())
    for rows, row_weights in ((y0, wy0), (y1, wy1)):
        for columns, column_weights in ((x0, wx0), (x1, wx1)):
            weights = (row_weights[:, None] * column_weights).to(image.dtype)
            total = total + torch.where(weights != 0, image[:, rows][:, :, columns], 0) * weights
    return total
