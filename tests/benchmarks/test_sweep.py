import re
from types import SimpleNamespace

import pytest
import torch
from fastvision import ops

from benchmarks import sweep


@pytest.fixture(autouse=True)
def rival(monkeypatch):
    """In place of torchvision, which need not be there."""
    monkeypatch.setattr(sweep, "torchvision", SimpleNamespace(ops=ops))


def test_problems_are_the_same_for_the_same_seed():
    first, again, other = (
        [(p.name, [t.shape for t in p.tensors]) for p in sweep.problems(2, seed, torch.float32)] for seed in (0, 0, 1)
    )
    assert first == again != other
    assert len({name for name, _ in first}) > 40


def test_prints_a_line_per_problem_and_how_many_are_slower(capsys):
    assert sweep.main(["--rounds", "1", "--seconds", "0.001", "--only", "_iou"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 10  # four kinds, and three of them as losses, with and without gradients
    assert all(re.search(r": \S+ ms, rival \S+, \S+x(  slower)?$", line) for line in lines)
    assert last == f"10 problems, more than 3 % slower in {sum('slower' in line for line in lines)}"
