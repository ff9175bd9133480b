"""Batch normalisation folded into convolutions."""

from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .frozen_batch_norm import FrozenBatchNorm2d

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def fold_batch_norm(model: Model) -> Model:
    """Fold batch normalisations into the convolutions before them, which saves passes over every map in inference.

    A ``Conv2d`` or a ``ConvTranspose2d`` of one group takes up the ``BatchNorm2d`` or :class:`FrozenBatchNorm2d` that
    its parent registers directly after it; an ``nn.Identity`` takes that one's place. This is right for models that
    also call the two in this order and use the convolution for nothing else; those of :mod:`fastvision.models` do.

    Args:
        model: In evaluation mode. It is changed: convolutions get new weights and a bias, so that its state no longer
            fits an unfolded model.

    Returns:
        ``model``. Its results are the same up to rounding.

    Raises:
        ValueError: The model is in training mode, where the statistics are those of each batch.

    >>> from torch import nn
    >>> fold_batch_norm(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)).eval())
    Sequential(
      (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
      (1): Identity()
    )
    """
    if model.training:
        raise ValueError("fold_batch_norm: model: expected evaluation mode, got training mode; call model.eval() first")
    for parent in list(model.modules()):
        for (_, conv), (name, norm) in pairwise(list(parent.named_children())):
            if _takes_up(conv, norm):
                setattr(parent, name, nn.Identity())
    return model


def _takes_up(conv: nn.Module, norm: nn.Module) -> bool:
    transposed = isinstance(conv, nn.ConvTranspose2d)
    if (
        not isinstance(norm, (nn.BatchNorm2d, FrozenBatchNorm2d))
        or norm.running_mean is None
        or norm.running_var is None
    ):
        return False
    if not isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)) or (transposed and conv.groups > 1):
        return False
    if len(norm.running_mean) != conv.out_channels:
        return False
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias, transposed
    )
    return True
