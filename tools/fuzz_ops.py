"""Calls every raw op with arguments that nobody should give it: python tools/fuzz_ops.py [--variant address]

A call starts from a good one (tests/ops/native_calls.py), with one to three arguments replaced or damaged: other ranks,
sizes, dtypes, strides and devices, NaN, infinite, huge and negative values, missing lists. It may raise; it may not
end the process, take more than half a minute, or give other results from the CPU kernels than from the emulated CUDA
kernels. With ``--variant address`` both are built with AddressSanitizer and UndefinedBehaviorSanitizer. A finding is
printed with the op and the number of the call, which ``OP --first NUMBER --calls 1`` repeats.
"""

import argparse
import faulthandler
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from emulated import ROOT, build, build_cpu, build_folder, environment

SECONDS = {"plain": 30, "address": 120}  # of a call on both backends; sanitizers take their time
DIFFERENT = 3  # exit code of a process that went through all calls; a timeout or an exception ends with 1
# The product of a call's sizes. Some gradients are a block of threads per weight, or per few pixels.
LABOUR = {"conv2d_weight_gradient": 2**9, "ps_roi_pool_backward": 2**12, "ps_roi_align_backward": 2**12}
LABOUR_OF_OTHERS = 2**19
LIMIT_MB = 1024  # what a call may ask for; more is an error that it must raise
ALLOCATION = f":allocator_may_return_null=1:max_allocation_size_mb={LIMIT_MB}"  # for AddressSanitizer
INTEGERS = [
    -(2**63),
    -(2**31) - 1,
    -1,
    0,
    1,
    2,
    3,
    5,
    7,
    8,
    16,
    33,
    255,
    256,
    257,
    4096,
    2**31,
    2**40,
    2**62,
    2**63 - 1,
]
FLOATS = [0.0, -0.0, 0.5, 1.0, -1.0, 2.0, 0.01, 1e-30, 1e30, -1e30, 1e300, math.inf, -math.inf, math.nan]
# Given an arg-max that no forward pass gave, each backend adds the gradient to other pixels, all of them inside.
NOT_COMPARED = {"roi_pool_backward", "roi_align_max_backward"}
# Sums of products that overflow, or nearly, are infinite, NaN or not, by the order and the rounding of the additions.
SUMS = {"gram_matrix", "gram_loss", "conv2d", "conv_transpose2d", "conv2d_weight_gradient"}
SUMS |= {"separable_conv2d", "deform_conv2d"}
SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 16, 17, 33, 65]


