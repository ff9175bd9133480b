"""RoIAlign of rotated regions. Kernels: csrc/kernels/roi_align_rotated.{h,cpp,cu}. Binding: csrc/torch/."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _lib
from ._regions import as_rois, check_rois, is_channels_last, new_features, output_size_pair, refuse_box_gradient
from .box_iou_rotated import AngleUnit, is_degrees

_op = _lib.Op[Tensor]("roi_align_rotated")
_backward_op = _lib.Op[Tensor]("roi_align_rotated_backward")


def roi_align_rotated(
    input: Tensor,
    rois: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    *,
    aligned: bool = True,
    angle: AngleUnit = "deg",
    clockwise: bool = False,
) -> Tensor:
    """Crop rotated regions of a feature map to a fixed size by averaging bilinear samples.

    The bins turn with the region, as in RRPN (Ma et al., IEEE Transactions on Multimedia 2018); sampling is that of
    :func:`roi_align`. The defaults are detectron2's ROIAlignRotated: degrees, counter-clockwise as seen in the image.
    mmcv's RoIAlignRotated is ``angle="rad"``, with its own ``clockwise``.

    Args:
        input: Features ``(N, C, H, W)``, NCHW or channels_last; float16, bfloat16, float32 or float64.
        rois: Regions ``(K, 6)`` as (image index, centre x, centre y, width, height, angle), or a list with ``(k, 5)``
            for each image. In the dtype of ``input`` or, beside 16-bit features, in float32.
        output_size: Bins per region, one int or ``(height, width)``.
        spatial_scale: Pixels of ``input`` per unit of ``rois``.
        sampling_ratio: Samples along each side of a bin, 1 to 256; 0 or -1 takes ``ceil(bin size)``.
        aligned: Subtract half a pixel from the centre so that pixel centres align, and allow regions smaller than a
            pixel; otherwise sides are at least one pixel.
        angle, clockwise: Convention of the angles, as in :func:`box_iou_rotated`.

    Returns:
        ``(K, C, height, width)`` in the dtype and memory format of ``input``, accumulated in float32 (float64 for
        float64); positions are computed in float64. A region with a number that is not finite gives zeros; so does one
        with a negative side if ``aligned``. NaN features reach exactly the bins that read them.

    Differentiable in ``input``, any number of times; asking for the gradient of ``rois`` is an error. Forward and
    backward are deterministic; the backward needs no memory beyond its result and a short list per tile of it; on
    the CPU the forward copies inputs in NCHW where regions read much of them.

    Raises:
        TypeError: Integer regions or dtypes that do not go together.
        ValueError: Wrong shapes or numbers; an image index out of range (on CUDA such a row is zero and counted, see
            :func:`device_errors`).

    >>> x = torch.arange(16.0).view(1, 1, 4, 4)
    >>> roi_align_rotated(x, torch.tensor([[0.0, 2.0, 2.0, 4.0, 4.0, 90.0]]), 2, sampling_ratio=2)
    tensor([[[[10.5000,  2.5000],
              [12.5000,  4.5000]]]])
    """
    op = "roi_align_rotated"
    out_h, out_w = output_size_pair(op, output_size)
    degrees = is_degrees(op, angle)
    regions = as_rois(op, rois, input.shape[0] if input.dim() else 0, input.dtype, "rois", 5)
    result = _op(input, regions, spatial_scale, out_h, out_w, sampling_ratio, aligned, degrees, clockwise)
    return result


@_lib.register_fake("roi_align_rotated")
def _(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    out_h: int,
    out_w: int,
    sampling_ratio: int,
    aligned: bool,
    degrees: bool,
    clockwise: bool,
) -> Tensor:
    check_rois("roi_align_rotated", "input", input, rois, "rois", 6)
    return new_features(input, (rois.shape[0], input.shape[1], out_h, out_w), is_channels_last(input))


@_lib.register_fake("roi_align_rotated_backward")
def _(
    grad: Tensor,
    rois: Tensor,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    degrees: bool,
    clockwise: bool,
    n: int,
    h: int,
    w: int,
    channels_last: bool,
) -> Tensor:
    return new_features(grad, (n, grad.shape[1], h, w), channels_last)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, rois, scale, _, _, *convention = inputs
    ctx.save_for_backward(rois)
    ctx.constants = (scale, *convention)
    ctx.shape = input.shape
    ctx.channels_last = is_channels_last(input)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    refuse_box_gradient("roi_align_rotated", ctx.needs_input_grad[1], "rois")
    (rois,) = ctx.saved_tensors
    n, _, h, w = ctx.shape
    return _backward_op(grad, rois, *ctx.constants, n, h, w, ctx.channels_last), *[None] * 8


def _setup_double_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, rois, scale, *convention = inputs
    ctx.save_for_backward(rois)
    ctx.constants = (scale, grad.shape[2], grad.shape[3], *convention[:4])


def _double_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The backward is linear in its gradient, and the forward is its transpose."""
    refuse_box_gradient("roi_align_rotated", ctx.needs_input_grad[1], "rois")
    (rois,) = ctx.saved_tensors
    return _op(grad, rois, *ctx.constants), *[None] * 10


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_autograd(_backward_op, _double_backward, _setup_double_context)


def roi_align_rotated_reference(
    input: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    *,
    aligned: bool = True,
    angle: AngleUnit = "deg",
    clockwise: bool = False,
) -> Tensor:
    """The definition of :func:`roi_align_rotated` in plain PyTorch, one region at a time."""
    out_h, out_w = output_size
    out = []
    for roi in rois:
        x, y = (roi[1:3] * spatial_scale - (0.5 if aligned else 0.0)).unbind()
        sides = roi[3:5] * spatial_scale
        w, h = sides if aligned else sides.clamp(min=1.0)
        ny = sampling_ratio if sampling_ratio > 0 else math.ceil(h / out_h) if h.isfinite() else 0
        nx = sampling_ratio if sampling_ratio > 0 else math.ceil(w / out_w) if w.isfinite() else 0
        if ny * nx == 0 or not roi.isfinite().all() or w < 0 or h < 0:
            out.append(input.new_zeros(input.shape[1], out_h, out_w))
            continue
        turn = roi[5] * (math.pi / 180 if angle == "deg" else 1.0) * (1 if clockwise else -1)
        v = (((torch.arange(out_h * ny).to(rois) + 0.5) / (out_h * ny) - 0.5) * h)[:, None]
        u = (((torch.arange(out_w * nx).to(rois) + 0.5) / (out_w * nx) - 0.5) * w)[None, :]
        at_x, at_y = x + u * turn.cos() - v * turn.sin(), y + u * turn.sin() + v * turn.cos()
        samples = _bilinear(input[int(roi[0])], at_y, at_x)
        out.append(samples.unflatten(1, (out_h, ny)).unflatten(3, (out_w, nx)).mean((2, 4)))
    return torch.stack(out) if out else input.new_zeros(0, input.shape[1], out_h, out_w)


def _bilinear(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Samples of ``image (C, H, W)`` at points; pixels of weight 0 are not read."""
    height, width = image.shape[-2:]
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    total = image.new_zeros(())
    for dy in (0, 1):
        for dx in (0, 1):
            weights = (1 - (y - top - dy).abs()) * (1 - (x - left - dx).abs()) * inside
            rows = (top.long() + dy).clamp(max=height - 1)
            columns = (left.long() + dx).clamp(max=width - 1)
            total = total + torch.where(weights != 0, image[:, rows, columns], 0) * weights.to(image.dtype)
    return total
