"""Index errors that CUDA kernels noticed. Binding: csrc/torch/device_errors.cpp."""

from typing import NamedTuple

import torch

from .. import _lib

_op = _lib.Op[torch.Tensor]("device_errors")
_OPS = (  # OpId in csrc/kernels/common.h
    "",
    "roi_align",
    "multiscale_roi_align",
    "roi_pool",
    "ps_roi_align",
    "ps_roi_pool",
    "roi_align_rotated",
    "sigmoid_focal_loss",
    "softmax_focal_loss",
    "dice_loss",
    "max_unpool2d",
)


class DeviceErrors(NamedTuple):
    count: int  # type: ignore[assignment]  # hides tuple.count
    first: tuple[str, int] | None


def device_errors(device: torch.device | str | int | None = None) -> DeviceErrors:
    """Read and clear the count of index errors on a CUDA device.

    A CUDA kernel that meets an index out of range (a region's image index, say) cannot raise an exception without
    stopping the host. It gives that row zeros, in the output and in gradients, and counts it here. With the
    environment variable ``FASTVISION_VALIDATE=1`` the ops check on the host and raise, as they always do on the CPU.

    Args:
        device: The CUDA device; the current one by default.

    Returns:
        ``count``, and ``first``: name of the op and row of the first error since the last call, or None. Waits for the
        device.
    """
    where = device if device is not None else ("cuda" if torch.cuda.is_available() else "cpu")
    count, op, row = _op(torch.empty(0, device=where)).tolist()
    return DeviceErrors(count, (_OPS[op], row) if count else None)


@_lib.register_fake("device_errors")
def _(like: torch.Tensor) -> torch.Tensor:
    return like.new_empty(3, dtype=torch.int64)
