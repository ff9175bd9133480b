"""Measures what ``algorithm="auto"`` of the convolutions decides on: ``python -m benchmarks.dispatch``.

Prints the table of docs/kernels/dispatch.md: for each problem, layout and map the own kernels and torch's, in turns in
one process, and what ``auto`` takes, then how good these choices are: "float32" is torch or an own kernel after
widening 16 bits. Ends with 1 where ``auto`` takes an own kernel or float32 that is more than 3 % slower than torch or
float32.
"""

import argparse
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import torch
from fastvision import ops
from fastvision.ops import _dispatch
from fastvision.ops._dispatch import Choice, choose, own_is_faster
from fastvision.ops._dispatch_problem import Map
from torch import Tensor

from .measure import Call, on_cpu

TOLERANCE = 1.03


@dataclass(frozen=True)
class Problem:
    name: str
    channels: int
    out: int
    size: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    transposed: bool = True
    batch: int = 1


def _bilinear(size: int, stride: int) -> Problem:
    return Problem(f"bilinear 21 x {size} x {size}, stride {stride}", 21, 21, size, 2 * stride, stride, groups=21)


def _side_by_side(channels: int, out: int, size: int, kernel: int) -> Problem:
    return Problem(f"{kernel} x {kernel}, {channels} x {size} x {size} -> {out}", channels, out, size, kernel, kernel)


def _patches(channels: int, out: int, size: int, kernel: int) -> Problem:
    name = f"patches {kernel} x {kernel}, {channels} x {size} x {size} -> {out}"
    return Problem(name, channels, out, size, kernel, kernel, transposed=False)


def _atrous(channels: int, rate: int) -> Problem:
    name = f"depthwise 3 x 3, rate {rate}, {channels} x 33 x 33"
    return Problem(name, channels, channels, 33, 3, 1, rate, rate, channels, False)


def _dense(channels: int, size: int, rate: int = 1, out: int | None = None) -> Problem:
    name = f"dense 3 x 3, {channels} x {size} x {size}" + (f" -> {out}" if out else "")
    name += f", rate {rate}" if rate > 1 else ""
    return Problem(name, channels, out or channels, size, 3, 1, rate, rate, 1, False)


