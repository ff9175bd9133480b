"""The largest sample of a bin of RoIAlign. Kernels: csrc/kernels/roi_align_max.{h,cpp,cu}."""

from typing import Any

import torch
from torch import Tensor

from .. import _lib
from ._regions import check_rois, is_channels_last, new_features, refuse_box_gradient, save_argmax

max_op = _lib.Op[tuple[Tensor, Tensor]]("roi_align_max")
_backward_op = _lib.Op[Tensor]("roi_align_max_backward")


@_lib.register_fake("roi_align_max")
def _(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    out_h: int,
    out_w: int,
    sampling_ratio: int,
    aligned: bool,
    with_argmax: bool,
) -> tuple[Tensor, Tensor]:
    check_rois("roi_align", "input", input, rois)
    out = new_features(input, (rois.shape[0], input.shape[1], out_h, out_w), is_channels_last(input))
    return out, torch.empty_like(out if with_argmax else out[:0], dtype=torch.int64)


@_lib.register_fake("roi_align_max_backward")
def _(
    grad: Tensor,
    rois: Tensor,
    argmax: Tensor,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    n: int,
    h: int,
    w: int,
    channels_last: bool,
) -> Tensor:
    return new_features(grad, (n, grad.shape[1], h, w), channels_last)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    input, rois, ctx.scale, _, _, ctx.sampling_ratio, ctx.aligned, _ = inputs
    save_argmax(ctx, input, rois, output[1])


def _backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
    refuse_box_gradient("roi_align", ctx.needs_input_grad[1])
    rois, argmax = ctx.saved_tensors
    n, _channels, h, w = ctx.shape
    sampling = ctx.scale, ctx.sampling_ratio, ctx.aligned
    return _backward_op(grad, rois, argmax, *sampling, n, h, w, ctx.channels_last), *(None,) * 7


_lib.register_autograd(max_op, _backward, _setup_context)
_lib.register_no_gradient(_backward_op)
