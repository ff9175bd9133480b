"""Looks for sizes at which a rival is faster: ``python -m benchmarks.sweep``.

Draws problems of the ops that torch or torchvision has too; most are small or odd, where the suite has those of real
models. Takes the times of the result, and of the result with its gradients, in turns in one process, and prints them
with the slower ones marked, and those whose results differ. On the CPU.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

import torch
from fastvision import ops
from torch import Tensor
from torch.nn import functional

from . import inputs
from .gradients import with_gradients
from .measure import on_cpu
from .rivals import torchvision
from .workload import TOLERANCES, compare

TOLERANCE = 1.03
Function = Callable[..., Any]


class Problem(NamedTuple):
    name: str
    ours: Function
    rival: Function
    tensors: tuple[Tensor, ...]  # that both take
    differentiable: bool = True  # by the first of them


def _both(name: str, *given: Any) -> tuple[Function, Function]:
    """Ours and torchvision's, of the arguments before ``given``."""
    ours, rival = getattr(ops, name), getattr(torchvision.ops, name)
    return lambda *tensors: ours(*tensors, *given), lambda *tensors: rival(*tensors, *given)


def _log(random: Random, low: int, high: int) -> int:
    return round(math.exp(random.uniform(math.log(low), math.log(high))))


def _floats(random: Random, dtype: torch.dtype, *shape: int, channels_last: bool = False) -> Tensor:
    return inputs.normal(shape, torch.device("cpu"), dtype, channels_last=channels_last, seed=random.randrange(1000))


def _map(name: str, channels_last: bool) -> str:
    return f"{name}, {'NHWC' if channels_last else 'NCHW'}"


def of_boxes(random: Random, dtype: torch.dtype) -> Iterator[Problem]:
    n, m = _log(random, 1, 20_000), _log(random, 1, 100)
    a, b, few = (torch.from_numpy(inputs.boxes(count, random.randrange(1000))).to(dtype) for count in (n, n, m))
    scores = _floats(random, dtype, n)
    yield Problem(f"nms {n}", *_both("nms", 0.5), (a, scores), False)
    yield Problem(f"batched_nms {n}", *_both("batched_nms", 0.5), (a, scores, torch.arange(n) % 20), False)
    for name in ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou"):
        yield Problem(f"{name} {n} x {m}", *_both(name), (a, few), False)
    for name in ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss"):
        yield Problem(f"{name} {n}", *_both(name, "sum"), (a, b))
    yield Problem(f"box_area {n}", *_both("box_area"), (a,), False)
    yield Problem(f"clip_boxes_to_image {n}", *_both("clip_boxes_to_image", (600, 800)), (a,), False)
    yield Problem(f"remove_small_boxes {n}", *_both("remove_small_boxes", 50.0), (a,), False)
    formats = random.choice(list(itertools.permutations(("xyxy", "xywh", "cxcywh"), 2)))
    yield Problem(f"box_convert {n}, {' to '.join(formats)}", *_both("box_convert", *formats), (a,), False)


def of_losses(random: Random, dtype: torch.dtype) -> Iterator[Problem]:
    shape = (_log(random, 1, 20_000), _log(random, 1, 90))
    x, target = _floats(random, dtype, *shape), (_floats(random, dtype, *shape) > 1.5).to(dtype)
    yield Problem(
        f"sigmoid_focal_loss {shape[0]} x {shape[1]}", *_both("sigmoid_focal_loss", 0.25, 2, "sum"), (x, target)
    )


