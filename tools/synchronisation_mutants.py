"""Proves that the tests notice a missing barrier: python tools/check_kernels.py mutants.

Removes one __syncthreads, __syncwarp, __threadfence, cp_async_commit or cp_async_wait at a time, compiles that file
alone, and runs the tests of the op until one fails: in every thread order, with copies early and late, and under
ThreadSanitizer at last. A mutant that survives is either a hole in the tests or an operation that is not needed; the
latter is better removed. Where it must stay, the line says so: ``// mutant survives: reason``.
"""

import json
import random
import re
import shlex
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from emulated import KERNELS, ROOT, build, build_folder, includes, pytest_command

SYNCHRONISATION = re.compile(
    r"\b(?:__syncthreads|__syncwarp|__threadfence(?:_block|_system)?|cp_async_commit|cp_async_wait(?:_all)?(?:<[^;>]*>)?)"
    r"\([^;(){}]*\);"
)
REASON = re.compile(r"// mutant survives: (.+)")
# Thread orders (an even seed and an odd one draw differently), early and late copies, few blocks (seeds 8 to 15) and
# many: each finds mutants that the others do not.
SCHEDULES = ("forward 8 lazy", "reverse 0 lazy", "random 1 lazy", "random 10 lazy", "random 9 eager", "random 2 eager")
RACE_SCHEDULES = ("random 1 lazy", "forward 8 lazy")
SECONDS = 300  # a mutant that runs longer hangs


@dataclass(frozen=True)
class Mutant:
    path: Path
    begin: int
    end: int

    @property
    def line(self) -> int:
        return self.path.read_text().count("\n", 0, self.begin) + 1

    def __str__(self) -> str:
        text = self.path.read_text()
        return f"{self.path.relative_to(ROOT)}:{self.line}: {text[self.begin : self.end]}"

    @property
    def reason(self) -> str | None:
        found = REASON.search(self.path.read_text().splitlines()[self.line - 1])
        return found[1] if found else None

    def text(self) -> str:
        original = self.path.read_text()
        return original[: self.begin] + ";" + original[self.end :]


def find_mutants(paths: list[Path]) -> list[Mutant]:
    mutants = []
    for path in paths:
        for found in SYNCHRONISATION.finditer(path.read_text()):
            start_of_line = path.read_text().rfind("\n", 0, found.start()) + 1
            if "//" not in path.read_text()[start_of_line : found.start()]:
                mutants.append(Mutant(path, *found.span()))
    return mutants


def kernels_of(path: Path) -> list[Path]:
    return [kernel for kernel in sorted(KERNELS.glob("*.cu")) if path in includes(kernel)]


class Builder:
    """Builds the emulated library with one file replaced: compiles what depends on it, links it with all the rest."""

    def __init__(self, variant: str) -> None:
        build(variant)
        self.folder = build_folder(variant)
        self.compile = {}
        for entry in json.loads((self.folder / "compile_commands.json").read_text()):
            if "_emulated.dir" in entry["output"]:
                self.compile[Path(entry["file"])] = shlex.split(entry["command"])
        listed = subprocess.check_output(["ninja", "-C", self.folder, "-t", "commands", "_emulated.so"], text=True)
        self.link = listed.strip().splitlines()[-1]

    def mutated(self, mutant: Mutant, work: Path) -> Path:
        copy = work / "csrc/kernels"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(KERNELS, copy)
        (work / "csrc/emulator").symlink_to(ROOT / "csrc/emulator")
        (copy / mutant.path.name).write_text(mutant.text())
        library = work / "_emulated.so"
        replaced = {"_emulated.so": str(library)}
        for kernel in kernels_of(mutant.path):
            command = [str(copy / kernel.name) if part == str(kernel) else part for part in self.compile[kernel]]
            output = command.index("-o") + 1
            replaced[command[output]] = command[output] = str(work / f"{kernel.name}.o")
            self._run(shlex.join(command))
        link = " ".join(replaced.pop(part, part) for part in self.link.split(" "))
        assert not replaced, f"not in the link command: {replaced}"
        self._run(link)
        return library

    def _run(self, command: str) -> None:
        done = subprocess.run(command, shell=True, cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command}:\n{done.stderr}")


