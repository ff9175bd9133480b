"""Every case in a process of its own: no signal, no hang, and the outcome that the case states."""

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


def cases():
    found = []
    for name in sorted(path.stem for path in HERE.glob("cases_*.py")):
        module = importlib.import_module(name)
        functions = inspect.getmembers(module, inspect.isfunction)
        own = [f for n, f in functions if f.__module__ == name and list(inspect.signature(f).parameters) == ["b"]]
        found += [(name, f.__name__) for f in own]
    return found


@pytest.fixture(scope="module")
def runner():
    process = subprocess.Popen(
        [sys.executable, HERE / "runner.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE
    )
    yield process
    process.stdin.close()
    process.wait()


@pytest.mark.parametrize("name", ["cpu", "emulated"])
@pytest.mark.parametrize(("module", "case"), cases(), ids=[case for _, case in cases()])
def test_case(runner, module, case, name):
    runner.stdin.write(f"{module} {case} {name}\n")
    runner.stdin.flush()
    result = json.loads(runner.stdout.readline())
    assert result["outcome"] == "passed", result["detail"]
