"""Tests the CUDA kernels on the CPU (csrc/emulator/README.md says what each command finds).

python tools/check_kernels.py address    the op tests under AddressSanitizer and UndefinedBehaviorSanitizer
python tools/check_kernels.py thread     the op tests under ThreadSanitizer
python tools/check_kernels.py coverage   the op tests, then every line of every kernel that they have not executed
python tools/check_kernels.py mutants    removes every barrier, fence and wait in turn: each time some test must fail

With --cpu, address and thread test the CPU kernels in the same way, in tasks on threads that ThreadSanitizer can see.
Needs g++ with its sanitizers and gcov, cmake and ninja. Ends with 1 if something is found.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from emulated import (
    KERNELS,
    ROOT,
    build,
    build_folder,
    compiler,
    cpu_build_folder,
    cpu_pytest_command,
    pytest_command,
)
from synchronisation_mutants import run_mutants


def run_tests(variant: str, paths: list[str], examples: int, workers: int, *, cpu: bool = False) -> int:
    reports = (cpu_build_folder if cpu else build_folder)(variant) / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    log = reports / "report"
    if cpu:  # one worker: pytest-xdist starts others without -S
        command, variables = cpu_pytest_command(variant, log, *paths)
    else:
        parallel = ["-n", str(workers)] if workers > 1 else []
        command, variables = pytest_command(variant, build(variant), log, *parallel, *paths)
    code = subprocess.run(command, env=variables | {"FASTVISION_EXAMPLES": str(examples)}, cwd=ROOT).returncode
    for report in sorted(reports.iterdir()):
        print(f"\n{report}:\n{report.read_text(errors='replace')[:6000]}")
    return 1 if code or list(reports.iterdir()) else 0


def unexecuted_lines(folder: Path) -> dict[Path, list[int]]:
    """By kernel file, the lines that no instantiation executed. A line can opt out by a comment GCOV_EXCL_LINE: why."""
    counts: dict[Path, dict[int, int]] = {path: {} for path in sorted(KERNELS.glob("*.cu*"))}
    data = [path for path in folder.glob("csrc/emulator/CMakeFiles/_emulated.dir/**/*.gcda") if ".cu." in path.name]
    gcov = subprocess.check_output([compiler(build_folder("coverage")), "-print-prog-name=gcov"], text=True).strip()
    documents = subprocess.check_output([gcov, "--json-format", "--stdout", *map(str, data)], text=True, cwd=folder)
    for document in documents.splitlines():
        for file in json.loads(document)["files"]:
            of_file = counts.get((folder / file["file"]).resolve(), {})
            for line in file["lines"]:
                number = line["line_number"]
                of_file[number] = of_file.get(number, 0) + line["count"]
    missing = {}
    for path, of_file in counts.items():
        text = path.read_text().splitlines()
        missing[path] = [n for n, count in sorted(of_file.items()) if not count and "GCOV_EXCL_LINE" not in text[n - 1]]
        if path.suffix == ".cu" and not of_file:
            raise RuntimeError(f"{path}: no coverage data")
    return missing


def coverage(paths: list[str], examples: int) -> int:
    for old in build_folder("coverage").glob("**/*.gcda"):
        old.unlink()
    code = run_tests("coverage", paths, examples, 1)
    missing = unexecuted_lines(build_folder("coverage"))
    for path, lines in missing.items():
        text = path.read_text().splitlines()
        for number in lines:
            print(f"{path.relative_to(ROOT)}:{number}: never executed: {text[number - 1].strip()}")
    print(f"{len(missing)} files, {sum(map(len, missing.values()))} lines never executed")
    return 1 if code or any(missing.values()) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("address", "thread", "coverage", "mutants"))
    parser.add_argument("paths", nargs="*", help="tests to run (of mutants: kernel files); default: all")
    parser.add_argument("--cpu", action="store_true", help="address, thread: the CPU kernels instead")
    parser.add_argument("--examples", type=int, help="hypothesis examples per test (100; thread and mutants 25)")
    parser.add_argument("--workers", type=int, default=2, help="test processes at a time (2)")
    parser.add_argument("--sample", type=int, help="mutants: only so many, drawn at random")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="mutants: of the draw (the time)")
    parser.add_argument("--limit", type=float, help="mutants: start no more after so many seconds")
    options = parser.parse_intermixed_args()
    if options.cpu and options.command not in ("address", "thread"):
        parser.error(f"--cpu: expected with address or thread, got {options.command}")
    examples = options.examples or (25 if options.command in ("thread", "mutants") else 100)
    if options.command == "mutants":
        draw = (options.sample, options.seed)
        return run_mutants(options.paths, examples, options.workers, draw, options.limit)
    paths = options.paths or ["tests/ops"]
    if options.command == "coverage":
        return coverage(paths, examples)
    return run_tests(options.command, paths, examples, options.workers, cpu=options.cpu)


if __name__ == "__main__":
    sys.exit(main())
