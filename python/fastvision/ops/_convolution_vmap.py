"""vmap of the convolutions in one call: the mapped dimension becomes images, or where weights differ groups."""

from typing import Any

from torch import Tensor

from .. import _lib
from .._lib import to_front

Result = tuple[Tensor, int]


def convolution_rule(op: _lib.Op[Any], transposed: bool) -> Any:
    """Of both ops: ``(input, weight, bias, geometry, groups, height, width, auto)``."""
    results_at = 1 if transposed else 0  # dimension of the weight

    def rule(info: Any, in_dims: tuple[Any, ...], input: Tensor, weight: Tensor, bias: Any, *rest: Any) -> Result:
        by_input, by_weight, by_bias = in_dims[:3]
        size: int = info.batch_size
        geometry, groups, *others = rest
        if by_weight is None and by_bias is None:
            images = to_front(input, by_input, size)
            out: Tensor = op(images.flatten(0, 1), weight, bias, *rest)
            return out.unflatten(0, images.shape[:2]), 0
        weights = to_front(weight, by_weight, size)
        biases = None if bias is None else to_front(bias, by_bias, size).flatten()
        if by_input is None and groups == 1:  # more channels of the result from the same input
            batch, all_weights, all_groups = input, _side_by_side(weights, results_at), 1
        else:
            batch = _side_by_side(to_front(input, by_input, size), 1)
            all_weights, all_groups = weights.flatten(0, 1), groups * size
        out = op(batch, all_weights, biases, geometry, all_groups, *others)
        return out.unflatten(1, (size, -1)), 1

    return rule


def weight_gradient_rule(op: _lib.Op[Any]) -> Any:
    """``(small, large, geometry, groups, kernel height, kernel width)``."""

    def rule(info: Any, in_dims: tuple[Any, ...], small: Tensor, large: Tensor, *rest: Any) -> Result:
        geometry, groups, *kernel = rest
        size: int = info.batch_size
        smalls = _side_by_side(to_front(small, in_dims[0], size), 1)
        larges = _side_by_side(to_front(large, in_dims[1], size), 1)
        out: Tensor = op(smalls, larges, geometry, groups * size, *kernel)
        return out.unflatten(0, (size, -1)), 0

    return rule


def _side_by_side(stack: Tensor, dim: int) -> Tensor:
    """The tensors of the stack one after another in a dimension of theirs."""
    return stack.movedim(0, dim).flatten(dim, dim + 1)
