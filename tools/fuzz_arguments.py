"""Fuzzes the arguments of raw ops, guided by coverage: python tools/fuzz_arguments.py [OP ...] [--seconds 60]

Needs ``pip install atheris`` (libFuzzer) and g++. As tools/fuzz_ops.py damages good calls, but the bytes that libFuzzer
makes decide how, and it keeps those that reach new places in the bindings and CPU kernels, which are built with
coverage, AddressSanitizer and UndefinedBehaviorSanitizer. An input that breaks a promise ends the run with a report and
is kept in build/fuzz as crash-*; ``--input FILE`` repeats one.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emulated import ROOT, build_cpu, cpu_build_folder, environment
from fuzz_ops import ALLOCATION, all_ops, describe, draw_call, outcome
from libfuzzer import fuzz


class Bytes:
    """Numbers from libFuzzer's bytes, in place of random.Random; zeros after the last."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def randrange(self, n: int) -> int:
        size = 1 if n <= 2**8 else 2
        number = int.from_bytes(self.data[self.at : self.at + size], "little")
        self.at += size
        return number % n

    def choice(self, values: Sequence[Any]) -> Any:
        return values[self.randrange(len(values))]

    def random(self) -> float:
        return self.randrange(2**8) / 2**8


def child(options: argparse.Namespace) -> None:
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/ops")]
    import torch
    from fastvision import _lib
    from native_calls import native_calls

    warnings.simplefilter("ignore")  # of torch, about the conversions made here
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.set_num_threads(1)
    samples: dict[str, list[tuple[Any, ...]]] = {op: [] for op in options.ops}
    for op, arguments in native_calls():
        if op in samples:
            samples[op].append(arguments)

    def call(data: bytes) -> None:
        source = Bytes(data)
        op = source.choice(options.ops)
        arguments = draw_call(op, samples[op], source)
        if arguments is None:
            return
        if options.input:
            print(op, describe(arguments), flush=True)
        outcome(_lib.NAMESPACES[0], op, arguments)

    library = Path(_lib.__file__).parent / "_C.so"
    fuzz(ctypes.CDLL(str(library)), call, options.seconds, 128, options.input)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ops", nargs="*", help="raw ops; default: all")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--input", type=Path, help="repeat this one")
    options = parser.parse_args()
    options.ops = options.ops or all_ops()
    if "FASTVISION_FUZZ" in os.environ:  # in a process that has been started with the sanitizers' runtime
        child(options)
        return 0
    command, variables = build_cpu("guided")
    variables |= environment("address", cpu_build_folder("guided"), Path("stderr")) | {"FASTVISION_FUZZ": "1"}
    variables["ASAN_OPTIONS"] += ALLOCATION
    rest = ["--seconds", str(options.seconds), *(["--input", str(options.input)] if options.input else [])]
    return subprocess.run([*command, __file__, *rest, *options.ops], env={**os.environ, **variables}).returncode


if __name__ == "__main__":
    sys.exit(main())
