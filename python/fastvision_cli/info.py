"""``fastvision info``: what a bug report needs. Works when torch or the native library does not."""

import importlib
import importlib.util
import os
import platform
import re
import sys
from importlib import metadata
from types import ModuleType

from .errors import ENVIRONMENT, one_line

_LIBRARIES = re.compile(
    r"(fastvision|libtorch|libc10|libgomp|libiomp|libomp|libmkl|libcudart|libcuda|libcudnn|libnccl)"
)


def run() -> int:
    """Print everything, then the problems with what to do about each."""
    problems: list[str] = []
    torch = _try_import("torch", problems)
    numpy = _try_import("numpy", problems)
    fastvision = _try_import("fastvision", problems) if torch is not None else None
    if fastvision is not None:
        _try_import("fastvision._host", problems)
    _section("versions")
    _row("fastvision", f"{_version('fastvision')} in {_location('fastvision')}")
    _row("Python", f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}")
    _row(
        "torch",
        "cannot be imported" if torch is None else f"{torch.__version__} in {os.path.dirname(torch.__file__ or '')}",
    )
    _row("CUDA of torch", "unknown" if torch is None else torch.version.cuda or "none (CPU build)")
    _row("NumPy", "cannot be imported" if numpy is None else numpy.__version__)
    _row("Pillow", _version("pillow"))
    _row("safetensors", _version("safetensors"))
    _row("system", f"{platform.platform()}, {platform.machine()}, {os.cpu_count()} CPUs")
    _section("native library")
    working = _native_library(fastvision)
    _section("devices")
    _devices(torch, fastvision)
    _section("libraries in this process")
    for name, path in _loaded_libraries().items():
        _row(name, path)
    _section("optional packages")
    advice = _optional_packages()
    _section("problems")
    for problem in [*problems, *advice] or ["none"]:
        print(f"  - {problem}")
    if not working:
        print("error: fastvision does not work in this environment, see 'problems' above", file=sys.stderr)
    return 0 if working else ENVIRONMENT


def _try_import(name: str, problems: list[str]) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a broken installation fails in any way
        remedy = {
            "torch": "pip install torch",
            "numpy": "pip install numpy",
            "fastvision": "pip install --force-reinstall --no-deps fastvision",
            "fastvision._host": "pip install --force-reinstall --no-deps fastvision",
        }[name]
        problems.append(f"import {name}: {type(error).__name__}: {one_line(error)}. What to do: {remedy}")
        return None


def _native_library(fastvision: ModuleType | None) -> bool:
    if fastvision is None:
        _row("state", "cannot be loaded")
        package = importlib.util.find_spec("fastvision")
        for folder in (package.submodule_search_locations or []) if package else []:
            found = sorted(f for f in os.listdir(folder) if f.endswith(".so")) if os.path.isdir(folder) else []
            _row("found", f"{', '.join(found) or 'no library'} in {folder}")
        return False
    info = fastvision.build_info()
    host = "fastvision._host" in sys.modules
    _row("state", "loaded" if host else "_C is loaded, _host is not")
    _row("file", info["library"])
    _row("built with", f"torch {info['torch_built_with']}, {info['compiler']}")
    _row("needs", f"torch >= {info['torch_floor']} (ABI floor)")
    _row("CUDA inside", info["cuda"] or "none (CPU only)")
    _row("CUDA architectures", info["cuda_architectures"] or "none")
    _row("CPU kernels use", f"{info['cpu_isa']} (best of this machine: {info['cpu_isa_best']})")
    return host


def _devices(torch: ModuleType | None, fastvision: ModuleType | None) -> None:
    if torch is None:
        _row("unknown", "torch cannot be imported")
        return
    _row("CPU", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    if not torch.cuda.is_available():
        _row("CUDA", "no device that torch can use")
        return
    inside = fastvision is not None and fastvision.has_cuda()
    for i in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(i)
        used = "usable" if inside else "not usable: fastvision was built without CUDA"
        _row(f"CUDA {i}", f"{torch.cuda.get_device_name(i)}, compute capability {major}.{minor}, {used}")


def _loaded_libraries() -> dict[str, str]:
    """Shared libraries of torch, CUDA, OpenMP and fastvision in this process, by name. Linux only."""
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split(None, 5)[5].strip() for line in maps if line.count("/") and ".so" in line}
    except (OSError, IndexError):
        return {"unknown": "this system does not say"}
    return {os.path.basename(path): path for path in sorted(paths, key=os.path.basename) if _LIBRARIES.search(path)}


def _optional_packages() -> list[str]:
    """Prints each extra of the package and what of it is there; returns advice for the user-facing ones."""
    advice = []
    extras: dict[str, list[str]] = {}
    for requirement in _requirements():
        match = re.match(r"([\w.-]+)(\[[^]]*\])?[^;]*;.*extra == ['\"](\w+)['\"]", requirement)
        if match and not match[2]:
            extras.setdefault(match[3], []).append(match[1])
    for extra, packages in extras.items():
        states = {package: _version(package) for package in packages}
        _row(extra, ", ".join(f"{package} {state}" for package, state in states.items()))
        if extra == "demo" and "missing" in states.values():
            advice.append("'fastvision demo' needs more packages. What to do: pip install \"fastvision[demo]\"")
    if not extras:
        _row("unknown", "the package has no metadata here")
    return advice


def _requirements() -> list[str]:
    try:
        return metadata.requires("fastvision") or []
    except metadata.PackageNotFoundError:
        return []


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
    print(f"  {name + ':':<22} {value}")
