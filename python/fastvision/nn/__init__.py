"""Modules: blocks that several model families share, and the module forms of the ops."""

from .atrous import ASPP, SeparableConv2d
from .convolutions import Conv2d, ConvTranspose2d
from .deform_conv import DeformConv2d
from .feature_pyramid import FeaturePyramidNetwork
from .folding import fold_batch_norm
from .frozen_batch_norm import FrozenBatchNorm2d
from .image_batcher import ImageBatch, ImageBatcher
from .losses import DiceLoss, SigmoidFocalLoss, SoftmaxFocalLoss
from .roi_modules import MultiScaleRoIAlign, PSRoIAlign, PSRoIPool, RoIAlign, RoIPool

__all__ = [
    "ASPP",
    "Conv2d",
    "ConvTranspose2d",
    "DeformConv2d",
    "DiceLoss",
    "FeaturePyramidNetwork",
    "FrozenBatchNorm2d",
    "ImageBatch",
    "ImageBatcher",
    "MultiScaleRoIAlign",
    "PSRoIAlign",
    "PSRoIPool",
    "RoIAlign",
    "RoIPool",
    "SeparableConv2d",
    "SigmoidFocalLoss",
    "SoftmaxFocalLoss",
    "fold_batch_norm",
]
