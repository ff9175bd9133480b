"""Calls that go forward and backward."""

from collections.abc import Callable

import torch
from torch import Tensor


def with_gradients(
    function: Callable[..., Tensor], *leaves: Tensor, weight: Tensor | None = None
) -> Callable[[], tuple[Tensor, ...]]:
    """Gives the result and the gradients of all ``leaves``; ``weight`` is that of the result, None for a scalar."""
    inputs = [leaf.detach().requires_grad_() for leaf in leaves]

    def call() -> tuple[Tensor, ...]:
        result = function(*inputs)
        return result.detach(), *torch.autograd.grad(result, inputs, weight)

    return call


def backward(function: Callable[[Tensor], Tensor], leaf: Tensor, weight: Tensor | None = None) -> Callable[[], Tensor]:
    """Gives the gradient alone; the first call goes forward, as a rival may not be there before."""
    leaf = leaf.detach().requires_grad_()
    made: list[Tensor] = []

    def call() -> Tensor:
        made[:] = made or [function(leaf)]
        return torch.autograd.grad(made[0], leaf, weight, retain_graph=True)[0]

    return call
