"""Runs emulator_tests (csrc/emulator/CMakeLists.txt), a program without Python or torch, in its three builds."""

import functools
import os
import re
import subprocess
from pathlib import Path

import emulated

VARIANTS = ("plain", "address", "thread")
SCHEDULES = (
    "forward 0 lazy",
    "reverse 0 lazy",
    "random 1 lazy",
    "random 2 lazy",
    "random 3 eager",
    "random 4 eager",
    "forward 0 eager",
)


@functools.cache
def program(variant: str) -> Path:
    return emulated.build(variant, "emulator_tests")


def run(variant: str, case: str, schedule: str) -> str:
    """What the case prints, with the sanitizer's findings if there are any; "right" if all is well."""
    command = [*(emulated.fixed_addresses() if variant == "thread" else []), str(program(variant)), case]
    variables = {**os.environ, "ASAN_OPTIONS": "", "UBSAN_OPTIONS": "print_stacktrace=1", "TSAN_OPTIONS": "exitcode=66"}
    done = subprocess.run(
        [*command, *schedule.split()], env=variables, capture_output=True, text=True, errors="replace", timeout=120
    )
    output = re.sub(r"^\d+ case\(s\)\n", "", done.stdout, flags=re.MULTILINE) + done.stderr
    if done.returncode < 0:
        output += f"signal {-done.returncode}"
    return output if output or done.returncode else "right"
