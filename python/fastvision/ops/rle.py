"""Run-length masks in the COCO format. Kernels: csrc/kernels/rle.{h,cpp}. Binding: csrc/pybind/rle.cpp.

A mask is a dict ``{"size": [height, width], "counts": bytes}`` as pycocotools has it: the lengths of the runs of
background and foreground pixels in column-major order, background first, packed into text. Functions that read masks
also take ``counts`` as str (from JSON) and as a list of integers ("uncompressed"). Whatever they are given, they return
a result or raise an error that names the mask; work is shared among ``torch.get_num_threads()`` threads.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import _host

RunLengths = dict[str, Any]
Array = Tensor | NDArray[Any]


def rle_encode(masks: Array) -> list[RunLengths]:
    """Run lengths of dense masks.

    Args:
        masks: ``(N, H, W)``, bool or uint8, tensor or NumPy array with any strides; all but 0 is foreground. Row-major
            masks are read in place, without a column-major copy. CUDA tensors are copied to the host.

    Returns:
        One dict per mask, ``counts`` as bytes equal to those of ``pycocotools.mask.encode``.

    Raises:
        TypeError: Another dtype.
        ValueError: Another shape, or a mask of more than 2**32 - 1 pixels.

    >>> rle_encode(torch.tensor([[[0, 1], [0, 1]]], dtype=torch.bool))
    [{'size': [2, 2], 'counts': b'22'}]
    """
    if isinstance(masks, Tensor):
        masks = masks.detach().cpu().numpy()
    if not isinstance(masks, np.ndarray):
        raise TypeError(f"rle_encode: masks: expected a tensor or a NumPy array, got {type(masks).__name__}")
    return _host.rle_encode(masks, torch.get_num_threads())


def rle_encode_packed(masks: Tensor, width: int) -> list[RunLengths]:
    """Run lengths of packed masks as :func:`paste_masks_in_image` makes them."""
    return _host.rle_encode_bits(masks.cpu().numpy(), width, torch.get_num_threads())


def rle_decode(objects: Sequence[RunLengths]) -> Tensor:
    """Dense masks from run lengths.

    Args:
        objects: Masks of one size.

    Returns:
        Bool tensor ``(N, H, W)``, row-major; ``(0, 0, 0)`` for an empty list.

    Raises:
        TypeError: An object that is no mask.
        ValueError: Counts that do not fill the mask exactly, malformed text, or masks of different sizes.
        torch.OutOfMemoryError: The result does not fit in memory.

    >>> rle_decode([{"size": [2, 2], "counts": b"22"}]).int()
    tensor([[[0, 1],
             [0, 1]]], dtype=torch.int32)
    """
    masks = _listed("rle_decode", "objects", objects)
    _host.rle_area(masks[:1], 1)  # a size to be trusted
    height, width = masks[0]["size"] if masks else (0, 0)
    shape = (len(masks), int(height), int(width))
    try:
        # Zeros from the operating system: memory of background alone is never touched.
        out = np.zeros(shape, np.uint8)
    except (MemoryError, ValueError):
        text = f"cannot allocate shape {shape} of bool ({shape[0] * shape[1] * shape[2]} bytes)"
        raise torch.OutOfMemoryError(f"rle_decode: out of memory: {text}") from None
    _host.rle_decode(masks, out, torch.get_num_threads())
    return torch.from_numpy(out.view(np.bool_))


def rle_area(objects: Sequence[RunLengths]) -> Tensor:
    """Number of foreground pixels of each mask, int64 ``(N,)``. Errors as in :func:`rle_decode`.

    >>> rle_area([{"size": [2, 2], "counts": b"22"}])
    tensor([2])
    """
    return torch.from_numpy(_host.rle_area(_listed("rle_area", "objects", objects), torch.get_num_threads()))


def rle_to_boxes(objects: Sequence[RunLengths], fmt: str = "xyxy") -> Tensor:
    """Smallest boxes around masks.

    Args:
        objects: Masks.
        fmt: ``"xyxy"``, or ``"xywh"`` as pycocotools has them. Coordinates are edges of pixels: a mask of the first
            pixel alone has the box (0, 0, 1, 1).

    Returns:
        float32 ``(N, 4)``; zeros for an empty mask. Errors as in :func:`rle_decode`.

    >>> rle_to_boxes([{"size": [2, 2], "counts": b"22"}])
    tensor([[1., 0., 2., 2.]])
    """
    if fmt not in ("xyxy", "xywh"):
        raise ValueError(f"rle_to_boxes: fmt: expected 'xyxy' or 'xywh', got {fmt!r}")
    boxes = torch.from_numpy(_host.rle_boxes(_listed("rle_to_boxes", "objects", objects), torch.get_num_threads()))
    if fmt == "xyxy":
        boxes[:, 2:] += boxes[:, :2]
    return boxes.float()


def rle_iou(a: Sequence[RunLengths], b: Sequence[RunLengths], crowd: Sequence[bool] | Array | None = None) -> Tensor:
    """Intersection over union of all pairs of two sets of masks, without decoding them.

    Args:
        a: N masks.
        b: M masks of the same size.
        crowd: For each of ``b`` whether it is a crowd; the intersection is then divided by the area of ``a`` alone.

    Returns:
        float64 ``(N, M)``; 0 where the masks share no pixel.

    Raises:
        ValueError: As :func:`rle_decode`, or ``crowd`` of another length.
    """
    first, second = _listed("rle_iou", "a", a), _listed("rle_iou", "b", b)
    if crowd is None:
        crowd = [False] * len(second)
    flags = np.ascontiguousarray(crowd.cpu() if isinstance(crowd, Tensor) else crowd, dtype=np.bool_)
    return torch.from_numpy(_host.rle_iou(first, second, flags, torch.get_num_threads()))


def rle_merge(objects: Sequence[RunLengths], intersect: bool = False) -> RunLengths:
    """Union of masks of one size, or their intersection. Errors as in :func:`rle_decode`; an empty list is one."""
    return _host.rle_merge(_listed("rle_merge", "objects", objects), bool(intersect), torch.get_num_threads())


def rle_from_polygons(polygons: Sequence[Sequence[float] | Array], height: int, width: int) -> RunLengths:
    """Mask of one object from the polygons around its parts.

    Args:
        polygons: Each one ``[x1, y1, x2, y2, ...]`` or an array ``(K, 2)``, in pixels, at least three corners. Corners
            may lie outside the image.
        height: Height of the image.
        width: Width of the image.

    Returns:
        The union of the polygons, byte for byte as ``pycocotools.mask`` gives it: edges are sampled at fifths of a
        pixel. Time and memory depend on the image's width and the number of corners, not on how far out they lie.

    Raises:
        ValueError: No polygon, fewer than three corners, an odd number of coordinates, a coordinate that is not finite
            or beyond 1e6, or a size that is no image's. Names the polygon.

    >>> rle_from_polygons([[0, 0, 2, 0, 2, 2, 0, 2]], 3, 3)
    {'size': [3, 3], 'counts': b'02103'}
    """
    arrays = []
    for i, polygon in enumerate(polygons):
        try:
            array = np.asarray(polygon.cpu() if isinstance(polygon, Tensor) else polygon, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"rle_from_polygons: polygons[{i}]: expected numbers, got {polygon!r:.80}") from None
        if array.ndim == 2 and array.shape[1] == 2:
            array = array.reshape(-1)
        arrays.append(np.ascontiguousarray(array))
    return _host.rle_from_polygons(arrays, _dimension("height", height), _dimension("width", width))


def rle_to_string(mask: RunLengths) -> str:
    """The mask's counts as text, ready for JSON; with them as a list of integers, this is what compresses it.

    >>> rle_to_string({"size": [2, 2], "counts": [2, 2]})
    '22'
    """
    text: bytes = _host.rle_merge([mask], False, 1)["counts"]
    return text.decode("ascii")


def rle_from_string(text: str | bytes, height: int, width: int) -> RunLengths:
    """A mask from its counts as text, checked against its size. Errors as in :func:`rle_decode`.

    >>> rle_from_string("22", 2, 2)
    {'size': [2, 2], 'counts': b'22'}
    """
    if not isinstance(text, (str, bytes)):
        raise TypeError(f"rle_from_string: text: expected str or bytes, got {type(text).__name__}")
    return _host.rle_merge([{"size": [height, width], "counts": text}], False, 1)


def _listed(function: str, argument: str, objects: Sequence[RunLengths]) -> list[RunLengths]:
    if isinstance(objects, (dict, str, bytes)) or not isinstance(objects, Sequence):
        raise TypeError(f"{function}: {argument}: expected a list of masks, got {type(objects).__name__}")
    return list(objects)


def _dimension(name: str, value: int) -> int:
    if not 0 <= value < 2**32:
        raise ValueError(f"rle_from_polygons: {name}: expected an integer in [0, 2**32), got {value}")
    return int(value)
