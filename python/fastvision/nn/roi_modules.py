"""Modules of the region ops, with torchvision's constructors."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ..ops.multiscale_roi_align import multiscale_roi_align
from ..ops.ps_roi_align import ps_roi_align
from ..ops.ps_roi_pool import ps_roi_pool
from ..ops.roi_align import roi_align
from ..ops.roi_pool import roi_pool


class RoIAlign(nn.Module):
    """See :func:`fastvision.ops.roi_align`."""

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
        *,
        mode: str = "avg",
    ) -> None:
        super().__init__()
        self.output_size, self.spatial_scale = output_size, spatial_scale
        self.sampling_ratio, self.aligned, self.mode = sampling_ratio, aligned, mode

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        sampling = self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned
        return roi_align(input, rois, *sampling, mode=self.mode)

    def extra_repr(self) -> str:
        mode = "" if self.mode == "avg" else f", mode={self.mode!r}"
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}{mode}"
        )


class RoIPool(nn.Module):
    """See :func:`fastvision.ops.roi_pool`."""

    def __init__(self, output_size: int | Sequence[int], spatial_scale: float) -> None:
        super().__init__()
        self.output_size, self.spatial_scale = output_size, spatial_scale

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        return roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"


class MultiScaleRoIAlign(nn.Module):
    """See :func:`fastvision.ops.multiscale_roi_align`.

    Args:
        featmap_names: Keys of the feature dictionary to read, finest first.
        output_size, sampling_ratio: As in :func:`fastvision.ops.roi_align`.
        canonical_scale, canonical_level: As in :func:`fastvision.ops.multiscale_roi_align`.

    The scales are worked out anew from each call's image and feature sizes; torchvision's module keeps those of its
    first call.
    """

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        self.featmap_names, self.sampling_ratio = list(featmap_names), sampling_ratio
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        self.canonical_scale, self.canonical_level = canonical_scale, canonical_level

    def forward(
        self, x: Mapping[str, Tensor], boxes: Sequence[Tensor], image_shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """``image_shapes``: (height, width) of each image of the batch."""
        maps = [x[name] for name in self.featmap_names if name in x]
        if not maps or not image_shapes:
            raise ValueError("MultiScaleRoIAlign: expected at least one feature map and one image")
        height, width = (max(shape[d] for shape in image_shapes) for d in (0, 1))
        # The finest map tells more of the scale than its rounded size: padding is a small part of it.
        scales = [2.0 ** round(math.log2(max(f.shape[2] / height, f.shape[3] / width))) for f in maps]
        return multiscale_roi_align(
            maps,
            boxes,
            self.output_size,
            scales,
            canonical_scale=float(self.canonical_scale),
            canonical_level=self.canonical_level,
            sampling_ratio=self.sampling_ratio,
        )

    def extra_repr(self) -> str:
        return (
            f"featmap_names={self.featmap_names}, output_size={self.output_size}, sampling_ratio={self.sampling_ratio}"
        )


class PSRoIAlign(nn.Module):
    """See :func:`fastvision.ops.ps_roi_align`."""

    def __init__(self, output_size: int | Sequence[int], spatial_scale: float, sampling_ratio: int) -> None:
        super().__init__()
        self.output_size, self.spatial_scale, self.sampling_ratio = output_size, spatial_scale, sampling_ratio

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        return ps_roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, sampling_ratio={self.sampling_ratio}"
        )


class PSRoIPool(nn.Module):
    """See :func:`fastvision.ops.ps_roi_pool`."""

    def __init__(self, output_size: int | Sequence[int], spatial_scale: float, *, legacy_border: bool = False) -> None:
        super().__init__()
        self.output_size, self.spatial_scale, self.legacy_border = output_size, spatial_scale, legacy_border

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        return ps_roi_pool(input, rois, self.output_size, self.spatial_scale, legacy_border=self.legacy_border)

    def extra_repr(self) -> str:
        legacy = ", legacy_border=True" if self.legacy_border else ""
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}{legacy}"
