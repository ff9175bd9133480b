"""Real torchvision beside this torch, also where torch has no CUDA.

torchvision's library from PyPI names libc10_cuda.so, libtorch_cuda.so and libcudart.so, of which its CPU operators use
nothing. Beside a torch without CUDA, libraries of these names with empty functions, made here with the C compiler,
satisfy the loader.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch


def _undefined_symbols(library: Path) -> list[str]:
    listing = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
    return sorted({line.split()[-1].split("@")[0] for line in listing.stdout.splitlines() if line.strip()})


def _definition(symbol: str) -> str:
    if symbol.endswith("9allocatorE"):  # a variable
        return f"void* {symbol}[8];"
    if symbol.startswith(("__cudaRegister", "__cudaUnreg", "__cudaInit")):  # called while loading
        return f"static void* handle_{symbol}[64]; void* {symbol}(void) {{ return handle_{symbol}; }}"
    if "device_count" in symbol:
        return f"int {symbol}(void) {{ return 0; }}"
    return f"void {symbol}(void) {{ abort(); }}"


def _load_stand_ins(library: Path) -> None:
    symbols = _undefined_symbols(library)
    runtime = re.search(r"libcudart\.so\.\d+", library.read_bytes().decode("latin-1"))
    assert runtime, "torchvision's library does not name libcudart"
    stand_ins = {
        "libc10_cuda.so": [s for s in symbols if re.search(r"NK?3c104cuda|N2at4cuda", s)],
        "libtorch_cuda.so": [],
        runtime[0]: [s for s in symbols if s.startswith(("cuda", "__cuda"))],
    }
    folder = Path(tempfile.mkdtemp())
    for name, defined in stand_ins.items():
        source = folder / "stand_in.c"
        source.write_text("\n".join(["#include <stdlib.h>", "int present;", *map(_definition, defined)]))
        options = []
        if name.startswith("libcudart"):
            (folder / "versions").write_text(f"{name} {{ global: *; }};")
            options = [f"-Wl,--version-script={folder / 'versions'}"]
        command = ["cc", "-shared", "-fPIC", "-w", "-o", folder / name, source, f"-Wl,-soname,{name}", *options]
        subprocess.run(command, check=True)
        ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)


@cache
def load_torchvision() -> ModuleType:
    """torchvision with its real operators; skips where it is missing, unless FASTVISION_REQUIRE_TORCHVISION is set."""
    missing = None
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        missing = "torchvision is not installed: pip install torchvision"
    else:
        wanted = [r for r in importlib.metadata.requires("torchvision") or [] if r.startswith("torch==")]
        version = torch.__version__.split("+")[0]
        if wanted and not wanted[0].startswith(f"torch=={version}"):
            missing = f"the torchvision installed needs {wanted[0]}, this is torch {torch.__version__}"
    if missing:
        if os.environ.get("FASTVISION_REQUIRE_TORCHVISION"):
            pytest.fail(missing)
        pytest.skip(missing)
    if torch.version.cuda is None:
        assert spec is not None
        assert spec.submodule_search_locations
        if "torchvision" not in sys.modules:
            for name in [name for name in sys.modules if name.startswith("torchvision.")]:
                del sys.modules[name]  # left by an import that failed without the stand-ins
        _load_stand_ins(Path(spec.submodule_search_locations[0]) / "_C.so")
    import torchvision

    assert torchvision.extension._has_ops()
    return torchvision
