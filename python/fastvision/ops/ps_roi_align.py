"""Position-sensitive RoIAlign. Kernels: csrc/kernels/ps_roi.{h,cpp,cu}. Binding: csrc/torch/ps_roi.cpp."""

from collections.abc import Sequence

from torch import Tensor

from .. import _lib
from . import _ps_roi
from ._regions import as_rois, output_size_pair
from .roi_align import roi_align_reference

_op = _lib.Op[Tensor]("ps_roi_align")
_ps_roi.register("ps_roi_align", _op, _lib.Op[Tensor]("ps_roi_align_backward"))


def ps_roi_align(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
) -> Tensor:
    """Crop regions where each bin reads channels of its own (Li et al., Light-Head R-CNN, 2017).

    Bin ``b`` (row by row) of output channel ``c`` is that of :func:`roi_align` with ``aligned=True`` on input channel
    ``c * height * width + b``.

    Args:
        input: Features ``(N, C * height * width, H, W)``, NCHW or channels_last; float16, bfloat16, float32 or float64.
        boxes: Regions ``(K, 5)`` as (image index, x1, y1, x2, y2), or a list with ``(k, 4)`` for each image. In the
            dtype of ``input`` or, beside 16-bit features, in float32.
        output_size: Bins per region, one int or ``(height, width)``.
        spatial_scale: Pixels of ``input`` per unit of ``boxes``.
        sampling_ratio: Samples along each side of a bin, 1 to 256; 0 or -1 takes ``ceil(bin size)``.

    Returns:
        ``(K, C, height, width)`` in the dtype and memory format of ``input``, accumulated in float32 (float64 for
        float64). A region with a coordinate that is not finite gives zeros; so does an inverted or empty one.

    Differentiable in ``input``, any number of times; asking for the gradient of ``boxes`` is an error. Forward and
    backward are deterministic; the backward needs no memory beyond its result (16-bit or channels_last: a copy of it in
    the accumulation type on CPU).

    Raises:
        TypeError: Integer boxes or dtypes that do not go together.
        ValueError: Wrong shapes or numbers; an image index out of range (on CUDA such a row is zero and counted, see
            :func:`device_errors`).

    torchvision reads out of bounds for a wrong image index and gives NaN for an empty region without sampling ratio.

    >>> import torch
    >>> x = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, 8, 8)
    >>> ps_roi_align(x, torch.tensor([[0.0, 1.0, 1.0, 6.0, 6.0]]), 2).round(decimals=3)
    tensor([[[[0., 1.],
              [2., 3.]]]])
    """
    out_h, out_w = output_size_pair("ps_roi_align", output_size)
    rois = as_rois("ps_roi_align", boxes, input.shape[0] if input.dim() else 0, input.dtype)
    return _op(input, rois, spatial_scale, out_h, out_w, sampling_ratio)


def ps_roi_align_reference(
    input: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float = 1.0, sampling_ratio: int = -1
) -> Tensor:
    """The definition of :func:`ps_roi_align` in plain PyTorch: every bin of every channel, most of them for nothing."""
    return _ps_roi.own_bins(roi_align_reference(input, rois, output_size, spatial_scale, sampling_ratio, aligned=True))
