"""Blocks of DeepLab: separable convolution, and atrous spatial pyramid pooling."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from ..ops.aspp import atrous_branch, project_branches
from ..ops.separable_conv2d import separable_conv2d


class SeparableConv2d(nn.Module):
    """A depthwise and a 1 x 1 convolution by :func:`fastvision.ops.separable_conv2d`, fused where that has no gradient.

    The parameters are those of ``depthwise`` and ``pointwise``, two ``torch.nn.Conv2d``. ``depthwise_activation``,
    ``activation`` and ``algorithm`` as in the function.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
        *,
        depthwise_activation: str | None = None,
        activation: str | None = None,
        algorithm: str = "auto",
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, kernel_size, 1, padding, dilation, groups=in_channels, bias=bias
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        self.padding, self.dilation = padding, dilation
        self.depthwise_activation, self.activation = depthwise_activation, activation
        self.algorithm = algorithm

    def forward(self, input: Tensor) -> Tensor:
        return separable_conv2d(
            input,
            self.depthwise.weight,
            self.pointwise.weight,
            self.depthwise.bias,
            self.pointwise.bias,
            padding=self.padding,
            dilation=self.dilation,
            depthwise_activation=self.depthwise_activation,
            activation=self.activation,
            algorithm=self.algorithm,
        )


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling of DeepLab v3, with the constructor and parameter names of torchvision's.

    Branches are projected one by one and added up, as in :func:`fastvision.ops.aspp`: there is no concatenation.
    """

    def __init__(self, in_channels: int, atrous_rates: Sequence[int], out_channels: int = 256) -> None:
        super().__init__()
        self.rates = tuple(atrous_rates)

        def layers(channels: int, size: int = 1, rate: int = 0) -> list[nn.Module]:
            convolution = nn.Conv2d(channels, out_channels, size, padding=rate, dilation=max(rate, 1), bias=False)
            return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]

        pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), *layers(in_channels))
        branches = [nn.Sequential(*layers(in_channels, 3, rate)) for rate in self.rates]
        self.convs = nn.ModuleList([nn.Sequential(*layers(in_channels)), *branches, pooling])
        self.project = nn.Sequential(*layers((2 + len(self.rates)) * out_channels), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.convs[-1](x)
        result: Tensor = self.project[1:](
            project_branches(self._branches(x), pooled, self.project[0].weight, None, x.shape[2:])  # type: ignore[arg-type]
        )
        return result

    def _branches(self, x: Tensor) -> Iterator[Tensor]:
        layers: list[Any] = list(self.convs)
        yield layers[0](x)
        for branch, rate in zip(layers[1:-1], self.rates):
            yield branch[1:](atrous_branch(x, branch[0].weight, None, rate))