class Draw:
    """Arguments of one call, all from one source of random numbers."""

    def __init__(self, source: Any) -> None:
        """``source``: as random.Random, as far as it is used here."""
        import torch

        self.torch, self.random = torch, source
        self.generator = torch.Generator().manual_seed(source.randrange(2**16))
        self.floats = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
        self.dtypes = [*self.floats, torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64]

    def damage(self, value: Any) -> Any:
        torch, pick = self.torch, self.random.choice
        if isinstance(value, torch.Tensor):
            return pick([self.resize, self.retype, self.poison, self.restride, self.replace, self.elsewhere])(value)
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return pick([*INTEGERS, value + 1, value - 1, value])
        if isinstance(value, float):
            return pick([*FLOATS, value * 2, -value])
        if isinstance(value, list):
            value = list(value)
            kind = pick(["drop", "repeat", "element", "empty"])
            if kind == "empty" or not value:
                return []
            place = self.random.randrange(len(value))
            if kind == "element":
                value[place] = self.damage(value[place])
            return value[:-1] if kind == "drop" else [*value, value[place]] if kind == "repeat" else value
        return value

    def replace(self, _: Any) -> Any:
        shape = [self.random.choice(SIZES) for _ in range(self.random.randrange(6))]
        while math.prod(shape) > 2**16:
            shape.pop()
        return self.values(shape).to(self.random.choice(self.dtypes))

    def values(self, shape: list[int]) -> Any:
        scale = self.random.choice([1.0, 1.0, 10.0, 100.0, 1e6, 1e20])
        return (self.torch.rand(shape, generator=self.generator, dtype=self.torch.float64) - 0.25) * scale

    def resize(self, t: Any) -> Any:
        if t.dim() == 0 or self.random.random() < 0.2:
            return self.random.choice([lambda: t[None], lambda: t.flatten(), lambda: t.sum()])()
        if t.is_meta:
            return t[:0]
        axis, shape = self.random.randrange(t.dim()), list(t.shape)
        shape[axis] = self.random.choice(SIZES)
        bigger = self.values(shape).to(t.dtype)
        inside = tuple(slice(0, min(a, b)) for a, b in zip(shape, t.shape))
        bigger[inside] = t.detach()[inside]
        return bigger

    def retype(self, t: Any) -> Any:
        return t.detach().to(self.random.choice(self.dtypes))

    def poison(self, t: Any) -> Any:
        """A few values, or all of them, that a kernel may not expect."""
        t = t.detach().clone()
        if t.is_meta or t.dtype == self.torch.bool or t.numel() == 0 or t.is_complex():
            return t
        places = self.torch.randint(t.numel(), (self.random.choice([1, 2, t.numel()]),), generator=self.generator)
        if t.is_floating_point():
            choices = [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e4, 1e30, -1e30, 2.0**31, 2.0**63, 1e-40, 0.5]
        else:
            limits = self.torch.iinfo(t.dtype)
            choices = [limits.min, limits.max, max(limits.min, -1), 0, 1, 7, 100]
        flat = t.reshape(-1)
        flat[places] = self.torch.tensor([self.random.choice(choices) for _ in places]).to(t.dtype)
        return flat.view(t.shape)

    def restride(self, t: Any) -> Any:
        t = t.detach()
        kind = self.random.choice(["transposed", "expanded", "strided", "shifted", "channels_last", "flipped"])
        if kind == "transposed" and t.dim() > 1:
            return t.transpose(0, -1)
        if kind == "expanded" and t.numel():
            return t.reshape(-1)[:1].expand(t.numel()).as_strided(t.shape, [0] * t.dim())
        if kind == "strided":
            return self.torch.stack([t, t], -1)[..., 0]
        if kind == "channels_last" and t.dim() == 4:
            return t.contiguous(memory_format=self.torch.channels_last)
        if kind == "flipped" and t.dim():
            return t.flip(0)
        if t.is_meta:
            return t
        flat = t.new_zeros(t.numel() + 1)
        flat[1:] = t.reshape(-1)
        return flat[1:].view(t.shape)

    def elsewhere(self, t: Any) -> Any:
        return t.to("meta") if self.random.random() < 0.3 else self.poison(t)


def draw_call(op: str, samples: list[tuple[Any, ...]], source: Any) -> list[Any] | None:
    """None: of too much work."""
    import torch

    draw = Draw(source)
    arguments = list(source.choice(samples))
    arguments = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]
    for _ in range(source.choice([1, 1, 1, 2, 3])):
        place = source.randrange(len(arguments))
        arguments[place] = draw.damage(arguments[place])
    return None if is_laborious(op, arguments) else arguments


def call_of(op: str, samples: list[tuple[Any, ...]], number: int) -> list[Any]:
    source = random.Random(number)
    while (arguments := draw_call(op, samples, source)) is None:
        pass
    return arguments


def is_laborious(op: str, arguments: list[Any]) -> bool:
    """Whether sizes ask for fair work, within the memory's limit, that would take the emulator minutes."""
    numbers = [n for a in arguments for n in (a if isinstance(a, list) else [a]) if type(n) is int]
    return math.prod(n for n in numbers if 1 < n <= 2**20) > LABOUR.get(op, LABOUR_OF_OTHERS)


def describe(value: Any) -> str:
    import torch

    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{tuple(value.shape)} stride {value.stride()} on {value.device}"
    return f"[{', '.join(map(describe, value))}]" if isinstance(value, list) else repr(value)


def outcome(namespace: str, op: str, arguments: list[Any]) -> Any:
    import torch

    try:
        result = getattr(getattr(torch.ops, namespace), op).default(*arguments)
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        return error  # torch.OutOfMemoryError is a RuntimeError
    return list(result) if isinstance(result, tuple | list) else [result]


