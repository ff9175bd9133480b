"""Everything that needs a GPU, from a bare checkout to a table: python benchmarks/gpu_check.py [STAGE...]

Needs nvcc, cmake, ninja, pybind11, pytest, hypothesis, pytest-xdist and torch; downloads nothing. Each stage writes its
outcome to benchmarks/results/<device>/ as it ends, so a run that is cut off keeps what it has. --dry-run goes through
the same stages on a machine without a GPU: kernels are compiled for compute capability 9.0, the emulator stands in.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/gpu-check"
SITE = BUILD / "site"
NEEDS_GPU = "needs a GPU"
Facts = dict[str, Any]


class StageError(Exception):
    """A stage that did not pass."""


@dataclass
class Check:
    """One run: where results go, what stands in for the device, and when it has to end."""

    results: Path
    dry_run: bool
    capability: str  # such as "90"
    jobs: int
    end: float

    def command(
        self, stage: str, arguments: list[str], *, variables: dict[str, str] | None = None, seconds: float = 600
    ) -> str:
        """Run, with the output in the stage's log as it comes; returns the output."""
        log = self.results / f"{stage}.log"
        limit = self.end - time.monotonic() if self.dry_run else min(seconds, self.end - time.monotonic())
        if limit <= 1:
            raise StageError("no time left")
        environment = {**os.environ, "PYTHONPATH": f"{SITE}{os.pathsep}{ROOT}", "FASTVISION_EMULATED": ""}
        tools = Path(sys.executable).parent  # cmake and ninja, where pip has put them
        environment["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
        with log.open("a") as file:
            start = file.tell()
            try:
                done = subprocess.run(
                    arguments,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    cwd=ROOT,
                    env={**environment, **(variables or {})},
                    timeout=limit,
                )
            except subprocess.TimeoutExpired:
                raise StageError(f"cut off after {limit:.0f} s: {Path(arguments[0]).name}") from None
        output = log.read_bytes()[start:].decode(errors="replace")
        if done.returncode:
            tail = "\n".join(output.splitlines()[-25:])
            raise StageError(f"exit code {done.returncode}: {' '.join(arguments)[:120]}\n{tail}")
        return output

    def python(self, stage: str, *arguments: str, seconds: float = 600) -> str:
        return self.command(stage, [sys.executable, *arguments], seconds=seconds)

    def backend(self) -> str:
        return "emulated" if self.dry_run else "cuda"


def build(check: Check) -> Facts:
    """The library for this device alone, and the Python packages beside it."""
    import pybind11

    configure = ["cmake", "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", "-DFASTVISION_CUDA=ON"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    configure += [f"-DCMAKE_CUDA_ARCHITECTURES={check.capability}-real"]
    check.command("build", configure, variables={"CUDAARCHS": f"{check.capability}-real"})
    check.command("build", ["cmake", "--build", str(BUILD), f"-j{check.jobs}"])
    shutil.rmtree(SITE, ignore_errors=True)
    for package in ("fastvision", "fastvision_cli"):
        shutil.copytree(ROOT / "python" / package, SITE / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    check.command("build", ["cmake", "--install", str(BUILD), "--prefix", str(SITE)])
    shown = "import fastvision, json; print(json.dumps(fastvision.build_info()))"
    information = json.loads(check.python("build", "-c", shown).splitlines()[-1])
    if SITE not in Path(information["library"]).resolve().parents:
        raise StageError(f"an installed fastvision comes first: {information['library']}; uninstall it")
    return {key: value for key, value in information.items() if key != "library"}


def fragments(check: Check) -> Facts:
    """The emulator's own tests, compiled for the device: PTX wrappers, fragment layouts, warps, barriers, copies."""
    sources = [str(ROOT / f"tests/emulator/{name}.cu") for name in ("main", "threads", "memory", "fragments")]
    program = BUILD / "device_tests"
    compile_command = ["nvcc", "-std=c++20", f"-arch=sm_{check.capability}", "--expt-relaxed-constexpr", "-fmad=false"]
    compile_command += [f"-I{ROOT / 'csrc/kernels'}", *sources, "-o", str(program), "-t", str(check.jobs)]
    check.command("fragments", compile_command)
    if check.dry_run:
        program = emulated("emulator_tests")
    return {"cases": check.command("fragments", [str(program), "right"]).splitlines()[-1]}


def tests(check: Check) -> Facts:
    """The whole op test suite on the device."""
    report = check.results / "tests.xml"
    command = [sys.executable, "-m", "pytest", "tests/ops", "-q", "-k", check.backend(), f"--junitxml={report}"]
    command += ["-p", "no:cacheprovider", "-n", str(check.jobs), "-o", "addopts=", "--timeout=120"]
    variables = {"FASTVISION_EXAMPLES": "5" if check.dry_run else "25", "OMP_NUM_THREADS": "1"}
    if check.dry_run:
        variables["FASTVISION_EMULATED"] = str(emulated("_emulated"))
    try:
        check.command("tests", command, variables=variables, seconds=600 if check.dry_run else 180)
    finally:
        counts = junit_counts(report)
        report.unlink(missing_ok=True)
    if counts["skipped"] or not counts["tests"]:
        raise StageError(f"{counts['skipped']} of {counts['tests']} tests skipped: all of them have to run")
    return counts


def junit_counts(report: Path) -> dict[str, int]:
    total: Counter[str] = Counter(tests=0, failures=0, errors=0, skipped=0)
    if report.is_file():
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            total.update({key: int(suite.get(key, 0)) for key in total})
    return dict(total)


def checks(check: Check) -> Facts:
    """Determinism, streams, device guard, graph capture and replay, waits: see gpu_ops.py."""
    names = ("determinism",) if check.dry_run else ("determinism", "streams", "guard", "graphs", "waits")
    facts: Facts = {}
    problems = []
    for name in names:
        file = check.results / f"{name}.json"
        extra = ["--runs", "3" if check.dry_run else "100", "--backend", check.backend(), "--json", str(file)]
        try:
            variables = {"FASTVISION_EMULATED": str(emulated("_emulated")) if check.dry_run else ""}
            arguments = [sys.executable, "-m", "benchmarks.gpu_ops", name, *extra]
            check.command("checks", arguments, variables=variables, seconds=120)
        except StageError as error:
            problems.append(f"{name}: {error}")
        if file.is_file():
            facts[name] = dict(json.loads(file.read_text()))
            file.unlink()
    if problems:
        raise StageError("\n".join(problems))
    return facts


def emulated(target: str) -> Path:
    """The kernels compiled for the CPU, or the tests of the emulator."""
    sys.path.insert(0, str(ROOT / "tools"))
    import emulated as tool

    return tool.build(target=target)  # type: ignore[no-any-return]


def large(check: Check) -> Facts:
    """More than 2**31 elements."""
    if check.dry_run:
        return {"state": NEEDS_GPU}
    return {"cases": check.python("checks", "-m", "benchmarks.gpu_ops", "large", seconds=90).splitlines()}


def sanitizer(check: Check) -> Facts:
    """compute-sanitizer over one call of every op."""
    tool = shutil.which("compute-sanitizer")
    if check.dry_run or tool is None:
        return {"state": NEEDS_GPU if check.dry_run else "compute-sanitizer is not installed"}
    facts = {}
    for kind in ("memcheck", "racecheck"):
        command = [
            tool,
            "--tool",
            kind,
            "--error-exitcode",
            "9",
            "--kernel-name-exclude",
            "kernel_substring=2at6native",  # of mangled names: torch's own kernels
        ]
        command += [sys.executable, "-m", "benchmarks.gpu_ops", "once"]
        variables = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        output = check.command("sanitizer", command, variables=variables, seconds=100)
        facts[kind] = next((line for line in output.splitlines() if "SUMMARY" in line), "no summary")
    return facts


def benchmark(check: Check) -> Facts:
    """Every op against its floor and this machine's torchvision."""
    return _benchmark(check, "ops", 0.05, 150)


def models(check: Check) -> Facts:
    """Mask R-CNN and Faster R-CNN, whole, against torchvision's."""
    return _benchmark(check, "models", 1.0, 90)


def _benchmark(check: Check, suite: str, per_contestant: float, seconds: float) -> Facts:
    file = check.results / f"{suite}.json"
    where = ["--smoke", "--threads", "1"] if check.dry_run else ["--device", "cuda", "--seconds", str(per_contestant)]
    arguments = ["-m", "benchmarks", suite, *where, "--json", str(file)]
    output = check.python("models" if suite == "models" else "benchmark", *arguments, seconds=seconds)
    return {"table": output.splitlines()}


def facts(check: Check) -> Facts:
    """Registers and spills by ptxas, and the instructions of the kernels."""
    budget = check.python("facts", "tools/ptxas_budget.py").splitlines()[-1:]
    library, tool = SITE / "fastvision/_C.so", shutil.which("cuobjdump")
    if tool is None:
        return {"ptxas": budget, "sass": "cuobjdump is not installed"}
    dumped = subprocess.run([tool, "--dump-sass", str(library)], capture_output=True, text=True).stdout
    return {"ptxas": budget, "sass": instructions(dumped)}


def instructions(dumped: str) -> dict[str, dict[str, int]]:
    """For each kernel how many instructions of the kinds that tell how it moves and multiplies."""
    wide = r"(?:LDG|STG)\.E(?:\.\w+)*?\.128"
    kinds = re.compile(rf"({wide}|LDGSTS|LDG|STG|LDL|STL|HMMA|LDSM|RED|ATOMG|MUFU)\b")
    counts: dict[str, Counter[str]] = {}
    current: Counter[str] = Counter()
    for text in dumped.splitlines():
        if name := re.search(r"Function : (\S+)", text):
            current = counts.setdefault(name[1], Counter())
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)", text):
            current["all"] += 1
            kind = kinds.match(found[1])
            if kind:
                short = kind[1].split(".")[0]
                current[short + "128" if kind[1].endswith(".128") else short] += 1
    return {name: dict(count) for name, count in counts.items()}


STAGES: dict[str, Callable[[Check], Facts]] = {
    stage.__name__: stage for stage in (build, fragments, tests, checks, large, benchmark, models, sanitizer, facts)
}


def run_stage(check: Check, name: str) -> bool:
    """Run one stage and write down how it went."""
    (check.results / f"{name}.log").unlink(missing_ok=True)
    start = time.monotonic()
    outcome: Facts = {"stage": name, "state": "passed"}
    try:
        outcome |= STAGES[name](check)
    except StageError as error:
        outcome |= {"state": "failed", "error": str(error).splitlines()}
    outcome["seconds"] = round(time.monotonic() - start, 1)
    file = check.results / f"stage-{name}.json"
    file.write_text(without_paths(json.dumps(outcome, indent=1)) + "\n")
    log = check.results / f"{name}.log"
    if log.is_file():
        log.write_text(without_paths(log.read_text(errors="replace")))
    for line in outcome.get("error", []) if outcome["state"] == "failed" else outcome.get("table", []):
        print(f"    {line}")
    print(f"{name:12} {outcome['state']:14} {outcome['seconds']:7.1f} s", flush=True)
    return bool(outcome["state"] != "failed")


def without_paths(text: str) -> str:
    """Paths of this machine have no place in committed files."""
    for path, name in ((str(ROOT), "."), (sys.prefix, "PYTHON"), (str(Path.home()), "~")):
        text = text.replace(path, name) if len(path) > 1 else text
    return text


def device() -> tuple[str, str]:
    """File name and compute capability of the GPU."""
    import torch

    if not torch.cuda.is_available():
        sys.exit("error: torch sees no CUDA device; --dry-run goes without one")
    major, minor = torch.cuda.get_device_capability()
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-"), f"{major}{minor}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"default, and order: {' '.join(STAGES)}")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--limit", type=float, default=530, help="seconds for everything (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, help="instead of benchmarks/results/<device>")
    options = parser.parse_args()
    unknown = set(options.stages) - set(STAGES)
    if unknown:
        parser.error(f"unknown stage {', '.join(sorted(unknown))}; the stages are {', '.join(STAGES)}")
    name, capability = ("dry-run", "90") if options.dry_run else device()
    results = options.output or (BUILD / "results" if options.dry_run else ROOT / "benchmarks/results" / name)
    results.mkdir(parents=True, exist_ok=True)
    limit = 1e9 if options.dry_run else options.limit
    check = Check(results.resolve(), options.dry_run, capability, options.jobs, time.monotonic() + limit)
    print(f"{name}, compute capability {capability}, {options.jobs} jobs")
    passed = []
    for stage in options.stages or STAGES:
        passed.append(run_stage(check, stage))
        if stage == "build" and not passed[-1]:
            break
    print("all passed" if all(passed) else "FAILED")
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main())
