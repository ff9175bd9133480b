"""An installation loads quickly, says what is wrong with a broken one, survives fork and keeps its layers apart."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fastvision
import pytest
import torch

ROOT = Path(__file__).parents[1]
ACCEPTED_IMPORTS = {  # of a package within fastvision: the packages that it may build on
    "ops": {"_lib", "_host"},
    "nn": {"_lib", "ops"},
    "models": {"ops", "nn"},
    "metrics": {"_host", "ops"},
    "data": set(),
    "engine": set(),
    "interop": {"_lib", "ops", "models"},
}


def python(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env={**os.environ, **variables}
    )


def test_import_adds_little_to_that_of_torch():
    program = """
import json, time, torch
start = time.process_time()
import fastvision
print(json.dumps([time.process_time() - start, fastvision.has_cuda()]))
"""
    best = min(json.loads(python(program).stdout)[0] for _ in range(3))
    assert best < 0.3
    if torch.version.cuda is None:
        assert fastvision.has_cuda() is False


@pytest.mark.parametrize("damage", ["removed", "truncated"])
def test_a_broken_library_is_an_error_that_names_it(tmp_path, damage):
    copy = tmp_path / "fastvision"
    shutil.copytree(Path(fastvision.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    library = copy / "_C.so"
    if damage == "truncated":
        library.write_bytes(Path(fastvision.build_info()["library"]).read_bytes()[:100])
    # -S: an editable install would find its own library; the paths of the installed packages are put back by hand.
    program = f"import sys; sys.path[:0] = {[str(tmp_path), *sys.path]!r}; import fastvision"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, timeout=60)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert str(library) in last
    assert "fastvision doctor" in last


def test_data_loader_workers_may_call_ops_after_a_fork():
    program = """
import torch
from fastvision import ops

torch.set_num_threads(2)
boxes = torch.rand(3000, 4).cumsum(1)
scores = torch.rand(3000)
expected = ops.nms(boxes, scores, 0.5)

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        torch.set_num_threads(2)
        return ops.nms(boxes, scores, 0.5)

loader = torch.utils.data.DataLoader(Data(), num_workers=4, batch_size=None, multiprocessing_context="fork")
assert all(torch.equal(keep, expected) for keep in loader)
print("done")
"""
    done = python(program)
    assert done.stdout.strip() == "done", done.stderr


def test_kernels_know_nothing_of_torch_and_bindings_use_the_stable_interface():
    for path in sorted((ROOT / "csrc").rglob("*")):
        if path.suffix not in (".h", ".cpp", ".cu", ".cuh"):
            continue
        includes = re.findall(r"^\s*#\s*include\s*[<\"]([^>\"]+)", path.read_text(), re.MULTILINE)
        layer = path.relative_to(ROOT / "csrc").parts[0]
        outside = [i for i in includes if re.match(r"(torch|ATen|c10|pybind11|Python\.h|numpy)", i)]
        if layer == "kernels":
            assert not outside, path
        if layer == "torch":
            assert all(
                i.startswith(("torch/csrc/stable/", "torch/headeronly/", "torch/csrc/inductor/aoti_torch/c/"))
                for i in outside
            ), (path, outside)


@pytest.mark.parametrize("package", ACCEPTED_IMPORTS)
def test_packages_build_only_on_those_below(package):
    for path in sorted((ROOT / "python/fastvision" / package).rglob("*.py")):
        if path == ROOT / "python/fastvision/ops/__init__.py":
            continue  # re-exports the modules that torchvision.ops has
        depth = len(path.relative_to(ROOT / "python/fastvision").parts)
        for dots, module, names in re.findall(r"^\s*from (\.+)([\w.]*) import (.*)$", path.read_text(), re.MULTILINE):
            if len(dots) < depth:
                continue  # within the package
            used = [module.split(".")[0]] if module else re.findall(r"\w+", names)
            assert set(used) <= ACCEPTED_IMPORTS[package] | {package}, f"{path}: {dots}{module} {names}"


def test_emulator_is_in_no_installation():
    installed = Path(fastvision.build_info()["library"]).parent
    assert not list(installed.rglob("*emulat*"))
