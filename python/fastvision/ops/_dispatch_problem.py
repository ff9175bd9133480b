"""What ``algorithm="auto"`` of the convolutions looks at: see _dispatch.py."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

# gather: convolution, and the gradient of transposed convolution by its input. scatter: transposed convolution, and the
# gradient of convolution by its input. product: the gradient of both by their weight.
Map = Literal["gather", "scatter", "product"]


class Problem(NamedTuple):
    """``input`` and ``weight``: shapes, of the forward pass."""

    which: Map
    input: tuple[int, ...]
    weight: tuple[int, ...]
    geometry: tuple[int, ...]  # stride, padding and dilation, two numbers each
    groups: int
    dtype: torch.dtype
    device: str
    channels_last: bool
    has_plain_weight: bool  # not channels_last
    product: float  # how long torch takes for one, in those of float32; 0: not known, or out of reach

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.weight[2:]

    @property
    def products(self) -> int:
        """As if the stride were 1."""
        batch, _, height, width = self.input
        first, second, down, across = self.weight
        return batch * height * width * first * second * down * across

    @property
    def depthwise(self) -> bool:
        return self.groups == self.weight[0] and self.weight[1] == 1

    @property
    def slow(self) -> bool:
        """Whether these are 16 bits that the processor has to widen."""
        return self.product > 1

    @property
    def wide(self) -> bool:
        return self.dtype.itemsize > 2

    @property
    def has_windows_side_by_side(self) -> bool:
        """Whether windows cover the map without a gap, each pixel once, and have more than a pixel."""
        whole = self.geometry[2:] == (0, 0, 1, 1)
        return self.kernel == self.geometry[:2] and whole and max(self.kernel) > 1

    @property
    def has_empty_windows(self) -> bool:
        return has_empty_windows(self.kernel, self.geometry)


def has_empty_windows(kernel: Sequence[int], geometry: Sequence[int]) -> bool:
    """Whether windows may lie in the padding with all their taps."""
    return any(geometry[2 + k] > geometry[4 + k] * (kernel[k] - 1) for k in (0, 1))