def of_regions(random: Random, dtype: torch.dtype) -> Iterator[Problem]:
    images, size, bins, count = random.randint(1, 3), _log(random, 5, 200), random.randint(1, 14), _log(random, 1, 1000)
    most = min(4_000_000 // (images * size**2), 4_000_000 // (count * bins**2))
    channels, samples = max(1, min(_log(random, 1, 300), most)), random.randint(1, 3)
    rois = inputs.regions(count, torch.device("cpu"), images=images).to(dtype)
    given = (bins, size / inputs.WIDTH)
    maps = f"{images} x {channels} x {size} x {size}, {count} of {bins} x {bins}"
    for last in (False, True):
        x = _floats(random, dtype, images, channels, size, size, channels_last=last)
        for ratio in (samples, -1):
            name = _map(f"roi_align {maps}, sampling_ratio {ratio}", last)
            yield Problem(name, *_both("roi_align", *given, ratio), (x, rois))
        yield Problem(_map(f"roi_pool {maps}", last), *_both("roi_pool", *given), (x, rois))
    channels = max(1, channels // bins**2) * bins**2
    maps = f"{images} x {channels} x {size} x {size}, {count} of {bins} x {bins}"
    for last in (False, True):
        x = _floats(random, dtype, images, channels, size, size, channels_last=last)
        yield Problem(_map(f"ps_roi_align {maps}", last), *_both("ps_roi_align", *given), (x, rois))
        yield Problem(
            _map(f"ps_roi_pool {maps}", last),
            lambda x, rois: ops.ps_roi_pool(x, rois, *given, legacy_border=True),
            lambda x, rois: torchvision.ops.ps_roi_pool(x, rois, *given),
            (x, rois),
        )


def of_deformations(random: Random, dtype: torch.dtype) -> Iterator[Problem]:
    groups, offsets, size = random.choice((1, 1, 4)), random.choice((1, 1, 2, 4)), _log(random, 5, 60)
    kernel = random.choice((1, 3, 3, 5))
    channels, out = (4 * groups * _log(random, 1, 16) for _ in range(2))
    weight = _floats(random, dtype, out, channels // groups, kernel, kernel)
    offset = 2 * _floats(random, dtype, 1, 2 * offsets * kernel**2, size, size)
    mask = _floats(random, dtype, 1, offsets * kernel**2, size, size).sigmoid()
    name = f"{channels} x {size} x {size} -> {out}, {kernel} x {kernel}, groups {groups} and {offsets}"
    for last in (False, True):
        x = _floats(random, dtype, 1, channels, size, size, channels_last=last)
        calls = _both("deform_conv2d", None, 1, kernel // 2, 1, mask)
        yield Problem(_map(f"deform_conv2d {name}", last), *calls, (x, offset, weight))


def of_maps(random: Random, dtype: torch.dtype) -> Iterator[Problem]:
    images, size, kernel = random.randint(1, 4), _log(random, 7, 200), random.randint(2, 5)
    channels = max(1, min(_log(random, 1, 600), 4_000_000 // (images * size**2)))
    window = (kernel, random.randint(1, kernel), random.randint(0, kernel // 2))

    def product(x: Tensor) -> Tensor:
        rows = x.flatten(2)
        return rows @ rows.mT

    maps = f"{images} x {channels} x {size} x {size}"
    for last in (False, True):
        x = _floats(random, dtype, images, channels, size, size, channels_last=last)
        name = f"{maps}, kernel {window[0]}, stride {window[1]}, padding {window[2]}"
        yield Problem(
            _map(f"max_pool2d {name}", last),
            lambda x: ops.max_pool2d(x, *window),
            lambda x: functional.max_pool2d(x, *window),
            (x,),
        )
        yield Problem(_map(f"gram_matrix {maps}", last), ops.gram_matrix, product, (x,))


FAMILIES = (of_boxes, of_losses, of_regions, of_deformations, of_maps)


def problems(rounds: int, seed: int, dtype: torch.dtype) -> Iterator[Problem]:
    for turn in range(rounds):
        for family in FAMILIES:
            yield from family(Random(f"{seed} {turn} {family.__name__}"), dtype)


def _call(function: Function, tensors: tuple[Tensor, ...], gradient: bool) -> Callable[[], Any]:
    if not gradient:
        return lambda: function(*tensors)
    first, *others = tensors

    def of_first(x: Tensor) -> Tensor:
        result: Tensor = function(x, *others)
        return result

    return with_gradients(of_first, first, weight=torch.ones_like(of_first(first)))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.1, help="per contestant (default: 0.1)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64", "bfloat16", "float16"))
    parser.add_argument("--only", default="", help="problems with this in their name")
    parser.add_argument("--rounds", type=int, default=3, help="times that all ops are gone through (default: 3)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if torchvision is None:
        parser.error("needs torchvision")
    factors, different = [], 0
    dtype = getattr(torch, options.dtype)
    for problem in problems(options.rounds, options.seed, dtype):
        if options.only not in problem.name:
            continue
        for gradient in (False, True)[: 1 + problem.differentiable]:
            kind = " with gradient" if gradient else ""
            ours = _call(problem.ours, problem.tensors, gradient)
            result = ours()
            try:
                rival = _call(problem.rival, problem.tensors, gradient)
                expected = rival()
            except RuntimeError as error:  # such as a type that it does not have
                print(f"{problem.name}{kind}: rival: {error}", flush=True)
                continue
            gate = compare(result, expected, TOLERANCES[dtype])
            differs = gate.error > 10 * gate.limit  # both round
            times = on_cpu({"ours": ours, "rival": rival}, options.threads, options.seconds)
            own, other = times["ours"].wall, times["rival"].wall
            factors.append(other / own)
            note = "  slower" if own > TOLERANCE * other else ""
            note += f"  differs by {gate.error:.1e}" if differs else ""
            different += differs
            print(f"{problem.name}{kind}: {own:.4g} ms, rival {other:.4g}, {other / own:.2f}x{note}", flush=True)
    slower = sum(factor * TOLERANCE < 1 for factor in factors)
    print(f"{len(factors)} problems, more than 3 % slower in {slower}, different results in {different}")
    return int(different > 0)


if __name__ == "__main__":
    raise SystemExit(main())
