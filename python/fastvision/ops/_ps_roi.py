"""What position-sensitive RoIAlign and RoIPool share: shapes, gradients and the choice of channels."""

from typing import Any

from torch import Tensor

from .. import _lib
from ._regions import check_rois, is_channels_last, new_features, refuse_box_gradient


def register(name: str, op: _lib.Op[Tensor], backward_op: _lib.Op[Tensor]) -> None:
    """Fake kernels and gradients of ``op(input, rois, spatial_scale, out_h, out_w, option)``."""

    @_lib.register_fake(name)
    def _(input: Tensor, rois: Tensor, spatial_scale: float, out_h: int, out_w: int, option: int) -> Tensor:
        check_rois(name, "input", input, rois)
        channels, bins = input.shape[1], out_h * out_w
        ok = channels % bins == 0
        _lib.check(ok, name, ": input: expected a multiple of ", out_h, " * ", out_w, " channels, got ", channels)
        return new_features(input, (rois.shape[0], channels // bins, out_h, out_w), is_channels_last(input))

    @_lib.register_fake(name + "_backward")
    def _(
        grad: Tensor, rois: Tensor, spatial_scale: float, option: int, n: int, h: int, w: int, channels_last: bool
    ) -> Tensor:
        return new_features(grad, (n, grad.shape[1] * grad.shape[2] * grad.shape[3], h, w), channels_last)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, rois, ctx.scale, _, _, ctx.option = inputs
        ctx.save_for_backward(rois)
        ctx.shape = input.shape
        ctx.channels_last = is_channels_last(input)

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_box_gradient(name, ctx.needs_input_grad[1])
        (rois,) = ctx.saved_tensors
        n, _, h, w = ctx.shape
        return backward_op(grad, rois, ctx.scale, ctx.option, n, h, w, ctx.channels_last), *[None] * 5

    def setup_double_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad, rois, scale, option, *_ = inputs
        ctx.save_for_backward(rois)
        ctx.constants = scale, grad.shape[2], grad.shape[3], option

    def double_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The backward is linear in its gradient, and the forward is its transpose."""
        refuse_box_gradient(name, ctx.needs_input_grad[1])
        (rois,) = ctx.saved_tensors
        return op(grad, rois, *ctx.constants), *[None] * 7

    _lib.register_autograd(op, backward, setup_context)
    _lib.register_autograd(backward_op, double_backward, setup_double_context)


def own_bins(pooled: Tensor) -> Tensor:
    """For references: bin b of channel ``c * bins + b`` of ``(K, C * bins, height, width)``."""
    height, width = pooled.shape[2:]
    by_bin = pooled.flatten(2).unflatten(1, (-1, height * width))
    own: Tensor = by_bin.diagonal(dim1=2, dim2=3).unflatten(2, (height, width))
    return own
