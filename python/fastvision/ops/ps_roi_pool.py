"""Position-sensitive RoIPool. Kernels: csrc/kernels/ps_roi.{h,cpp,cu}. Binding: csrc/torch/ps_roi.cpp."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _lib
from . import _ps_roi
from ._regions import as_rois, output_size_pair

_op = _lib.Op[Tensor]("ps_roi_pool")
_ps_roi.register("ps_roi_pool", _op, _lib.Op[Tensor]("ps_roi_pool_backward"))


def ps_roi_pool(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    *,
    legacy_border: bool = False,
) -> Tensor:
    """Average regions over bins that read channels of their own (Dai et al., R-FCN, NeurIPS 2016).

    Bin ``b`` (row by row) of output channel ``c`` is the mean of the pixels of that bin in input channel
    ``c * height * width + b``. A region's corners are rounded to pixels (halves away from zero), the second excluded;
    its sides are at least 1. Bins overlap where they do not divide it, and an empty bin gives 0.

    Args:
        input: Features ``(N, C * height * width, H, W)``, NCHW or channels_last; float16, bfloat16, float32 or float64.
        boxes: Regions ``(K, 5)`` as (image index, x1, y1, x2, y2), or a list with ``(k, 4)`` for each image. In the
            dtype of ``input`` or, beside 16-bit features, in float32.
        output_size: Bins per region, one int or ``(height, width)``.
        spatial_scale: Pixels of ``input`` per unit of ``boxes``.
        legacy_border: Do not count the last row and the last column of the map, as torchvision does.

    Returns:
        ``(K, C, height, width)`` in the dtype and memory format of ``input``, accumulated in float32 (float64 for
        float64). A region with a coordinate that is not finite gives zeros.

    Differentiable in ``input``, any number of times; asking for the gradient of ``boxes`` is an error. Forward and
    backward are deterministic; the backward needs no memory beyond its result (16-bit or channels_last: a copy of it in
    the accumulation type on CPU).

    Raises:
        TypeError: Integer boxes or dtypes that do not go together.
        ValueError: Wrong shapes or numbers; an image index out of range (on CUDA such a row is zero and counted, see
            :func:`device_errors`).

    torchvision loses the last row and column of the map and reads out of bounds for a wrong image index.

    >>> x = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, 8, 8)
    >>> ps_roi_pool(x, torch.tensor([[0.0, 0.0, 0.0, 8.0, 8.0]]), 2)
    tensor([[[[0., 1.],
              [2., 3.]]]])
    """
    out_h, out_w = output_size_pair("ps_roi_pool", output_size)
    rois = as_rois("ps_roi_pool", boxes, input.shape[0] if input.dim() else 0, input.dtype)
    return _op(input, rois, spatial_scale, out_h, out_w, legacy_border)


def ps_roi_pool_reference(
    input: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    *,
    legacy_border: bool = False,
) -> Tensor:
    """The definition of :func:`ps_roi_pool` in plain PyTorch. Coordinates are computed in the dtype of ``rois``."""
    height, width = input.shape[-2:]

    def bins(low: Tensor, high: Tensor, count: int, size: int) -> list[tuple[int, int]]:
        low, high = ((v.abs() * spatial_scale + 0.5).floor() * v.sign() for v in (low, high))
        bin = (high - low).clamp(min=1) / count
        edges = [((p * bin).floor() + low, ((p + 1) * bin).ceil() + low) for p in range(count)]
        end = size - 1 if legacy_border else size
        return [(int(a.clamp(0, end)), int(b.clamp(0, end))) for a, b in edges]

    def mean(pixels: Tensor) -> Tensor:
        return pixels.mean((1, 2)) if pixels.numel() else pixels.new_zeros(pixels.shape[0])

    out = [input.new_zeros(0, input.shape[1], *output_size)]
    for roi in rois:
        if not roi.isfinite().all():
            out.append(input.new_zeros(1, input.shape[1], *output_size))
            continue
        image, (x1, y1, x2, y2) = input[int(roi[0])], roi[1:]
        rows, columns = bins(y1, y2, output_size[0], height), bins(x1, x2, output_size[1], width)
        cells = [mean(image[:, a : max(a, b), c : max(c, d)]) for a, b in rows for c, d in columns]
        out.append(torch.stack(cells, 1).unflatten(1, output_size)[None])
    return _ps_roi.own_bins(torch.cat(out))
