"""What every op owes on a GPU and a test on the CPU cannot show. Started by gpu_check.py, one check at a time:

python -m benchmarks.gpu_ops determinism|streams|guard|graphs|waits|large|once [--backend cuda|emulated]
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from fastvision import _lib, ops
from torch import Tensor

sys.path += [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "tests/ops")]

Call = Callable[[], Any]
Outcome = tuple[str, str]  # name of the op, "ok" or what is wrong


def move(value: Any, device: str) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device).requires_grad_(value.requires_grad)
    return [move(v, device) for v in value] if isinstance(value, list) else value


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for v in value for t in tensors(v)] if isinstance(value, (list, tuple)) else []


def calls_on(device: str) -> Iterator[tuple[str, Callable[..., Any], list[Tensor]]]:
    from public_calls import public_calls  # of tests/ops

    for name, function, arguments in public_calls():
        yield name, function, [move(a, device) for a in arguments]


def has_fixed_shape(function: Callable[..., Any], arguments: list[Tensor]) -> bool:
    """Whether the size of the result depends on shapes alone; such an op must not wait for the device."""
    try:
        function(*(a.to("meta") for a in arguments))
    except (RuntimeError, NotImplementedError):
        return False
    return True


def with_gradients(function: Callable[..., Any], arguments: list[Tensor]) -> list[Tensor]:
    """The result's tensors and, where there is one, the gradient of their sum."""
    leaves = [a.detach().requires_grad_(a.is_floating_point()) for a in arguments]
    try:
        results = tensors(function(*leaves))
        total = sum((r.double().sum() for r in results if r.requires_grad), torch.zeros(()))
        gradients: tuple[Any, ...] = ()
        if total.requires_grad:
            gradients = torch.autograd.grad(total, [t for t in leaves if t.requires_grad], allow_unused=True)
    except RuntimeError as error:
        if "no gradient" not in str(error):
            raise
        results, gradients = tensors(function(*arguments)), ()
    return [t.detach() for t in (*results, *gradients) if t is not None]


def same_bits(a: list[Tensor], b: list[Tensor]) -> bool:
    def bits(t: Tensor) -> Tensor:
        integers = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}
        return t.contiguous().view(integers[t.element_size()])

    return len(a) == len(b) and all(x.shape == y.shape and torch.equal(bits(x), bits(y)) for x, y in zip(a, b))


def determinism(device: str, runs: int) -> Iterator[Outcome]:
    for name, function, arguments in calls_on(device):
        first = with_gradients(function, arguments)
        different = sum(not same_bits(first, with_gradients(function, arguments)) for _ in range(runs - 1))
        yield name, "ok" if not different else f"{different} of {runs} runs differ from the first"


def streams(device: str, runs: int) -> Iterator[Outcome]:
    """On a stream of its own whose inputs are not ready yet: an op on another stream would read old memory."""
    for name, function, arguments in calls_on(device):
        expected = with_gradients(function, arguments)
        stream = torch.cuda.Stream()
        late = [torch.zeros_like(a) for a in arguments]
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(20_000_000)
            for empty, a in zip(late, arguments):
                empty.copy_(a)
            found = with_gradients(function, late)
        stream.synchronize()
        yield name, "ok" if same_bits(expected, found) else "wrong on a stream of its own"


def guard(device: str, runs: int) -> Iterator[Outcome]:
    """Tensors of another device than the current one."""
    if torch.cuda.device_count() < 2:
        yield "all", "not checked: one device"
        return
    for name, function, arguments in calls_on("cuda:0"):
        expected = with_gradients(function, arguments)
        found = with_gradients(function, [a.to("cuda:1") for a in arguments])
        right = same_bits([t.cpu() for t in expected], [t.cpu() for t in found])
        yield name, "ok" if right and all(t.device.index == 1 for t in found) else "wrong on the second device"


def graphs(device: str, runs: int) -> Iterator[Outcome]:
    """Captured with one input, replayed with another."""
    for name, function, arguments in calls_on(device):
        if not has_fixed_shape(function, arguments):
            continue
        place, other = [a.clone() for a in arguments], [a.flip(0).contiguous() for a in arguments]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            function(*place)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                result = function(*place)
        except RuntimeError as error:
            yield name, f"cannot be captured: {str(error).splitlines()[0][:80]}"
            return  # the failed capture leaves the device in no state for the others
        for inputs in (other, arguments):
            for to, value in zip(place, inputs):
                to.copy_(value)
            graph.replay()
            torch.cuda.synchronize()
            if not same_bits(tensors(result), tensors(function(*inputs))):
                yield name, "a replay differs"
                break
        else:
            yield name, "ok"


