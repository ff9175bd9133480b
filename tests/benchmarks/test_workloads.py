"""The gate: what passes it, what does not, and that a red one leaves no times."""

import math

import pytest
import torch
from fastvision.ops.nms import nms_reference

from benchmarks import run, workload
from benchmarks.inputs import clustered, greedy_nms
from benchmarks.rivals import VERSIONS
from benchmarks.workload import Case, Gate, Workload, compare


def double(x):
    return x * 2


def rows_of(monkeypatch, case, **settings):
    """The rows of one workload, on one thread."""
    one = Workload("twice", lambda device, n: case, {"n": 3}, {})
    monkeypatch.setattr(run, "find", lambda *args, **kwargs: iter([("op", one)]))
    options = run.Settings(threads=(1,), seconds=0.001, smoke=True, **settings)
    return list(run.rows(options, run.start(options).ceilings))


def test_gate_lets_rounding_pass_and_nothing_else():
    x = torch.linspace(1, 2, 50)
    assert compare(x * 3, x.double() * 3).green
    assert not compare(x * 3.001, x.double() * 3).green
    assert compare(x.bfloat16() * 3, x.double() * 3).green
    assert not compare(torch.where(x > 1.5, torch.nan, x), x.double()).green
    assert not compare(x[:-1], x.double()).green
    assert compare([torch.tensor([1, 2]), b"ab"], [torch.tensor([1, 2]), b"ab"]).green
    assert not compare([torch.tensor([1, 3]), b"ab"], [torch.tensor([1, 2]), b"ab"]).green
    assert not compare([torch.tensor([1, 2]), b"ac"], [torch.tensor([1, 2]), b"ab"]).green
    assert not compare([torch.tensor([1, 2])], [torch.tensor([1, 2]), b"ab"]).green
    assert not compare({"a": 1}, {"b": 1}).green
    assert compare({"a": 1, "b": 2.0}, {"b": 2.0, "a": 1}).green


def test_gate_reports_the_worst():
    assert Gate(0.5, 1.0) | Gate(0.1, 1e-3) == Gate(0.1, 1e-3)
    assert Gate(math.inf, 0.0) | Gate(0.1, 1.0) == Gate(math.inf, 0.0)


def test_right_op_is_timed(monkeypatch):
    x = torch.rand(9)
    monkeypatch.setitem(VERSIONS, "twin", "1.0")
    case = Case(
        ours=lambda: double(x),
        expected=lambda: double(x.double()),
        rivals={"twin": lambda: x + x, "elsewhere": lambda: 1 / 0, "eager": lambda: 3 * x},
        bytes=72,
    )
    (row,) = rows_of(monkeypatch, case)
    assert row.state == "ok"
    assert set(row.times["1"]) == {"fastvision", "twin", "eager"}
    assert row.differs == ["eager"]
    assert row.floor_ms["1"] > 0


def test_wrong_op_has_no_times(monkeypatch):
    x = torch.rand(9)
    (row,) = rows_of(monkeypatch, Case(ours=lambda: x * 2.01, expected=lambda: double(x.double()), bytes=72))
    assert row.state == "wrong"
    assert not row.times
    assert row.error == pytest.approx(0.005, rel=1e-3)


def test_errors_and_missing_references_leave_the_others(monkeypatch):
    def fails():
        raise ValueError("no\nsuch thing")

    def missing():
        raise ImportError("pycocotools")

    (row,) = rows_of(monkeypatch, Case(ours=fails, expected=lambda: 1, bytes=1))
    assert (row.state, row.detail) == ("failed", "ValueError: no such thing")
    (row,) = rows_of(monkeypatch, Case(ours=lambda: 1, expected=missing, bytes=1))
    assert (row.state, row.detail) == ("unchecked", "needs pycocotools")
    assert not row.times
    (row,) = rows_of(monkeypatch, Case(ours=lambda: 1, expected=lambda: 1, rivals={"eager": fails}, bytes=1))
    assert row.state == "ok"
    assert list(row.unable) == ["eager"]
    assert list(row.times["1"]) == ["fastvision"]


@pytest.mark.parametrize("groups", [1, 3])
def test_greedy_nms_is_the_reference(groups):
    boxes, scores = clustered(400)
    idxs = torch.arange(400) % groups
    kept, pairs = greedy_nms(boxes, scores, 0.5, idxs.numpy() if groups > 1 else None)
    expected = nms_reference(torch.from_numpy(boxes).double(), torch.from_numpy(scores).double(), 0.5, idxs=idxs)
    assert torch.equal(kept, expected)
    assert len(kept) <= pairs <= 400 * 399 / 2


@pytest.mark.parametrize("suite", workload.SUITES)
def test_every_module_has_workloads_with_names_of_their_own(suite):
    found = [f"{op} {w.name}" for op, w in workload.find(suite, None, "cpu")]
    assert found
    assert len(set(found)) == len(found)
    assert len(list(workload.find(suite, None, "cpu", first=True))) == len({name.split()[0] for name in found})


def test_only_names_a_part():
    assert [w.name for _, w in workload.find("ops", "nms 5000 boxes apart", "cpu")] == ["5000 boxes apart"]
