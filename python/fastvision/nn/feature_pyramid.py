"""Feature pyramid network (Lin et al., CVPR 2017)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .convolutions import Conv2d


class FeaturePyramidNetwork(nn.Module):
    """Top-down pathway with lateral connections, and one coarser level by subsampling the last.

    Args:
        in_channels: Channels of the maps that come in, finest first.
        out_channels: Channels of every level.

    Takes a list of maps ``(N, C_l, H_l, W_l)``, finest first, and returns one level more, each with ``out_channels``.
    Parameter names are torchvision's.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(c, out_channels, 1)) for c in in_channels)
        self.layer_blocks = nn.ModuleList(
            nn.Sequential(Conv2d(out_channels, out_channels, 3, padding=1)) for _ in in_channels
        )
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_uniform_(conv.weight, a=1)
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        top = self.inner_blocks[-1](maps[-1])
        levels = [self.layer_blocks[-1](top)]
        for inner, layer, lateral in reversed(list(zip(self.inner_blocks, self.layer_blocks, maps))[:-1]):
            top = _add_enlarged(inner(lateral), top)
            levels.insert(0, layer(top))
        return [*levels, F.max_pool2d(levels[-1], 1, stride=2)]


def _add_enlarged(fine: Tensor, coarse: Tensor) -> Tensor:
    """``fine`` plus the nearest pixels of ``coarse``, written to ``fine`` where no gradient is asked for."""
    height, width = coarse.shape[-2:]
    if fine.shape[-2:] != (2 * height, 2 * width):
        return fine + F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
    pairs = fine.unflatten(3, (width, 2)).unflatten(2, (height, 2))
    each_twice = coarse[:, :, :, None, :, None]
    total: Tensor = pairs + each_twice if fine.requires_grad else pairs.add_(each_twice)
    return total.flatten(4).flatten(2, 3)
