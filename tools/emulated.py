"""Builds the CUDA kernels for the CPU (csrc/emulator) and runs tests with them, under the sanitizers too."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "csrc/kernels"


def includes(path: Path) -> set[Path]:
    """The file and every file beside it or in csrc/kernels that it includes, directly or not."""
    seen, left = set(), {path}
    while left:
        seen.add(current := left.pop())
        for name in re.findall(r'^#include "(\w+\.\w+)"', current.read_text(), re.MULTILINE):
            left |= {next(f / name for f in (current.parent, KERNELS) if (f / name).is_file())} - seen
    return seen


def build_folder(variant: str) -> Path:
    """Where a variant is built: "plain", "address", "thread" or "coverage"."""
    return ROOT / "build" / ("emulated" if variant == "plain" else f"emulated-{variant}")


def build(variant: str = "plain", target: str = "_emulated") -> Path:
    """Builds the library of the emulated ops, or the tests of the emulator; returns its path."""
    folder = build_folder(variant)
    folder.mkdir(parents=True, exist_ok=True)
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
    configure += ["-DFASTVISION_EMULATED=ON", f"-DFASTVISION_SANITIZE={'' if variant == 'plain' else variant}"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}"]
    with open(folder / ".lock", "w") as lock:  # test processes may ask for the same build at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (configure, ["cmake", "--build", str(folder), "--target", target]):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"building {target} ({variant}) failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return folder / (f"{target}.so" if target == "_emulated" else target)


def build_cpu(variant: str) -> Path:
    """Builds the package's own libraries with sanitizers; returns a folder with a package that uses them."""
    folder = ROOT / "build" / f"cpu-{variant}"
    site = folder / "site"
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", f"-DFASTVISION_SANITIZE={variant}"]
    pybind11 = subprocess.check_output([sys.executable, "-m", "pybind11", "--cmakedir"], text=True).strip()
    configure += ["-DFASTVISION_CUDA=OFF", f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11}"]
    shutil.rmtree(site, ignore_errors=True)
    for command in (
        configure,
        ["cmake", "--build", str(folder)],
        ["cmake", "--install", str(folder), "--prefix", site],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"building with {variant} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "python/fastvision", site / "fastvision", ignore=ignored, dirs_exist_ok=True)
    return site


def compiler(variant: str) -> str:
    cache = (build_folder(variant) / "CMakeCache.txt").read_text()
    found = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.*)$", cache, re.MULTILINE)
    assert found
    return found[1]


def runtime_library(variant: str, name: str) -> str:
    """Path of a library of the compiler, for LD_PRELOAD: a sanitizer must be there before anything else."""
    path = subprocess.check_output([compiler(variant), f"-print-file-name={name}"], text=True).strip()
    return str(Path(path).resolve())


def environment(variant: str, log: Path) -> dict[str, str]:
    """The variables under which a Python process can load a library of this variant. Reports go to ``log``.<pid>."""
    if variant == "address":
        options = f"detect_leaks=0:abort_on_error=1:log_path={log}"  # abort: pytest then names the test
        preload = f"{runtime_library(variant, 'libasan.so')} {runtime_library(variant, 'libstdc++.so')}"
        return {"LD_PRELOAD": preload, "ASAN_OPTIONS": options, "UBSAN_OPTIONS": f"print_stacktrace=1:{options}"}
    if variant == "thread":
        return {
            "LD_PRELOAD": runtime_library(variant, "libtsan.so"),
            "TSAN_OPTIONS": f"exitcode=0:log_path={log}",
            "FASTVISION_RACE_LOG": str(log),  # tests/conftest.py blames the test
            "OMP_NUM_THREADS": "1",  # ThreadSanitizer does not see how torch's own threads synchronise
        }
    return {}


def fixed_addresses() -> list[str]:
    """ThreadSanitizer cannot start where the kernel moves memory about by more than 28 bits."""
    bits = Path("/proc/sys/vm/mmap_rnd_bits")
    return ["setarch", "-R"] if bits.is_file() and int(bits.read_text()) > 28 else []


def pytest_command(variant: str, library: Path, log: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    command = [*(fixed_addresses() if variant == "thread" else []), sys.executable, "-m", "pytest", "-k", "emulated"]
    variables = {**os.environ, "FASTVISION_EMULATED": str(library), **environment(variant, log)}
    return [*command, "-q", "-p", "no:cacheprovider", *arguments], variables
