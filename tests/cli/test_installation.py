"""Copies of the package, some of them damaged: what importing it and ``fastvision info`` say."""

import ctypes
import platform
import re
import shutil
from pathlib import Path

import fastvision
import fastvision_cli
import pytest
import torch
from shell import run, run_python

# The copy stands before any finder that an editable installation has put in front.
FROM_COPY = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if getattr(f, "__module__", f.__class__.__module__) in
                    ("_frozen_importlib", "_frozen_importlib_external", "importlib._bootstrap")]
sys.path.insert(0, {folder!r})
"""
IMPORT = FROM_COPY + "import fastvision; print(fastvision.__file__)"
INFO = FROM_COPY + "from fastvision_cli import main; sys.exit(main(['doctor']))"
HOST = Path(fastvision.build_info()["host_library"])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The folder of a whole copy."""
    for package in (fastvision, fastvision_cli):
        source = Path(package.__file__ or "").parent
        ignored = shutil.ignore_patterns("__pycache__", "assets", "*.so")
        shutil.copytree(source, tmp_path / source.name, ignore=ignored)
    shutil.copy(fastvision.build_info()["library"], tmp_path / "fastvision/_C.so")
    shutil.copy(HOST, tmp_path / "fastvision" / HOST.name)
    return tmp_path


def test_a_whole_copy_works(copy):
    result = run_python(IMPORT.format(folder=str(copy))).succeeded()
    assert result.out.strip() == str(copy / "fastvision/__init__.py")


def remove(path):
    path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("library", ["_C.so", HOST.name])
@pytest.mark.parametrize("damage", [remove, truncate])
def test_a_broken_library_is_named_with_the_remedy(copy, library, damage):
    broken = copy / "fastvision" / library
    damage(broken)
    result = run_python(IMPORT.format(folder=str(copy)))
    assert result.code == 1
    last = result.err.splitlines()[-1]
    assert last.startswith("ImportError: fastvision's native library ")
    assert str(broken) in last
    with pytest.raises(OSError) as loader:
        ctypes.CDLL(str(broken))
    assert "missing" in last if damage is remove else str(loader.value) in last
    assert "pip install --force-reinstall --no-deps fastvision" in last
    assert "fastvision doctor" in last

    result = run_python(INFO.format(folder=str(copy)))
    result.failed(4, "see 'problems' above")
    assert f"torch:               {torch.__version__} in " in result.out
    problem = result.out[result.out.index("problems:") :]
    assert "import fastvision: ImportError: " in problem
    assert str(broken) in problem
    assert "What to do: pip install" in problem


def test_too_old_a_torch_is_named(copy):
    program = FROM_COPY + "import torch; torch.__version__ = '2.9.1'; import fastvision"
    last = run_python(program.format(folder=str(copy))).err.splitlines()[-1]
    floor = fastvision.build_info()["torch_floor"]
    assert last == f"ImportError: fastvision needs torch >= {floor}, found 2.9.1: pip install --upgrade torch"


def test_import_is_quick_and_silent():
    program = "import time, torch; start = time.process_time(); import fastvision; print(time.process_time() - start)"
    results = [run_python(program).succeeded() for _ in range(3)]
    assert min(float(result.out) for result in results) < 0.3
    assert [result.err for result in results] == [""] * 3


def test_what_the_processor_multiplies_is_what_the_kernel_of_linux_says():
    built = fastvision.build_info()
    found = {name: built[f"cpu_{name}"] for name in ("bfloat16", "float16")}
    if platform.machine() != "x86_64":
        assert found == {"bfloat16": "unknown", "float16": "unknown"}
        return
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1].split()
    for name, short in (("bfloat16", "bf16"), ("float16", "fp16")):
        vectors = f"avx512_{short}" in flags and built["cpu_isa_best"] == "avx512"
        assert found[name] == ("matrices" if f"amx_{short}" in flags else "vectors" if vectors else "float32")


@pytest.mark.parametrize("name", ["info", "doctor"])
def test_info_of_a_healthy_installation(name):
    result = run(name).succeeded()
    assert result.err == ""
    built = fastvision.build_info()
    assert bool(built["missing"]) == (bool(built["cuda"]) != bool(built["torch_cuda"]))
    for text in (
        f"torch:               {torch.__version__} in ",
        f"torch >= {built['torch_floor']} (ABI floor)",
        f"CPU kernels use:     {built['cpu_isa']} (best of this machine: {built['cpu_isa_best']})",
        f"CPU multiplies:      bfloat16 in {built['cpu_bfloat16']}, float16 in {built['cpu_float16']}",
        f"CUDA inside:         {built['cuda'] or 'none'}",
        f"CUDA architectures:  {built['cuda_architectures'] or 'none'}",
        f"  {built['library']}\n",
        f"  {built['host_library']}\n",
        "libtorch_cpu.so\n",
        "demo:                jinja2 ",
        f"problems:\n  - {built['missing'] or 'none'}\n",
    ):
        assert text in result.out


def test_info_says_what_is_missing():
    assert "install a CUDA build of torch" in fastvision._lib._missing("13.0", "")
    assert "-Ccmake.define.FASTVISION_CUDA=ON" in fastvision._lib._missing("", "13.0")
    program = "import importlib.metadata as m, sys; of = m.version\n" + (
        "def version(name):\n    if name == 'matplotlib': raise m.PackageNotFoundError\n    return of(name)\n"
        "m.version = version; from fastvision_cli import main; sys.exit(main(['info']))"
    )
    out = run_python(program).succeeded().out
    assert "matplotlib missing" in out
    assert 'What to do: pip install "fastvision[demo]"' in out
