"""Compiles every CUDA kernel with nvcc and compares what ptxas reports with ptxas_budget.json.

python tools/ptxas_budget.py           fails where a kernel needs more registers than its budget, or spills
python tools/ptxas_budget.py --write   sets the budgets to what was measured; read the difference before you commit it

A line of the budget is for all instantiations of a kernel with one element type, or kind of box, on compute capability
8.0 and 9.0: {"registers": per thread, "spill_bytes": stores and loads, 0 if left out}. More registers mean fewer
threads at a time and spills mean memory traffic, so both cost speed that no test on a CPU can see.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from emulated import KERNELS, ROOT, includes

BUDGET = Path(__file__).with_suffix(".json")
FLAGS = ["-std=c++20", "-O3", "-DNDEBUG", "-fmad=false", "--expt-relaxed-constexpr", "-Xptxas=-v"]  # as CMakeLists.txt
FLAGS += [f"-I{KERNELS}"]
FLAGS += [f"-gencode=arch=compute_{architecture},code=sm_{architecture}" for architecture in (80, 90)]
ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<architecture>\w+)'\n"
    r".*Function properties for (?P=name)\n"
    r" *(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
    r".*Used (?P<registers>\d+) registers(?:.*?(?P<shared>\d+) bytes smem)?"
)


@dataclass
class Usage:
    registers: int = 0
    spill_bytes: int = 0
    stack_bytes: int = 0
    shared_bytes: int = 0

    def worst(self, other: "Usage") -> "Usage":
        return Usage(*(max(pair) for pair in zip(asdict(self).values(), asdict(other).values())))


def nvcc() -> str | None:
    return os.environ.get("CUDACXX") or shutil.which("nvcc")


def short_name(demangled: str) -> str:
    """``nms_kernel<float>`` of ``void fastvision::(anonymous namespace)::nms_kernel<256, float>(...)``."""
    plain = demangled.replace("(anonymous namespace)::", "").replace("fastvision::", "")
    parts = re.match(r"(?:void )?(\w+)(?:<(.*?)>)?\(", plain)
    assert parts, demangled
    element = re.search(r"\b(RotatedBox<\w+>|float|double|Half|BFloat16)", parts[2] or "")
    return parts[1] + (f"<{element[1]}>" if element else "")


def parse(report: str) -> dict[str, Usage]:
    kernels: dict[str, Usage] = {}
    for found in ENTRY.finditer(report):
        demangled = subprocess.check_output(["c++filt", found["name"]], text=True)
        spilled = int(found["stores"]) + int(found["loads"])
        usage = Usage(int(found["registers"]), spilled, int(found["stack"]), int(found["shared"] or 0))
        name = short_name(demangled)
        kernels[name] = kernels.get(name, Usage()).worst(usage)
    if len(ENTRY.findall(report)) != report.count("Compiling entry function"):
        raise RuntimeError("ptxas reports in a form that is not understood:\n" + report[:2000])
    return kernels


def measure(kernel: Path) -> dict[str, Usage]:
    """What each kernel of a file uses at most; compiles only if the file, its headers or nvcc have changed."""
    compiler = nvcc()
    assert compiler
    version = subprocess.check_output([compiler, "--version"])
    sources = b"".join(path.read_bytes() for path in sorted(includes(kernel)))
    key = hashlib.sha256(version + " ".join(FLAGS).encode() + sources).hexdigest()[:16]
    cached = ROOT / "build/ptxas" / f"{kernel.stem}-{key}.txt"
    if not cached.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        output = cached.with_suffix(".o")
        done = subprocess.run(
            [compiler, *FLAGS, "-c", str(kernel), "-o", str(output)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{kernel.name}: nvcc failed:\n{done.stderr[:4000]}")
        output.unlink()
        cached.with_suffix(".tmp").write_text(done.stderr)
        cached.with_suffix(".tmp").rename(cached)
    return parse(cached.read_text())


def line(name: str, usage: Usage) -> str:
    registers = -(-usage.registers // 8) * 8  # the hardware hands them out by eights
    spill = f', "spill_bytes": {usage.spill_bytes}' if usage.spill_bytes else ""
    return f'"{name}": {{"registers": {registers}{spill}}}'


def check(kernel: Path) -> list[str]:
    """What is wrong with the kernels of this file, in words."""
    budgets = json.loads(BUDGET.read_text()).get(kernel.stem, {})
    measured, problems = measure(kernel), []
    for name, usage in measured.items():
        budget = budgets.get(name)
        if budget is None:
            problems.append(f"{kernel.stem}: no budget in {BUDGET.name}; add {line(name, usage)}")
            continue
        for what, most in (("registers", budget["registers"]), ("spill_bytes", budget.get("spill_bytes", 0))):
            if (used := getattr(usage, what)) > most:
                problems.append(f"{kernel.stem}: {name}: {used} {what}, the budget is {most}")
    problems += [
        f"{kernel.stem}: {name} is no more; remove its budget" for name in sorted(set(budgets) - set(measured))
    ]
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if nvcc() is None:
        print("no nvcc: nothing is checked")
        return 1
    kernels = sorted(KERNELS.glob("*.cu"))
    with ThreadPoolExecutor(2) as pool:
        measured = dict(zip(kernels, pool.map(measure, kernels)))
    for kernel, usages in measured.items():
        for name, usage in sorted(usages.items()):
            numbers = ", ".join(f"{value} {what}" for what, value in asdict(usage).items())
            print(f"{kernel.stem}: {name}: {numbers}")
    if options.write:
        lines = (
            f'  "{kernel.stem}": {{\n    ' + ",\n    ".join(line(*entry) for entry in sorted(usages.items())) + "\n  }"
            for kernel, usages in measured.items()
        )
        BUDGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    problems = [problem for kernel in kernels for problem in check(kernel)]
    print("\n".join(problems or ["all within the budget"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
