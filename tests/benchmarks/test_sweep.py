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
    slower = sum("slower" in line for line in lines)
    assert last == f"10 problems, more than 3 % slower in {slower}, different results in 0"


def run(only, capsys, status=0):
    assert sweep.main(["--rounds", "1", "--seconds", "0.001", "--only", only]) == status
    return capsys.readouterr().out.splitlines()


def test_marks_results_that_differ(capsys, monkeypatch):
    monkeypatch.setattr(
        sweep, "torchvision", SimpleNamespace(ops=SimpleNamespace(box_area=lambda boxes: boxes.sum(-1)))
    )
    monkeypatch.setattr(sweep, "FAMILIES", (only_box_area,))
    line, last = run("box_area", capsys, status=1)
    assert "differs by" in line
    assert last.endswith("different results in 1")


def test_marks_gradients_that_differ(capsys, monkeypatch):
    def detached(boxes):
        return ops.box_area(boxes) + 0 * boxes.sum(-1) + (boxes - boxes.detach()).sum(-1)

    def only_gradients(random, dtype):
        boxes = torch.tensor([[0.0, 0.0, 3.0, 2.0]], dtype=dtype)
        yield sweep.Problem("box_area", *sweep._both("box_area"), (boxes,))

    monkeypatch.setattr(sweep, "torchvision", SimpleNamespace(ops=SimpleNamespace(box_area=detached)))
    monkeypatch.setattr(sweep, "FAMILIES", (only_gradients,))
    plain, gradient, last = run("box_area", capsys, status=1)
    assert "differs" not in plain
    assert "with gradient" in gradient
    assert "differs by" in gradient
    assert last.endswith("different results in 1")


def test_goes_on_where_the_rival_fails_and_ends_where_ours_does(capsys, monkeypatch):
    def fail(boxes):
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr(sweep, "FAMILIES", (only_box_area,))
    monkeypatch.setattr(sweep, "torchvision", SimpleNamespace(ops=SimpleNamespace(box_area=fail)))
    line, last = run("box_area", capsys)
    assert line == "box_area: rival: not implemented for 'Half'"
    assert last.startswith("0 problems")
    monkeypatch.setattr(sweep, "ops", SimpleNamespace(box_area=fail))
    with pytest.raises(RuntimeError, match="not implemented"):
        run("box_area", capsys)


def only_box_area(random, dtype):
    boxes = torch.tensor([[0.0, 0.0, 3.0, 2.0]], dtype=dtype)
    yield sweep.Problem("box_area", *sweep._both("box_area"), (boxes,), False)
