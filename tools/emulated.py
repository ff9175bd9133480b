"""Builds the CUDA kernels for the CPU (csrc/emulator) and runs tests with them, under the sanitizers too."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
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


def cpu_build_folder(variant: str) -> Path:
    return ROOT / "build" / f"cpu-{variant}"


def build_cpu(variant: str) -> tuple[list[str], dict[str, str]]:
    """Builds the package's own libraries with sanitizers; the command and variables of a Python that imports them."""
    folder = cpu_build_folder(variant)
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
    # -S: an editable installation would put its own library first.
    path = os.pathsep.join([str(site), str(ROOT / "tools"), sysconfig.get_path("purelib")])
    return [sys.executable, "-S"], {"PYTHONPATH": path}


def compiler(folder: Path) -> str:
    """Of a folder in which something was built."""
    cache = (folder / "CMakeCache.txt").read_text()
    found = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.*)$", cache, re.MULTILINE)
    assert found
    return found[1]


def runtime_library(folder: Path, name: str) -> str:
    """Path of a library of the compiler, for LD_PRELOAD: a sanitizer must be there before anything else."""
    path = subprocess.check_output([compiler(folder), f"-print-file-name={name}"], text=True).strip()
    return str(Path(path).resolve())


def environment(variant: str, folder: Path, log: Path) -> dict[str, str]:
    """The variables under which Python can load a library of this variant built there. Reports go to ``log``.<pid>."""
    if variant == "address":
        options = f"detect_leaks=0:abort_on_error=1:log_path={log}"  # abort: pytest then names the test
        preload = f"{runtime_library(folder, 'libasan.so')} {runtime_library(folder, 'libstdc++.so')}"
        return {"LD_PRELOAD": preload, "ASAN_OPTIONS": options, "UBSAN_OPTIONS": f"print_stacktrace=1:{options}"}
    if variant == "thread":
        return {
            "LD_PRELOAD": runtime_library(folder, "libtsan.so"),
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
    """For the tests of the backend "emulated", with an emulated library."""
    variables = {**os.environ, "FASTVISION_EMULATED": str(library), **environment(variant, build_folder(variant), log)}
    return _pytest(variant, [sys.executable], "emulated", *arguments), variables


def cpu_pytest_command(variant: str, log: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """For the tests of the backend "cpu", with libraries built for them."""
    python, variables = build_cpu(variant)
    variables |= {"FASTVISION_EMULATED": str(build()), **environment(variant, cpu_build_folder(variant), log)}
    return _pytest(variant, python, "cpu", *arguments), {**os.environ, **variables}


def _pytest(variant: str, python: list[str], backend: str, *arguments: str) -> list[str]:
    command = [*(fixed_addresses() if variant == "thread" else []), *python, "-m", "pytest", "-k", backend]
    return [*command, "-q", "-p", "no:cacheprovider", *arguments]
