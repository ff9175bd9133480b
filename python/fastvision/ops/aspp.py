"""Atrous spatial pyramid pooling, of convolutions by :func:`fastvision.ops.conv2d` and matrix products by torch."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .. import _lib
from . import _arguments
from ._convolution import check_algorithm, with_batch
from ._regions import is_channels_last
from .conv2d import conv2d

_op = "aspp"


def aspp(
    input: Tensor,
    pointwise_weight: Tensor,
    atrous_weights: Sequence[Tensor],
    pooling_weight: Tensor,
    projection_weight: Tensor,
    rates: Sequence[int] = (6, 12, 18),
    *,
    biases: Sequence[Tensor | None] | None = None,
    projection_bias: Tensor | None = None,
    algorithm: str = "auto",
) -> Tensor:
    """Atrous spatial pyramid pooling of DeepLab v3 (Chen et al., 2017), with batch normalisations folded into weights.

    The branches are a 1 x 1 convolution, a 3 x 3 convolution per rate, and a 1 x 1 convolution of the image's mean that
    is the same for all pixels. A ReLU follows each; their channels, in this order, are projected by a 1 x 1
    convolution, and a ReLU follows.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, NCHW or channels_last; float16, bfloat16, float32 or float64.
        pointwise_weight, pooling_weight: ``(B, C, 1, 1)``. All other tensors have the dtype of ``input``.
        atrous_weights: One ``(B, C, 3, 3)`` per rate.
        projection_weight: ``(D, (2 + number of rates) * B, 1, 1)``.
        rates: The dilations, in pixels; the padding of a branch is its rate.
        biases: ``(B,)`` or None for each branch: pointwise, atrous, pooling.
        projection_bias: ``(D,)``.
        algorithm: Of the 3 x 3 convolutions, as in :func:`conv2d`.

    Returns:
        ``(N, D, H, W)`` or ``(D, H, W)`` in the dtype and memory format of ``input``.

    Branches are projected one by one and added up, so that they are never concatenated; float16 and bfloat16, where
    partial sums would be rounded, are. The pooling branch is a bias of the projection. A convolution leaves out taps
    that only ever meet the outside of the map. Differentiable any number of times; deterministic where torch's
    convolutions and matrix products are.

    Raises:
        TypeError: Not floating point, or different dtypes.
        ValueError: Wrong shapes or numbers, or different devices.

    >>> x, one = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 1, 1)
    >>> aspp(x, one, [torch.ones(1, 1, 3, 3)], one, torch.ones(1, 3, 1, 1), rates=(2,))[0, 0, 0]
    tensor([6., 6., 6., 6.])
    """
    check_algorithm(_op, algorithm)
    batch = with_batch(_op, input)
    branch_biases = list(biases) if biases is not None else [None] * (2 + len(rates))
    weights = [pointwise_weight, *atrous_weights, pooling_weight]
    try:
        _check(batch, weights, projection_weight, rates, branch_biases, projection_bias)
    except RuntimeError as error:
        raise _lib.translate(error) from None

    made = _branches(batch, weights, rates, branch_biases, algorithm)
    pooled = functional.relu(functional.conv2d(batch.mean((2, 3), keepdim=True), pooling_weight, branch_biases[-1]))
    out = project_branches(made, pooled, projection_weight, projection_bias, batch.shape[2:])
    out = functional.relu(out, inplace=True)
    out = out.contiguous(memory_format=torch.channels_last if is_channels_last(batch) else torch.contiguous_format)
    return out if input.dim() == 4 else out[0]


def _branches(
    batch: Tensor, weights: Sequence[Tensor], rates: Sequence[int], biases: Sequence[Tensor | None], algorithm: str
) -> Iterator[Tensor]:
    """All but the pooling branch, each when it is asked for."""
    yield functional.relu(functional.conv2d(batch, weights[0], biases[0]), inplace=True)
    for weight, bias, rate in zip(weights[1:-1], biases[1:-1], rates):
        yield functional.relu(atrous_branch(batch, weight, bias, rate, algorithm), inplace=True)


def atrous_branch(batch: Tensor, weight: Tensor, bias: Tensor | None, rate: int, algorithm: str = "auto") -> Tensor:
    """A 3 x 3 convolution without the taps that only ever meet the outside of the map."""
    padding = [rate, rate]
    for axis in (0, 1):
        if rate >= batch.shape[2 + axis]:
            weight, padding[axis] = weight.narrow(2 + axis, 1, 1), 0
    return conv2d(batch, weight, bias, 1, padding, rate, algorithm=algorithm)


def project_branches(
    branches: Iterable[Tensor], pooled: Tensor, weight: Tensor, bias: Tensor | None, size: Sequence[int]
) -> Tensor:
    """The 1 x 1 convolution of the concatenation of all branches with ``pooled``, which is one pixel.

    A sum of one matrix product per branch: only one branch is needed at a time.
    """
    if _arguments.autocast_dtype(pooled.device) is not None or pooled.dtype not in (torch.float32, torch.float64):
        return functional.conv2d(torch.cat([*branches, pooled.expand(-1, -1, *size)], 1), weight, bias)
    parts = weight[:, :, 0, 0].split(pooled.shape[1], 1)
    out = functional.linear(pooled[:, :, 0, 0], parts[-1], bias)[:, :, None, None]
    for branch, part in zip(branches, parts):
        if is_channels_last(branch):
            pixels = torch.baddbmm(out.flatten(2).mT, branch.flatten(2).mT, part.mT.expand(len(branch), -1, -1)).mT
        else:
            pixels = torch.baddbmm(out.flatten(2), part.expand(len(branch), -1, -1), branch.flatten(2))
        out = pixels.unflatten(2, size)
    return out


def _check(
    batch: Tensor,
    weights: Sequence[Tensor],
    projection: Tensor,
    rates: Sequence[int],
    biases: Sequence[Tensor | None],
    projection_bias: Tensor | None,
) -> None:
    _arguments.all_floats(_op, "input", batch)
    pixels = batch.shape[2] >= 1 and batch.shape[3] >= 1
    _lib.check(pixels, _op, ": input: expected at least one pixel per map, got ", tuple(batch.shape))
    for rate in rates:
        if isinstance(rate, bool) or not isinstance(rate, int):
            raise TypeError(f"{_op}: rates: expected integers, got {rate!r}")
        _lib.check(rate >= 1, _op, ": rates: expected integers >= 1, got ", rate)
    count, found = len(rates), len(weights) - 2
    _lib.check(found == count, _op, ": atrous_weights: expected ", count, " as rates, got ", found)
    _lib.check(len(biases) == count + 2, _op, ": biases: expected ", count + 2, ", one per branch, got ", len(biases))
    width = weights[0].shape[0] if weights[0].dim() == 4 else 0
    names = ["pointwise_weight", *["atrous_weights"] * count, "pooling_weight"]
    for name, weight, bias, size in zip(names, weights, biases, [1, *[3] * count, 1]):
        _matches(name, weight, batch, (width, batch.shape[1], size, size))
        if bias is not None:
            _matches("biases", bias, batch, (width,))
    _arguments.shape(projection.dim() == 4, _op, "projection_weight", projection, "of 4 dimensions")
    _matches("projection_weight", projection, batch, (projection.shape[0], (2 + count) * width, 1, 1))
    if projection_bias is not None:
        _matches("projection_bias", projection_bias, batch, (projection.shape[0],))


def _matches(name: str, t: Tensor, batch: Tensor, shape: tuple[int, ...]) -> None:
    _arguments.same_dtype(_op, name, t, "input", batch)
    _arguments.same_device(_op, name, t, "input", batch)
    _arguments.shape(tuple(t.shape) == shape, _op, name, t, str(shape))


def aspp_reference(
    input: Tensor,
    pointwise_weight: Tensor,
    atrous_weights: Sequence[Tensor],
    pooling_weight: Tensor,
    projection_weight: Tensor,
    rates: Sequence[int] = (6, 12, 18),
    *,
    biases: Sequence[Tensor | None] | None = None,
    projection_bias: Tensor | None = None,
) -> Tensor:
    """The definition of :func:`aspp` in plain PyTorch, for inputs with a batch dimension."""
    b = biases or [None] * (2 + len(rates))
    made = [functional.conv2d(input, pointwise_weight, b[0])]
    made += [functional.conv2d(input, w, v, 1, r, r) for w, v, r in zip(atrous_weights, b[1:-1], rates)]
    pooled = functional.conv2d(input.mean((2, 3), keepdim=True), pooling_weight, b[-1])
    whole = functional.relu(torch.cat([*made, pooled.expand(-1, -1, *input.shape[2:])], 1))
    return functional.relu(functional.conv2d(whole, projection_weight, projection_bias))