def waits(device: str, runs: int) -> Iterator[Outcome]:
    for name, function, arguments in calls_on(device):
        if not has_fixed_shape(function, arguments):
            continue
        function(*arguments)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            function(*arguments)
            outcome = "ok"
        except RuntimeError as error:
            outcome = f"waits for the device: {str(error).splitlines()[0][:80]}"
        finally:
            torch.cuda.set_sync_debug_mode("default")
        yield name, outcome


def once(device: str, runs: int) -> Iterator[Outcome]:
    """Forward and backward of everything, for a sanitizer to look at."""
    for name, function, arguments in calls_on(device):
        with_gradients(function, arguments)
        yield name, "ok"


def large(device: str, runs: int) -> Iterator[Outcome]:
    """More than 2**31 elements: the end of the result against the same computed alone."""

    def check(name: str, whole: Call, part: Call, last: Callable[[Tensor], Tensor]) -> Outcome:
        torch.cuda.empty_cache()
        result = whole()
        size, end = result.numel(), last(result).clone()
        del result
        return name, "ok" if same_bits([end], [part()]) else f"wrong at the end of {size} elements"

    g = torch.Generator(device).manual_seed(0)
    a, b = (torch.rand(n, 4, generator=g, device=device).cumsum(-1) for n in (65_536, 33_000))
    yield check("box_iou, result", lambda: ops.box_iou(a, b), lambda: ops.box_iou(a[-5:], b), lambda r: r[-5:])
    boxes = torch.rand(2200, 4, generator=g, device=device).cumsum(-1) * 300
    masks = torch.rand(2200, 1, 28, 28, generator=g, device=device)
    yield check(
        "paste_masks_in_image, result",
        lambda: ops.paste_masks_in_image(masks, boxes, (1000, 1000)),
        lambda: ops.paste_masks_in_image(masks[-5:], boxes[-5:], (1000, 1000)),
        lambda r: r[-5:],
    )
    rois = torch.rand(44_000, 4, generator=g, device=device).cumsum(-1) * 20
    rois = torch.cat([torch.zeros_like(rois[:, :1]), rois], 1)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.rand(1, 1024, 50, 84, generator=g, device=device).bfloat16().contiguous(memory_format=layout)
        yield check(
            f"roi_align, result, {layout}",
            lambda x=x: ops.roi_align(x, rois, 7, sampling_ratio=2),  # type: ignore[misc]
            lambda x=x: ops.roi_align(x, rois[-5:], 7, sampling_ratio=2),  # type: ignore[misc]
            lambda r: r[-5:],
        )
        shape = (1, 256, 2900, 2900)
        wide = torch.empty(shape, dtype=torch.bfloat16, device=device, memory_format=layout).normal_(generator=g)
        far = torch.tensor([[0.0, 2880.0, 2880.0, 2899.0, 2899.0]], device=device)
        near = far - torch.tensor([[0.0, 2800.0, 2800.0, 2800.0, 2800.0]], device=device)
        corner = wide[:, -8:, 2800:, 2800:].contiguous(memory_format=layout)
        result = ops.roi_align(wide, far, 7, sampling_ratio=2)[:, -8:]
        right = torch.allclose(result.float(), ops.roi_align(corner, near, 7, sampling_ratio=2).float(), atol=1e-2)
        yield f"roi_align, input, {layout}", "ok" if right else "wrong at the end of a large map"
        del wide, corner


CHECKS = {f.__name__: f for f in (determinism, streams, guard, graphs, waits, large, once)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--backend", choices=("cuda", "emulated"), default="cuda")
    parser.add_argument("--runs", type=int, default=100, help="for determinism")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.backend == "emulated":
        _lib.use_namespace("fastvision_emulated")
    outcomes: list[Outcome] = []
    for name, outcome in CHECKS[options.check]("cuda" if options.backend == "cuda" else "cpu", options.runs):
        print(f"{name:40} {outcome}", flush=True)
        outcomes.append((name, outcome))
        if options.json:
            options.json.write_text(json.dumps(outcomes, indent=1) + "\n")
    return int(any(outcome not in ("ok", "not checked: one device") for _, outcome in outcomes) or not outcomes)


if __name__ == "__main__":
    sys.exit(main())
