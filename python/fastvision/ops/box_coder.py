"""R-CNN's box parametrisation. Kernels: csrc/kernels/box_coder.{h,cpp,cu}. Binding: csrc/torch/box_coder.cpp."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _lib
from . import _arguments

_encode_op = _lib.Op[Tensor]("encode_boxes")
_encode_backward_op = _lib.Op[tuple[Tensor, Tensor]]("encode_boxes_backward")
_decode_op = _lib.Op[Tensor]("decode_boxes")
_decode_backward_op = _lib.Op[tuple[Tensor, Tensor]]("decode_boxes_backward")

_CLIP = math.log(1000 / 16)


def encode_boxes(reference: Tensor, boxes: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """What a detector regresses: boxes relative to references (Girshick et al., R-CNN, CVPR 2014, appendix C).

    The offset of the centre in units of the reference's sides, and the logarithm of the ratio of the sides.

    Args:
        reference: Anchors or proposals ``(..., 4)``, xyxy, floating point.
        boxes: Ground truth of the same dtype and shape, or ``(..., C, 4)`` with C boxes for each reference.
        weights: Factors of (x, y, width, height).

    Returns:
        Codes (x, y, width, height) in the shape and dtype of ``boxes``; 16-bit boxes are computed in float32. A
        reference or box with an empty side gives infinities.

    Differentiable once in both. Deterministic.

    Raises:
        TypeError, ValueError: Dtypes, shapes or weights that do not fit.

    >>> encode_boxes(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[1.0, 0.0, 5.0, 4.0]]))
    tensor([[0.2500, 0.0000, 0.0000, 0.0000]])
    """
    r, b = _arguments.widen("encode_boxes", "reference", reference, "boxes", boxes)
    return _encode_op(r, b, [float(w) for w in weights]).to(boxes.dtype)


def decode_boxes(
    reference: Tensor,
    boxes: Tensor,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    *,
    clip: float = _CLIP,
    image_size: tuple[float, float] | None = None,
) -> Tensor:
    """The inverse of :func:`encode_boxes`: boxes from references and predicted codes.

    Args:
        reference: Anchors or proposals ``(..., 4)``, xyxy, floating point.
        boxes: Codes (x, y, width, height) of the same dtype and shape, or ``(..., C, 4)`` with C for each reference.
        weights: Factors of (x, y, width, height) that the codes were made with.
        clip: Largest code of a side, so that the exponential cannot overflow.
        image_size: ``(height, width)``; clamp the boxes to the image.

    Returns:
        Boxes, xyxy, in the shape and dtype of the codes; 16-bit codes are computed in float32.

    Differentiable once in both; a clamped coordinate or a clipped code passes no gradient. Deterministic.

    Raises:
        TypeError, ValueError: Dtypes, shapes or numbers that do not fit.

    >>> decode_boxes(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[0.25, 0.0, 0.0, 0.0]]), image_size=(4, 4))
    tensor([[1., 0., 4., 4.]])
    """
    r, b = _arguments.widen("decode_boxes", "reference", reference, "boxes", boxes)
    size = None if image_size is None else [float(n) for n in image_size]
    return _decode_op(r, b, [float(w) for w in weights], clip, size).to(boxes.dtype)


def _check(op: str, reference: Tensor, boxes: Tensor) -> None:
    expected = "that of reference, or (..., C, 4) with C boxes for each reference"
    _arguments.floats(op, "reference", reference)
    _arguments.same_dtype(op, "boxes", boxes, "reference", reference)
    _arguments.same_device(op, "boxes", boxes, "reference", reference)
    _arguments.shape(reference.dim() >= 1 and reference.shape[-1] == 4, op, "reference", reference, "(..., 4)")
    fits = boxes.dim() - reference.dim() in (0, 1) and boxes.shape[-1] == 4
    fits = fits and boxes.shape[: reference.dim() - 1] == reference.shape[:-1]
    _arguments.shape(fits, op, "boxes", boxes, expected)


@_lib.register_fake("encode_boxes")
def _(reference: Tensor, boxes: Tensor, weights: list[float]) -> Tensor:
    _check("encode_boxes", reference, boxes)
    return boxes.new_empty(boxes.shape)


@_lib.register_fake("decode_boxes")
def _(reference: Tensor, codes: Tensor, weights: list[float], clip: float, image_size: list[float] | None) -> Tensor:
    _check("decode_boxes", reference, codes)
    return codes.new_empty(codes.shape)


@_lib.register_fake("encode_boxes_backward")
def _(grad: Tensor, reference: Tensor, boxes: Tensor, weights: list[float]) -> tuple[Tensor, Tensor]:
    return reference.new_empty(reference.shape), boxes.new_empty(boxes.shape)


@_lib.register_fake("decode_boxes_backward")
def _(
    grad: Tensor,
    reference: Tensor,
    codes: Tensor,
    weights: list[float],
    clip: float,
    image_size: list[float] | None,
) -> tuple[Tensor, Tensor]:
    return reference.new_empty(reference.shape), codes.new_empty(codes.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    reference, boxes, *ctx.constants = inputs
    ctx.save_for_backward(reference, boxes)


def _encode_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_encode_backward_op(grad, *ctx.saved_tensors, *ctx.constants), None


def _decode_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_decode_backward_op(grad, *ctx.saved_tensors, *ctx.constants), None, None, None


_lib.register_autograd(_encode_op, _encode_backward, _setup_context)
_lib.register_autograd(_decode_op, _decode_backward, _setup_context)
_lib.register_no_gradient(_encode_backward_op)
_lib.register_no_gradient(_decode_backward_op)
_lib.register_batch_vmap(_encode_op, 2)
_lib.register_batch_vmap(_decode_op, 2)


def _centers_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides / 2, sides


def encode_boxes_reference(reference: Tensor, boxes: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """The definition of :func:`encode_boxes` in plain PyTorch."""
    if boxes.dim() > reference.dim():
        reference = reference[..., None, :]
    (center, sides), (box_center, box_sides) = _centers_and_sides(reference), _centers_and_sides(boxes)
    codes = torch.cat([(box_center - center) / sides, (box_sides / sides).log()], -1)
    return codes * torch.tensor(weights, dtype=boxes.dtype)


def decode_boxes_reference(
    reference: Tensor,
    codes: Tensor,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    *,
    clip: float = _CLIP,
    image_size: tuple[float, float] | None = None,
) -> Tensor:
    """The definition of :func:`decode_boxes` in plain PyTorch."""
    if codes.dim() > reference.dim():
        reference = reference[..., None, :]
    center, sides = _centers_and_sides(reference)
    scaled = codes / torch.tensor(weights, dtype=codes.dtype)
    middle, half = scaled[..., :2] * sides + center, scaled[..., 2:].clamp(max=clip).exp() * sides / 2
    boxes = torch.cat([middle - half, middle + half], -1)
    if image_size is not None:
        height, width = image_size
        x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
        boxes = torch.stack([x, y], -1).flatten(-2)
    return boxes
