"""``fastvision info``: what a bug report needs. Works when torch or the native library does not."""

import importlib
import importlib.util
import os
import platform
import re
import sys
from importlib import metadata
from types import ModuleType

from .errors import ENVIRONMENT, CommandError, one_line

_LIBRARIES = re.compile(r"libtorch|libc10|libgomp|libiomp|libomp|libmkl|libcudart|libcuda|libcudnn|libnccl")


def run() -> int:
    """Print everything, then the problems with what to do about each."""
    problems: list[str] = []
    torch = _try_import("torch", problems)
    numpy = _try_import("numpy", problems)
    fastvision = _try_import("fastvision", problems) if torch is not None and numpy is not None else None
    info: dict[str, str] | None = fastvision.build_info() if fastvision is not None else None
    _section("versions")
    _row("fastvision", f"{_version('fastvision')} in {_location('fastvision')}")
    _row("Python", f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}")
    _row("torch", _imported("torch", torch))
    _row("CUDA of torch", "unknown" if torch is None else torch.version.cuda or "none (CPU build)")
    _row("NumPy", _imported("numpy", numpy))
    _row("Pillow", _version("pillow"))
    _row("safetensors", _version("safetensors"))
    _row("system", f"{platform.platform()}, {os.cpu_count()} CPUs")
    _section("native library")
    _native_library(info)
    _section("devices")
    _devices(torch, info, problems)
    _section("libraries in this process")
    for path in _loaded_libraries():
        print(f"  {path}")
    _section("optional packages")
    _optional_packages(problems)
    if info is not None and info["missing"]:
        problems.append(info["missing"])
    _section("problems")
    for problem in problems or ["none"]:
        print(f"  - {problem}")
    if fastvision is None:
        raise CommandError(ENVIRONMENT, "fastvision does not work in this environment, see 'problems' above")
    return 0


def _try_import(name: str, problems: list[str]) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a broken installation fails in any way
        remedy = {
            "torch": "pip install torch",
            "numpy": "pip install numpy",
            "fastvision": "pip install --force-reinstall --no-deps fastvision",
        }[name]
        problems.append(f"import {name}: {type(error).__name__}: {one_line(error)}. What to do: {remedy}")
        return None


def _native_library(info: dict[str, str] | None) -> None:
    if info is None:
        _row("state", "not loaded")
        package = importlib.util.find_spec("fastvision")
        for folder in (package.submodule_search_locations or []) if package else []:
            found = sorted(f for f in os.listdir(folder) if f.endswith(".so")) if os.path.isdir(folder) else []
            _row("found", f"{', '.join(found) or 'no library'} in {folder}")
        return
    _row("state", "loaded")
    _row("files", info["library"])
    _row("", info["host_library"])
    _row("built with", f"torch {info['torch_built_with']}, {info['compiler']}")
    _row("needs", f"torch >= {info['torch_floor']} (ABI floor)")
    _row("CUDA inside", info["cuda"] or "none (built for CPUs; GPUs need a build from source where nvcc is found)")
    _row("CUDA architectures", info["cuda_architectures"] or "none")
    _row("CPU kernels use", f"{info['cpu_isa']} (best of this machine: {info['cpu_isa_best']})")
    _row("CPU multiplies", f"bfloat16 in {info['cpu_bfloat16']}, float16 in {info['cpu_float16']}")


def _devices(torch: ModuleType | None, info: dict[str, str] | None, problems: list[str]) -> None:
    if torch is None:
        _row("unknown", "torch cannot be imported")
        return
    _row("CPU", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    if not torch.cuda.is_available():
        _row("CUDA", "no device that torch can use")
        if torch.version.cuda is not None:
            problems.append("CUDA: torch is built for it and finds no device. What to do: check the driver, nvidia-smi")
        return
    inside = [int(number) for number in re.findall(r"\d+", info["cuda_architectures"])] if info else []
    for i in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(i)
        usable = bool(inside) and 10 * major + minor >= min(inside)
        used = "usable" if usable else "not usable: no kernels for it inside"
        _row(f"CUDA {i}", f"{torch.cuda.get_device_name(i)}, compute capability {major}.{minor}, {used}")
        if inside and not usable:
            problems.append(
                f"CUDA {i}: compute capability {major}.{minor} is below that of the kernels inside. What to do: build "
                f"from source with CUDAARCHS={major}{minor}"
            )


def _loaded_libraries() -> list[str]:
    """Shared libraries of torch, CUDA, OpenMP and fastvision in this process. Linux only."""
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split(None, 5)[5].strip() for line in maps if line.count("/") and ".so" in line}
    except (OSError, IndexError):
        return ["unknown: this system does not say"]
    return sorted(path for path in paths if _LIBRARIES.search(os.path.basename(path)) or "/fastvision/" in path)


def _optional_packages(problems: list[str]) -> None:
    """Each extra of the package and what of it is there."""
    extras: dict[str, list[str]] = {}
    for requirement in _requirements():
        match = re.match(r"([\w.-]+)(\[[^]]*\])?[^;]*;.*extra == ['\"](\w+)['\"]", requirement)
        if match and not match[2]:
            extras.setdefault(match[3], []).append(match[1])
    for extra, packages in extras.items():
        states = {package: _version(package) for package in packages}
        _row(extra, ", ".join(f"{package} {state}" for package, state in states.items()))
        if extra == "demo" and "missing" in states.values():
            problems.append("'fastvision demo' needs more packages. What to do: pip install \"fastvision[demo]\"")
    if not extras:
        _row("unknown", "the package has no metadata here")


def _requirements() -> list[str]:
    try:
        return metadata.requires("fastvision") or []
    except metadata.PackageNotFoundError:
        return []


def _imported(name: str, module: ModuleType | None) -> str:
    if module is None:
        return f"{_version(name)}, cannot be imported"
    return f"{module.__version__} in {os.path.dirname(module.__file__ or '')}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _location(package: str) -> str:
    spec = importlib.util.find_spec(package)
    return os.path.dirname(spec.origin) if spec and spec.origin else "an unknown place"


def _section(title: str) -> None:
    print(f"{title}:")


def _row(name: str, value: object) -> None:
    print(f"  {name + ':' if name else '':<20} {value}")
