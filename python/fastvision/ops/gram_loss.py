"""Style losses of Gram matrices. Kernels: csrc/kernels/gram_matrix.{h,cpp,cu}. Binding: csrc/torch/gram_matrix.cpp."""

from typing import Any

from torch import Tensor

from .. import _lib
from . import _arguments, _losses, _tf32
from .gram_matrix import gram_matrix_reference, mix_channels

_op = _lib.Op[tuple[Tensor, Tensor]]("gram_loss")


def gram_loss(x: Tensor, target: Tensor, *, normalize: bool = False, reduction: str = "mean") -> Tensor:
    """Mean squared difference between the Gram matrices of feature maps and those of a style.

    ``((gram_matrix(x) - target) ** 2).mean((1, 2))``, without the difference in memory: the layer's part of the style
    loss of neural style transfer (Gatys et al., CVPR 2016), whose ``E_l`` is this divided by
    ``4 * (H * W) ** 2``, or this of ``normalize=True`` times ``C ** 2 / 4``.

    Args:
        x: Features ``(N, C, H, W)``, NCHW or channels_last; float16, bfloat16, float32 or float64.
        target: Gram matrices ``(N, C, C)``, or ``(1, C, C)`` for all images, as :func:`gram_matrix` returns them:
            float32, or float64 for float64 features. Not differentiable.
        normalize: Divide the Gram matrix of ``x`` by ``C * H * W``.
        reduction: ``"none"`` gives one value per image, ``(N,)``; ``"sum"`` and ``"mean"`` are over the images, and 0
            where there is none.

    Returns:
        The value in the dtype of ``target``.

    Twice differentiable by ``x``. Deterministic; bits do not depend on the number of threads. On CUDA float32 features
    may be rounded to TF32 where ``torch.backends.cuda.matmul.fp32_precision`` allows it.

    Raises:
        TypeError: ``x`` is not floating point, or ``target`` not of the dtype above.
        ValueError: Wrong shapes, or an unknown ``reduction``.
        RuntimeError: A gradient by ``target`` is asked for.

    >>> import torch
    >>> x = torch.tensor([[[[1.0, 2.0]], [[0.0, 3.0]]]])
    >>> gram_loss(x, torch.zeros(1, 2, 2))
    tensor(44.5000)
    """
    code = _losses.reduction_code("gram_loss", reduction)
    if _lib.in_transform() and x.dim() == 4 and target.dim() == 3 and target.shape[0] == 1:
        target = target.expand(x.shape[0], -1, -1)  # vmap folds its dimension into that of the images
    losses: Tensor = _op(x, target, normalize, _tf32.in_products())[0]
    if code == 0:
        return losses
    return losses.sum() / max(losses.numel(), 1) if code == 1 else losses.sum()


@_lib.register_fake("gram_loss")
def _(x: Tensor, target: Tensor, normalize: bool, tf32: bool) -> tuple[Tensor, Tensor]:
    _arguments.all_floats("gram_loss", "x", x)
    _arguments.shape(x.dim() == 4, "gram_loss", "x", x, "(N, C, H, W)")
    _arguments.accumulated_dtype("gram_loss", "target", target, x)
    _arguments.same_device("gram_loss", "target", target, "x", x)
    batch, channels = x.shape[:2]
    fits = target.dim() == 3 and target.shape[0] in (1, batch) and tuple(target.shape[1:]) == (channels, channels)
    _arguments.shape(fits, "gram_loss", "target", target, "(N, C, C) or (1, C, C) with N and C of x")
    return target.new_empty(batch), target.new_empty(batch, channels, channels)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, _, ctx.normalize, _ = inputs
    ctx.save_for_backward(x, output[1])


def _backward(ctx: Any, of_losses: Tensor | None, of_slopes: Tensor | None) -> tuple[Tensor | None, ...]:
    """Slopes are ``2 scale / C^2 (2 gram - target - target^T)``: the second gradient comes through them."""
    _losses.refuse_gradient("gram_loss", "target", ctx.needs_input_grad[1])
    x, slopes = ctx.saved_tensors
    factors = None if of_losses is None else of_losses[:, None, None] * slopes
    if of_slopes is not None:
        channels = x.shape[1]
        scale = 1 / max(x[:1].numel(), 1) if ctx.normalize else 1.0
        by_gram = (of_slopes + of_slopes.mT) * (4 * scale**2 / max(channels, 1) ** 2)
        factors = by_gram if factors is None else factors + by_gram
    return None if factors is None else mix_channels(factors, x), None, None, None


_lib.register_autograd(_op, _backward, _setup_context)
_lib.register_folding_vmap(_op, 0, 1)


def gram_loss_reference(x: Tensor, target: Tensor, *, normalize: bool = False) -> Tensor:
    """The definition of :func:`gram_loss` with ``reduction="none"`` in plain PyTorch."""
    error = gram_matrix_reference(x, normalize=normalize) - target
    return error.square().sum((1, 2)) / max(x.shape[1], 1) ** 2
