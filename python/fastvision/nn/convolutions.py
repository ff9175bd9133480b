"""Modules of the convolutions: torch's own, with their parameters and state, computed by fastvision.ops."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..ops._dispatch import choose
from ..ops.conv2d import conv2d
from ..ops.conv_transpose2d import conv_transpose2d

Pair = int | tuple[int, int]


class Conv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` by :func:`fastvision.ops.conv2d`; ``algorithm`` as there."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        algorithm: str = "auto",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,  # type: ignore[arg-type]
            device,
            dtype,
        )
        self.algorithm = algorithm

    def forward(self, input: Tensor) -> Tensor:
        if self.algorithm == "auto" and self._is_torchs(input):
            return super().forward(input)
        padding: str | Sequence[int] = self.padding
        if self.padding_mode != "zeros":
            input = functional.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0, 0
        options = (self.stride, padding, self.dilation, self.groups)
        return conv2d(input, self.weight, self.bias, *options, algorithm=self.algorithm)

    def _is_torchs(self, input: Tensor) -> bool:
        """Whether "auto" is torch at first sight, so that small convolutions need not wait for a second."""
        if self.groups > 1 or self.padding_mode != "zeros" or isinstance(self.padding, str):
            return False
        if input.device.type != "cpu":
            return True
        if input.dim() != 4 or torch.is_autocast_enabled("cpu"):
            return False  # with autocast other dtypes than these are chosen for
        geometry = (*self.stride, *self.padding, *self.dilation)
        return choose("gather", "auto", input, self.weight, geometry, 1) == "torch"


class ConvTranspose2d(nn.ConvTranspose2d):
    """``torch.nn.ConvTranspose2d`` by :func:`fastvision.ops.conv_transpose2d`; ``algorithm`` as there."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Pair = 1,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        algorithm: str = "auto",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,  # type: ignore[arg-type]
            device,
            dtype,
        )
        self.algorithm = algorithm

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        output_padding = self._output_padding(
            input,
            output_size,  # type: ignore[arg-type]
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.kernel_size,  # type: ignore[arg-type]
            2,
            self.dilation,  # type: ignore[arg-type]
        )
        options = (self.stride, self.padding, output_padding, self.groups, self.dilation)
        return conv_transpose2d(input, self.weight, self.bias, *options, algorithm=self.algorithm)  # type: ignore[arg-type]
