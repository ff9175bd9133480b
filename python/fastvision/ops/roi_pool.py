"""RoIPool. Kernels: csrc/kernels/roi_pool.{h,cpp,cu}. Binding: csrc/torch/roi_pool.cpp."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _lib
from ._regions import (
    as_rois,
    check_rois,
    is_channels_last,
    new_features,
    output_size_pair,
    refuse_box_gradient,
    save_argmax,
)

_op = _lib.Op[tuple[Tensor, Tensor]]("roi_pool")
_backward_op = _lib.Op[Tensor]("roi_pool_backward")


def roi_pool(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> Tensor:
    """Crop regions of a feature map to a fixed size by taking maxima (Girshick, Fast R-CNN, ICCV 2015).

    A region's corners are rounded to pixels (halves away from zero), both included; its bins overlap where they do not
    divide it, and an empty bin gives 0.

    Args:
        input: Features ``(N, C, H, W)``, NCHW or channels_last; float16, bfloat16, float32 or float64; fewer than
            2**31 pixels per map.
        boxes: Regions ``(K, 5)`` as (image index, x1, y1, x2, y2), or a list with ``(k, 4)`` for each image. In the
            dtype of ``input`` or, beside 16-bit features, in float32.
        output_size: Bins per region, one int or ``(height, width)``.
        spatial_scale: Pixels of ``input`` per unit of ``boxes``.

    Returns:
        ``(K, C, height, width)`` in the dtype and memory format of ``input``. Of equal maxima the first in the order of
        rows counts; a NaN is the maximum of its bins. A region with a coordinate that is not finite gives zeros.

    Differentiable in ``input`` once; asking for the gradient of ``boxes`` is an error. Forward and backward are
    deterministic. Where a gradient is needed, four bytes per value of the result are kept for it.

    Raises:
        TypeError: Integer boxes or dtypes that do not go together.
        ValueError: Wrong shapes or numbers; an image index out of range (on CUDA such a row is zero and counted, see
            :func:`device_errors`).

    torchvision reads out of bounds for a wrong image index, turns NaN into -3.4e38 and overflows on coordinates beyond
    2**31.

    >>> x = torch.arange(16.0).view(1, 1, 4, 4)
    >>> roi_pool(x, torch.tensor([[0.0, 0.0, 0.0, 3.0, 3.0]]), 2)
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])
    """
    out_h, out_w = output_size_pair("roi_pool", output_size)
    rois = as_rois("roi_pool", boxes, input.shape[0] if input.dim() else 0, input.dtype)
    return _op(input, rois, spatial_scale, out_h, out_w, _lib.may_need_gradient(input))[0]


@_lib.register_fake("roi_pool")
def _(
    input: Tensor, rois: Tensor, spatial_scale: float, out_h: int, out_w: int, with_argmax: bool
) -> tuple[Tensor, Tensor]:
    check_rois("roi_pool", "input", input, rois)
    shape = rois.shape[0], input.shape[1], out_h, out_w
    out = new_features(input, shape, is_channels_last(input))
    return out, torch.empty_like(out if with_argmax else out[:0], dtype=torch.int32)


@_lib.register_fake("roi_pool_backward")
def _(
    grad: Tensor, rois: Tensor, argmax: Tensor, spatial_scale: float, n: int, h: int, w: int, channels_last: bool
) -> Tensor:
    return new_features(grad, (n, grad.shape[1], h, w), channels_last)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    input, rois, ctx.scale, *_ = inputs
    save_argmax(ctx, input, rois, output[1])


def _backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
    refuse_box_gradient("roi_pool", ctx.needs_input_grad[1])
    rois, argmax = ctx.saved_tensors
    n, _channels, h, w = ctx.shape
    return _backward_op(grad, rois, argmax, ctx.scale, n, h, w, ctx.channels_last), *(None,) * 5


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_no_gradient(_backward_op)


def roi_pool_reference(input: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float = 1.0) -> Tensor:
    """The definition of :func:`roi_pool` in plain PyTorch. Coordinates are computed in the dtype of ``rois``."""
    (out_h, out_w), (height, width) = output_size, input.shape[-2:]

    def bins(low: Tensor, high: Tensor, count: int, size: int) -> list[tuple[int, int]]:
        low, high = ((v.abs() * spatial_scale + 0.5).floor() * v.sign() for v in (low, high))
        bin = (high - low + 1).clamp(min=1) / count
        edges = [((p * bin).floor() + low, ((p + 1) * bin).ceil() + low) for p in range(count)]
        return [(int(a.clamp(0, size)), int(b.clamp(0, size))) for a, b in edges]

    out = input.new_zeros(rois.shape[0], input.shape[1], out_h, out_w)
    rows = []
    for roi in rois:
        if not roi.isfinite().all():
            rows.append(out.new_zeros(input.shape[1], out_h, out_w))
            continue
        image, (x1, y1, x2, y2) = input[int(roi[0])], roi[1:]
        cells = [
            image[:, a:b, c:d].amax((1, 2)) if b > a and d > c else image.new_zeros(image.shape[0])
            for a, b in bins(y1, y2, out_h, height)
            for c, d in bins(x1, x2, out_w, width)
        ]
        rows.append(torch.stack(cells, 1).unflatten(1, (out_h, out_w)))
    return torch.stack(rows) if rows else out