PROBLEMS = [
    *(_bilinear(16, 32), _bilinear(35, 16), _bilinear(70, 8), _bilinear(70, 4), _bilinear(140, 2)),
    *(_side_by_side(64, 32, 256, 2), _side_by_side(128, 64, 256, 2), _side_by_side(256, 128, 128, 2)),
    *(_side_by_side(512, 256, 64, 2), _side_by_side(128, 64, 64, 3), _side_by_side(256, 128, 32, 4)),
    Problem("2 x 2, 20 x 256 x 14 x 14 -> 256", 256, 256, 14, 2, 2, batch=20),
    *(_patches(64, 128, 512, 2), _patches(128, 256, 128, 2), _patches(64, 128, 128, 2)),
    *(_patches(96, 192, 56, 2), _patches(384, 768, 14, 2)),
    *(_patches(3, 64, 512, 2), _patches(3, 96, 224, 4), _patches(3, 768, 224, 16)),
    *(_atrous(1024, 18), _atrous(2048, 12), _atrous(1024, 8), _atrous(728, 4), _atrous(728, 2), _atrous(728, 1)),
]
PROBLEMS += [
    Problem(f"depthwise 3 x 3, stride 2, {c} x {s} x {s}", c, c, s, 3, 2, 1, 1, c, False)
    for c, s in ((96, 112), (576, 28))
]
PROBLEMS += [
    Problem(f"depthwise {k} x {k}, {c} x {s} x {s}", c, c, s, k, 1, k // 2, 1, c, False)
    for c, s, k in ((144, 56, 3), (384, 14, 3), (960, 7, 3), (120, 28, 5), (672, 14, 5), (96, 56, 7))
]
PROBLEMS += [_dense(16, 112), _dense(32, 56), _dense(48, 56), _dense(64, 14), _dense(64, 56), _dense(128, 28)]
PROBLEMS += [_dense(256, 50), _dense(512, 7), _dense(512, 14), _dense(512, 28), _dense(512, 65, 2)]
PROBLEMS += [
    _dense(16, 16),
    Problem("3 x 3, stride 2, 64 x 14 x 14", 64, 64, 14, 3, 2, 1, transposed=False),
    Problem("7 x 7, stride 2, 3 x 64 x 64 -> 64", 3, 64, 64, 7, 2, 3, transposed=False),
    Problem("1 x 1, 512 x 7 x 7", 512, 512, 7, 1, transposed=False),
    Problem("3 x 3, 4 groups, 64 x 28 x 28", 64, 64, 28, 3, 1, 1, 1, 4, False),
    Problem("depthwise 3 x 3, 64 x 28 x 28", 64, 64, 28, 3, 1, 1, 1, 64, False),
    Problem("depthwise 3 x 3, stride 2, 64 x 28 x 28", 64, 64, 28, 3, 2, 1, 1, 64, False),
]
PROBLEMS += [_dense(256, 33, 6), _dense(2048, 33, 12, 256), _dense(2048, 33, 18, 256), _dense(512, 65, 24, 256)]


def random_problems(count: int, seed: int) -> Iterator[Problem]:
    """Dense 3 x 3 convolutions of 1 M to 2 G products."""
    draw = random.Random(seed)
    widths, sizes = (16, 24, 32, 48, 64, 96, 128, 256, 512, 1024), (5, 7, 8, 10, 12, 14, 20, 25, 33, 40, 56, 84, 112)
    while count > 0:
        channels, size, batch = draw.choice(widths), draw.choice(sizes), draw.choice((1, 1, 1, 2, 4, 8))
        out = channels if draw.random() < 0.4 else draw.choice(widths)
        rate = draw.choice((1, 1, 1, 1, 2, 2, 4, 6, 8, 12, 18))
        padding = rate if draw.random() < 0.8 else 0
        if size < rate or size + 2 * padding <= 2 * rate or not 1e6 < 9 * batch * channels * out * size**2 < 2e9:
            continue
        name = f"dense 3 x 3, {batch} x {channels} x {size} x {size} -> {out}, rate {rate}, padding {padding}"
        yield Problem(name, channels, out, size, 3, 1, padding, rate, 1, False, batch)
        count -= 1


def maps(p: Problem, dtype: torch.dtype, channels_last: bool) -> Iterator[tuple[Map, Choice, Callable[[str], Call]]]:
    """(map, what auto takes, a maker of calls by algorithm or "float32") for the result and both gradients."""
    g = torch.Generator().manual_seed(0)
    format = torch.channels_last if channels_last else torch.contiguous_format
    shape = (p.channels, p.out // p.groups) if p.transposed else (p.out, p.channels // p.groups)
    x = torch.randn(p.batch, p.channels, p.size, p.size, generator=g).to(dtype).to(memory_format=format)
    weight = torch.randn(*shape, p.kernel, p.kernel, generator=g).to(dtype)

    def call(x: Tensor, weight: Tensor, algorithm: str) -> Tensor:
        f: Any = ops.conv_transpose2d if p.transposed else ops.conv2d
        parts = {"stride": p.stride, "padding": p.padding, "dilation": p.dilation, "groups": p.groups}
        result: Tensor
        if algorithm == "float32":
            result = f(x.float(), weight.float(), **parts).to(dtype)
        else:
            result = f(x, weight, **parts, algorithm=algorithm)
        return result

    grad = torch.randn(call(x, weight, "torch").shape, generator=g).to(dtype).to(memory_format=format)

    def gradient(of: int) -> Callable[[str], Call]:
        def make(algorithm: str) -> Call:
            inputs = x.clone().requires_grad_(of == 0), weight.clone().requires_grad_(of == 1)
            out = call(*inputs, algorithm)
            return lambda: torch.autograd.grad(out, inputs[of], grad, retain_graph=True)

        return make

    geometry = [p.stride, p.stride, p.padding, p.padding, p.dilation, p.dilation]
    forward: tuple[Map, Map] = ("scatter", "gather") if p.transposed else ("gather", "scatter")

    def taken(which: Map, x: Tensor, weight: Tensor) -> Choice:
        choice = choose(forward[0], "auto", x, weight, geometry, p.groups)  # else gradients are not own either
        return choice if choice != "own" or own_is_faster(which, x, weight, geometry, p.groups) else "torch"

    yield forward[0], taken(forward[0], x, weight), lambda a: lambda: call(x, weight, a)
    gradients: tuple[Map, Map] = (forward[1], "product")
    for of, which in enumerate(gradients):
        inputs = x.detach().requires_grad_(of == 0), weight.detach().requires_grad_(of == 1)
        yield which, taken(which, *inputs), gradient(of)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dispatch", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3, help="per contestant (default: 0.3)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64", "bfloat16", "float16"))
    parser.add_argument("--only", default="", help="problems with this in their name")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="N random dense problems instead")
    parser.add_argument("--map", choices=get_args(Map), help="only this map (of random problems the result by default)")
    parser.add_argument("--seed", type=int, default=0, help="of the random problems")
    parser.add_argument(
        "--product", type=float, metavar="X", help="decide as if torch took X times as long for a product as in float32"
    )
    options = parser.parse_args()
    dtype: torch.dtype = getattr(torch, options.dtype)
    if options.product is not None:
        _dispatch._PRODUCT[dtype] = options.product
    only = options.map or ("gather" if options.random else None)
    widened = dtype.itemsize == 2
    columns = ["own ms", "torch ms", *(["float32 ms"] if widened else []), "auto takes"]
    print(f"| {options.dtype}, {options.threads} thread(s) | layout | map | {' | '.join(columns)} |")
    print("|---|" + "---|" * (2 + len(columns)))
    won: list[float] = []  # how many times as fast as torch "auto" is where it does not take torch
    missed = wrong = 0
    problems = random_problems(options.random, options.seed) if options.random else iter(PROBLEMS)
    for p in (p for p in problems if options.only in p.name):
        for channels_last in (False, True):
            for which, taken, make in maps(p, dtype, channels_last):
                if only and which != only:
                    continue
                calls = {"own": make("fastvision"), "torch": make("torch")}
                calls |= {"float32": make("float32")} if widened else {}
                for warm_up in calls.values():
                    warm_up()
                times = on_cpu(calls, options.threads, options.seconds)
                ms = {name: t.cpu if options.threads == 1 else t.wall for name, t in times.items()}
                slower = ms[taken] > TOLERANCE * min(ms.values())
                if taken != "torch":
                    won.append(ms["torch"] / ms[taken])
                    wrong += slower and min(ms, key=lambda name: ms[name]) != "own"
                missed += taken != "own" and ms[taken] > 1.1 * ms["own"]
                cells = [p.name, "NHWC" if channels_last else "NCHW", which, *(f"{t:.3g}" for t in ms.values())]
                print(f"| {' | '.join(cells)} | {taken}{' (slower)' if slower else ''} |", flush=True)
    mean = f", {statistics.geometric_mean(won):.3g} times as fast as torch (geometric mean)" if won else ""
    print(f"torch not taken {len(won)} times{mean}, more than 3 % slower than another choice {wrong} times", end="; ")
    print(f"own kernels not taken although 1.1 times as fast {missed} times")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
