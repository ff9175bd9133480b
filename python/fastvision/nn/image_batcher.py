"""Images of any size into one batch."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ImageBatch(NamedTuple):
    pixels: Tensor  # (B, 3, H, W), normalised, padded with zeros
    sizes: list[tuple[int, int]]  # (height, width) of each image inside
    originals: list[tuple[int, int]]  # (height, width) before resizing

    def scales(self) -> Tensor:
        """``(B, 4)``: factors of (x1, y1, x2, y2) from original to resized coordinates."""
        factors = [(w / ow, h / oh) * 2 for (h, w), (oh, ow) in zip(self.sizes, self.originals)]
        return torch.tensor(factors, dtype=torch.float32, device=self.pixels.device).reshape(-1, 4)

    def limits(self) -> Tensor:
        """``(B, 4)``: the largest (x1, y1, x2, y2) of each resized image."""
        limits = [(w, h) * 2 for h, w in self.sizes]
        return torch.tensor(limits, dtype=torch.float32, device=self.pixels.device).reshape(-1, 4)


class ImageBatcher(nn.Module):
    """Normalises, resizes and pads images, as torchvision's detectors do. Has no parameters.

    Args:
        min_size: Length of the shorter side after resizing, unless ``max_size`` forbids.
        max_size: Largest length of the longer side.
        mean, std: Per channel, of images in [0, 1].
        divisor: Height and width of the batch are multiples of this.
    """

    def __init__(
        self,
        min_size: int = 800,
        max_size: int = 1333,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        divisor: int = 32,
    ) -> None:
        super().__init__()
        self.min_size, self.max_size, self.divisor = min_size, max_size, divisor
        self.mean, self.std = tuple(mean), tuple(std)

    def forward(self, images: Sequence[Tensor]) -> ImageBatch:
        """Images are ``(3, H, W)`` floats in [0, 1]."""
        if not images:
            raise ValueError("images: expected at least one image, got 0")
        resized = [self._resized(i, image) for i, image in enumerate(images)]
        height, width = (
            math.ceil(max(image.shape[d] for image in resized) / self.divisor) * self.divisor for d in (1, 2)
        )
        padded = [F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in resized]
        sizes = [(image.shape[1], image.shape[2]) for image in resized]
        return ImageBatch(torch.stack(padded), sizes, [(image.shape[1], image.shape[2]) for image in images])

    def _resized(self, index: int, image: Tensor) -> Tensor:
        if image.dim() != 3 or image.shape[0] != 3 or image.shape[1] == 0 or image.shape[2] == 0:
            raise ValueError(f"images: expected shape (3, H, W) in place {index}, got {tuple(image.shape)}")
        if not image.is_floating_point():
            raise TypeError(f"images: expected floating point in [0, 1] in place {index}, got {image.dtype}")
        mean, std = (
            torch.tensor(v, dtype=image.dtype, device=image.device)[:, None, None] for v in (self.mean, self.std)
        )
        normalised = (image - mean) / std
        short, long = min(image.shape[1:]), max(image.shape[1:])
        scale = min(self.min_size / short, self.max_size / long)
        # A side may not vanish: an image a thousand times longer than wide keeps one pixel.
        size = [max(1, math.floor(n * scale)) for n in image.shape[1:]]
        if size == list(image.shape[1:]):
            return normalised
        return F.interpolate(normalised[None], size=size, mode="bilinear", align_corners=False)[0]
