"""ResNet (He et al., Deep Residual Learning, CVPR 2016) and ResNeXt (Xie et al., CVPR 2017).

Parameter names are torchvision's, so its checkpoints load as they are.
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ...nn import Conv2d

NormLayer = Callable[[int], nn.Module]


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    expansion = 1

    def __init__(
        self, channels: int, width: int, stride: int, norm: NormLayer, groups: int = 1, group_width: int = 64
    ) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = norm(width)
        self.downsample = _shortcut(channels, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return _joined(self.bn2(self.conv2(y)), x if self.downsample is None else self.downsample(x))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions and a shortcut; the stride is in the 3 x 3 one, as in torchvision."""

    expansion = 4

    def __init__(
        self, channels: int, width: int, stride: int, norm: NormLayer, groups: int = 1, group_width: int = 64
    ) -> None:
        super().__init__()
        inner = width * group_width // 64 * groups
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = norm(inner)
        self.conv2 = Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = norm(inner)
        self.conv3 = nn.Conv2d(inner, width * self.expansion, 1, bias=False)
        self.bn3 = norm(width * self.expansion)
        self.downsample = _shortcut(channels, width * self.expansion, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return _joined(self.bn3(self.conv3(y)), x if self.downsample is None else self.downsample(x))


def _joined(y: Tensor, shortcut: Tensor) -> Tensor:
    """Where a shortcut comes in; in place, since no other layer reads ``y``."""
    y += shortcut
    return F.relu(y, inplace=True)


def _shortcut(channels: int, out_channels: int, stride: int, norm: NormLayer) -> nn.Sequential | None:
    if stride == 1 and channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(channels, out_channels, 1, stride, bias=False), norm(out_channels))


class ResNetBody(nn.Module):
    """The convolutional part: maps of strides 4, 8, 16 and 32, finest first.

    Args:
        block: :class:`BasicBlock` or :class:`Bottleneck`.
        depths: Blocks of each of the four stages.
        width: Channels of the stem; stage k has ``width * 2**k * block.expansion``.
        groups, group_width: Of the 3 x 3 convolutions; ResNeXt-50 32x4d has 32 and 4.
        norm: Makes a normalisation layer for a number of channels.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        *,
        width: int = 64,
        groups: int = 1,
        group_width: int = 64,
        norm: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = norm(width)
        channels, self.out_channels = width, []
        for k, depth in enumerate(depths):
            blocks = []
            for i in range(depth):
                stride = 2 if i == 0 and k > 0 else 1
                blocks.append(block(channels, width * 2**k, stride, norm, groups, group_width))
                channels = width * 2**k * block.expansion
            self.add_module(f"layer{k + 1}", nn.Sequential(*blocks))
            self.out_channels.append(channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        maps = []
        for k in range(len(self.out_channels)):
            x = self.get_submodule(f"layer{k + 1}")(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.stages(x)


class ResNet(ResNetBody):
    """The classifier: images ``(N, 3, H, W)`` to logits ``(N, num_classes)``. Arguments as :class:`ResNetBody`."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        num_classes: int = 1000,
        *,
        width: int = 64,
        groups: int = 1,
        group_width: int = 64,
        norm: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__(block, depths, width=width, groups=groups, group_width=group_width, norm=norm)
        self.fc = nn.Linear(self.out_channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.fc(self.stages(x)[-1].mean((2, 3)))  # type: ignore[no-any-return]


def resnet18(num_classes: int = 1000) -> ResNet:
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes)


def resnet34(num_classes: int = 1000) -> ResNet:
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes)


def resnet50(num_classes: int = 1000) -> ResNet:
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes)


def resnet101(num_classes: int = 1000) -> ResNet:
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes)


def resnet152(num_classes: int = 1000) -> ResNet:
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes)


def resnext50_32x4d(num_classes: int = 1000) -> ResNet:
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, groups=32, group_width=4)


def resnext101_32x8d(num_classes: int = 1000) -> ResNet:
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, groups=32, group_width=8)
