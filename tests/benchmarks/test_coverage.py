"""Every module of fastvision.ops that has a native op is measured."""

import ast
from pathlib import Path

import fastvision.ops
import pytest

from benchmarks import workload

OPS = Path(fastvision.ops.__file__).parent
UNMEASURED = {"device_errors"}  # reads a counter


def makes_native_op(node):
    return isinstance(node, ast.Call) and ast.unparse(node.func).startswith("_lib.Op[")


def names(tree):
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def public_functions(tree):
    return {n.name for n in tree.body if isinstance(n, ast.FunctionDef)} & set(fastvision.ops.__all__)


TREES = {file.stem: ast.parse(file.read_text()) for file in sorted(OPS.glob("*.py"))}
# Modules with an underscore hold the native ops of several public ones, which import them.
SHARED = {stem for stem, tree in TREES.items() if stem[0] == "_" and any(map(makes_native_op, ast.walk(tree)))}
NATIVE = [
    stem
    for stem, tree in TREES.items()
    if stem[0] != "_"
    and any(makes_native_op(n) or (isinstance(n, ast.ImportFrom) and n.module in SHARED) for n in ast.walk(tree))
]


def used(device):
    """Attributes that the modules with workloads for this device speak of, such as ``ops.box_iou``."""
    folder = Path(workload.__file__).parent / "ops"
    return set().union(*(names(ast.parse((folder / f"{op}.py").read_text())) for op in measured(device)))


def measured(device):
    return {op for op, _ in workload.find("ops", None, device)}


def test_finds_the_native_ops():
    assert {"box_iou", "conv2d", "conv_transpose2d", "device_errors", "ps_roi_pool"} <= set(NATIVE)
    assert "clip_boxes_to_image" not in NATIVE


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("module", sorted(set(NATIVE) - UNMEASURED))
def test_native_op_has_a_workload(module, device):
    functions = public_functions(TREES[module])
    assert functions
    assert functions & used(device)