def difference(op: str, cpu: Any, cuda: Any) -> str | None:
    """What is wrong with two outcomes of one call."""
    import torch

    if isinstance(cpu, Exception) or isinstance(cuda, Exception):
        if isinstance(cpu, Exception) and isinstance(cuda, Exception):
            return None
        if isinstance(cpu, Exception) and "in row" in str(cpu):
            return None  # an index out of range: CUDA gives zeros and counts it
        return f"the CPU gives {cpu!r:.300}, CUDA {cuda!r:.300}"
    for a, b in zip(cpu, cuda, strict=True):
        if a.device.type == "meta":
            continue
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"the CPU gives {describe(a)}, CUDA {describe(b)}"
        if a.is_floating_point():
            if op in SUMS:
                a, b = (t.where(t.abs() < torch.finfo(t.dtype).max / 4, math.nan) for t in (a, b))
            scale = a.double().abs().nan_to_num(0, 0, 0).max().item() if a.numel() else 0
            tolerance = {torch.float64: 1e-9, torch.float32: 1e-4}.get(a.dtype, 2e-2) * max(scale, 1e-30)
            if not torch.allclose(a.double(), b.double(), rtol=1e-2, atol=tolerance, equal_nan=True):
                worst = (a.double() - b.double()).abs().nan_to_num(math.inf).max().item()
                return f"results differ by {worst} at a scale of {scale}"
    return None


def child(options: argparse.Namespace) -> int:
    """Calls the ops; the file of the progress tells the parent which call was the last."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/ops")]
    import torch
    from fastvision import _lib
    from native_calls import native_calls

    if options.variant == "plain":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_MB * 2**20, resource.RLIM_INFINITY))
    warnings.simplefilter("ignore")  # of torch, about the conversions made here
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.set_num_threads(2)
    differences, first = 0, options.first if options.resume is None else options.resume
    with open(options.progress, "r+b") as progress:
        for op in options.ops:
            samples, found = [arguments for name, arguments in native_calls() if name == op], 0
            for number in range(first, options.first + options.calls):
                arguments = call_of(op, samples, number)
                progress.seek(0)
                progress.write(f"{op} call {number}: {describe(arguments)}"[:4000].ljust(4000).encode())
                progress.flush()
                faulthandler.dump_traceback_later(SECONDS[options.variant], exit=True)
                outcomes = [outcome(namespace, op, arguments) for namespace in _lib.NAMESPACES]
                faulthandler.cancel_dump_traceback_later()
                compared = len(outcomes) == 2 and op not in NOT_COMPARED
                wrong = difference(op, *outcomes) if compared else None
                if wrong:
                    found += 1
                    print(f"{op} call {number}: {wrong}\n  {describe(arguments)}", flush=True)
                if found == 5:
                    break
            differences, first = differences + found, options.first
    return DIFFERENT if differences else 0


def all_ops() -> list[str]:
    program = (
        f"import sys; sys.path[:0] = {[str(ROOT / 'tests'), str(ROOT / 'tests/ops')]!r}; "
        "from native_calls import native_calls; print(*dict(native_calls()))"
    )
    return subprocess.check_output([sys.executable, "-c", program], text=True).split()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ops", nargs="*", help="raw ops; default: all")
    parser.add_argument("--calls", type=int, default=10_000, help="calls of each op (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first call, which seeds it")
    parser.add_argument("--variant", choices=("plain", "address"), default="plain")
    parser.add_argument("--progress", help=argparse.SUPPRESS)
    parser.add_argument("--resume", type=int, help=argparse.SUPPRESS)  # number of the first call of the first op
    options = parser.parse_args()
    if options.progress:
        return child(options)

    variables = {"FASTVISION_EMULATED": str(build()), **os.environ}
    command = [sys.executable]
    report = build_folder(options.variant) / "fuzz-report"
    if options.variant == "address":
        command, cpu_variables = build_cpu("address")
        variables |= {"FASTVISION_EMULATED": str(build("address")), **cpu_variables}
        variables |= environment("address", build_folder("address"), report)
        variables["ASAN_OPTIONS"] += ALLOCATION
    command += [__file__, "--variant", options.variant, "--first", str(options.first), "--calls", str(options.calls)]
    failed, left, resume = False, options.ops or all_ops(), options.first
    while left:
        with tempfile.NamedTemporaryFile() as progress:
            rest = ["--resume", str(resume), "--progress", progress.name, *left]
            code = subprocess.run([*command, *rest], env=variables).returncode
            last = progress.read().decode().strip()
        failed |= code != 0
        if code in (0, DIFFERENT):
            break
        print(f"ended with exit code {code} in {last}", flush=True)
        if not last:
            break
        op, _, number = last.split(":")[0].split()
        left, resume = left[left.index(op) :], int(number) + 1
    for path in report.parent.glob("fuzz-report.*"):
        print(path.read_text(errors="replace")[:4000])
        path.unlink()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
