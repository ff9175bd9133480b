"""Dense ops against torch on the CPU: python benchmarks/ops/dense.py [--only unpool] [--rounds 9] [--threads 1]

Contestants run in turns in one process on the same inputs, after a check that they agree; the table has medians of
process CPU time in milliseconds and the quotient.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from fastvision import ops
from torch import Tensor

Row = tuple[str, Callable[[], Any], Callable[[], Any]]


def with_gradient(f: Callable[..., Tensor], *tensors: Tensor) -> Callable[[], Any]:
    """Forward and backward of the sum, with the gradients of all tensors that want one."""
    inputs = [t for t in tensors if t.requires_grad]
    return lambda: torch.autograd.grad(f(*tensors).sum(), inputs)


def total_variation() -> Iterator[Row]:
    def plain(x: Tensor) -> Tensor:
        return (x[..., 1:, :] - x[..., :-1, :]).abs().sum() + (x[..., 1:] - x[..., :-1]).abs().sum()

    x = torch.rand(1, 256, 128, 128)
    for name, image in (("NCHW", x), ("channels_last", x.to(memory_format=torch.channels_last))):
        yield f"total_variation 256x128x128 {name}", lambda i=image: ops.total_variation(i), lambda i=image: plain(i)
        i = image.clone().requires_grad_()
        yield (
            f"total_variation 256x128x128 {name} + gradient",
            with_gradient(ops.total_variation, i),
            with_gradient(plain, i),
        )


GROUPS = [total_variation]


def agree(ours: Any, theirs: Any) -> None:
    for a, b in zip(*(v if isinstance(v, tuple) else (v,) for v in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def medians(contestants: list[Callable[[], Any]], rounds: int) -> list[float]:
    times: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for f, taken in zip(contestants, times):
            start = time.process_time()
            f()
            taken.append((time.process_time() - start) * 1e3)
    return [statistics.median(taken) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {arguments.threads} thread(s)")
    print(f"{'workload':64} {'ours':>9} {'torch':>9} {'factor':>7}")
    for group in GROUPS:
        if arguments.only in group.__name__:
            for name, ours, theirs in group():
                agree(ours(), theirs())
                a, b = medians([ours, theirs], arguments.rounds)
                print(f"{name:64} {a:9.2f} {b:9.2f} {b / a:7.2f}", flush=True)


if __name__ == "__main__":
    main()
