"""Native ops under the transforms of torch.func: grad, vjp, jacrev, vmap and what they are nested to.

The autograd kernels of torch.library refuse these transforms, so an op that meets one goes through a Function of its
own: the same formulas in the form that the transforms ask for, with the op's vmap rule, or a loop where it has none.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Lengths = tuple[int, ...]  # of each argument that is a list of tensors; -1: the argument is something else


def transformable(
    op: Any, backward: Callable[..., Any], setup_context: Callable[..., Any] | None
) -> Callable[..., Any]:
    """The call of a native op (:class:`fastvision._lib.Op`) whose tensors a transform may have wrapped.

    A Function takes and returns tensors, not lists of them: lists are spread among the arguments and the gradients.
    """
    lists_out = any("List[Tensor]" in str(value.type) for value in op.overload._schema.returns)

    def forward(lengths: Lengths, *flat: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            result = op.overload(*_gathered(lengths, flat))
        return tuple(result) if isinstance(result, list) else result

    def prepare(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.lengths = inputs[0]
        if setup_context:
            setup_context(ctx, _gathered(inputs[0], inputs[1:]), output)

    def differentiate(ctx: Any, *grads: Any) -> Any:
        needed = ctx.needs_input_grad
        ctx.needs_input_grad = tuple(any(n) if isinstance(n, list) else n for n in _gathered(ctx.lengths, needed[1:]))
        try:
            result = backward(ctx, list(grads)) if lists_out else backward(ctx, *grads)
        finally:
            ctx.needs_input_grad = needed
        return None, *_spread(result)[1]

    def vmap(info: Any, in_dims: tuple[Any, ...], lengths: Lengths, *flat: Any) -> Any:
        if op.vmap_rule:
            return op.vmap_rule(info, tuple(_gathered(lengths, in_dims[1:])), *_gathered(lengths, flat))
        return loop(op, info, in_dims[1:], lengths, flat)

    members: dict[str, Callable[..., Any]] = {
        "forward": forward,
        "setup_context": prepare,
        "backward": differentiate,
        "vmap": vmap,
    }
    function: Any = type(
        f"{op.name}_transformed", (torch.autograd.Function,), {name: staticmethod(f) for name, f in members.items()}
    )

    def apply(*args: Any) -> Any:
        lengths, flat = _spread(args)
        result = function.apply(lengths, *flat)
        return list(result) if lists_out else result

    return apply


def loop(op: Any, info: Any, in_dims: tuple[Any, ...], lengths: Lengths, flat: Any) -> Any:
    """vmap by calls one after another."""
    if info.batch_size == 0:
        raise RuntimeError(f"{op.name}: under vmap: expected a mapped dimension of at least 1, got 0")
    results = []
    for i in range(info.batch_size):
        one = [
            value if dim is None or not isinstance(value, Tensor) else value.select(dim, i)
            for value, dim in zip(flat, in_dims)
        ]
        results.append(op(*_gathered(lengths, one)))
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(torch.stack(part) for part in zip(*results)), tuple(0 for _ in results[0])


def _spread(values: Any) -> tuple[Lengths, list[Any]]:
    lengths: list[int] = []
    flat: list[Any] = []
    for value in values if isinstance(values, tuple) else (values,):
        is_list = isinstance(value, list) and any(isinstance(v, Tensor) for v in value)
        lengths.append(len(value) if is_list else -1)
        flat += value if is_list else [value]
    return tuple(lengths), flat


def _gathered(lengths: Lengths, flat: Any) -> list[Any]:
    values: list[Any] = []
    rest = list(flat)
    for length in lengths:
        taken = abs(length)
        values.append(rest[:taken] if length >= 0 else rest[0])
        rest = rest[taken:]
    return values