class Trials:
    def __init__(self, examples: int) -> None:
        self.examples = examples
        self.plain = Builder("plain")
        self.thread = Builder("thread")
        self.originals_pass: dict[tuple[str, str], bool] = {}
        self.lock = threading.Lock()

    def fails(self, variant: str, library: Path, test: Path, schedule: str, log: Path) -> bool:
        arguments = ["-x", "--hypothesis-profile=mutants", str(test)]
        command, variables = pytest_command(variant, library, log, *arguments)
        variables |= {"FASTVISION_SCHEDULE": schedule, "FASTVISION_EXAMPLES": str(self.examples)}
        try:
            done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return True
        if done.returncode in (2, 3, 4, 5):  # pytest itself failed, or there is no test
            raise RuntimeError(f"{shlex.join(command)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.returncode != 0

    def killer(self, mutant: Mutant, work: Path) -> str | None:
        """What shows that this mutant is wrong, or None."""
        tests = [ROOT / "tests/ops" / f"test_{kernel.stem}.py" for kernel in kernels_of(mutant.path)]
        for variant, builder, schedules in (
            ("plain", self.plain, SCHEDULES),
            ("thread", self.thread, RACE_SCHEDULES),
        ):
            library = builder.mutated(mutant, work / variant)
            for schedule in schedules:
                for test in tests:
                    if self.fails(variant, library, test, schedule, work / "report"):
                        self.check_original(variant, test, schedule)
                        return schedule if variant == "plain" else "ThreadSanitizer"
        return None

    def check_original(self, variant: str, test: Path, schedule: str) -> None:
        """A failure counts only where the kernel as it is passes."""
        library, log = build_folder(variant) / "_emulated.so", build_folder(variant) / "original"
        with self.lock:
            if (variant, f"{test} {schedule}") not in self.originals_pass:
                failed = self.fails(variant, library, test, schedule, log)
                self.originals_pass[variant, f"{test} {schedule}"] = not failed
        if not self.originals_pass[variant, f"{test} {schedule}"]:
            raise RuntimeError(f"{test} fails without any mutation ({variant}, schedule {schedule})")


def run_mutants(
    files: list[str], examples: int, workers: int, draw: tuple[int | None, int], limit: float | None
) -> int:
    """Tries all mutants of these kernel files (default: all), or as many as ``draw`` (number, seed) says."""
    paths = [Path(file).resolve() for file in files] or sorted(KERNELS.glob("*.cu*"))
    mutants = find_mutants(paths)
    total, (sample, seed) = len(mutants), draw
    if sample is not None and sample < total:
        mutants = random.Random(seed).sample(mutants, sample)
        print(f"{sample} of {total} mutants, --seed {seed}")
    trials, begin = Trials(examples), time.monotonic()
    survivors, untried = [], []

    def attempt(numbered: tuple[int, Mutant]) -> None:
        number, mutant = numbered
        if limit is not None and time.monotonic() - begin > limit:
            untried.append(mutant)
            return
        work = ROOT / "build/mutants" / str(number)
        killer = trials.killer(mutant, work)
        shutil.rmtree(work, ignore_errors=True)
        if killer is None and mutant.reason is None:
            survivors.append(mutant)
        found = f"found by {killer}" if killer else f"survives: {mutant.reason or 'NOT FOUND'}"
        print(f"{mutant}  {found}", flush=True)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(attempt, enumerate(mutants)))
    print(
        f"{len(mutants) - len(untried)} mutants tried, {len(survivors)} survive"
        + f", {len(untried)} not tried" * bool(untried)
    )
    return 1 if survivors else 0
