"""Deformable convolutions (v2) of ResNet stages at the sizes of detection, and their gradients."""

import torch
from fastvision import ops
from fastvision.ops.deform_conv2d import deform_conv2d_reference
from torch import Tensor

from .. import inputs
from ..gradients import with_gradients
from ..rivals import torchvision_ops
from ..workload import Case, Workload
