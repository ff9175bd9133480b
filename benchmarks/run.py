"""Runs workloads: first the gate, then the times."""

import gc
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from . import machine as this_machine
from . import measure
from .machine import Ceilings
from .rivals import VERSIONS
from .workload import Case, Gate, Workload, compare, find

OURS = "fastvision"


@dataclass
class Settings:
    suites: tuple[str, ...] = ("ops",)
    only: str | None = None
    device: str = "cpu"
    threads: tuple[int, ...] = (1, 2)
    seconds: float = 1.0  # for each contestant and number of threads
    smoke: bool = False
    compile: bool = False
    first: bool = False  # only the first workload of each op


@dataclass
class Row:
    """A workload and what came out. ``times`` and ``floor_ms`` are by number of threads, as text; "cuda" on a GPU."""

    suite: str
    op: str
    workload: str
    state: str  # "ok", "wrong" (red gate: no times), "unchecked" (no reference at hand: no times), "failed"
    detail: str = ""
    error: float | None = None
    limit: float | None = None
    bytes: float = 0.0
    operations: float = 0.0
    floor_ms: dict[str, float] = field(default_factory=dict)
    times: dict[str, dict[str, measure.Time]] = field(default_factory=dict)
    differs: list[str] = field(default_factory=list)  # rivals with another result
    unable: dict[str, str] = field(default_factory=dict)  # rivals that raise, with the error
    facts: measure.DeviceFacts | None = None

    @property
    def name(self) -> str:
        return f"{self.op} {self.workload}"


@dataclass
class Results:
    machine: dict[str, Any]
    settings: dict[str, Any]
    ceilings: dict[str, Ceilings]
    warnings: list[str]
    rows: list[Row]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(read: dict[str, Any]) -> "Results":
        rows = []
        for row in read["rows"]:
            times = {key: {n: measure.Time(**t) for n, t in by.items()} for key, by in row["times"].items()}
            facts = row["facts"] and measure.DeviceFacts(**{**row["facts"], "graph": _time(row["facts"]["graph"])})
            rows.append(Row(**{**row, "times": times, "facts": facts}))
        ceilings = {key: Ceilings(**c) for key, c in read["ceilings"].items()}
        return Results(read["machine"], read["settings"], ceilings, read["warnings"], rows)


def _time(read: dict[str, Any] | None) -> measure.Time | None:
    return measure.Time(**read) if read else None


def start(settings: Settings) -> Results:
    """The machine and its ceilings, without rows yet."""
    if settings.device == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # float32 is what the gate expects, of everybody
        ceilings = {"cuda": this_machine.ceilings_of_cuda()}
    else:
        ceilings = {str(n): this_machine.ceilings_of_cpu(n, quick=settings.smoke) for n in settings.threads}
    warnings = [this_machine.contention(), this_machine.memory_given_back()]
    when = {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version()}
    kept = {"device": settings.device, "seconds": settings.seconds, "smoke": settings.smoke, **when}
    return Results(this_machine.describe(settings.device), kept, ceilings, [w for w in warnings if w], [])


def rows(settings: Settings, ceilings: dict[str, Ceilings]) -> Iterator[Row]:
    if settings.smoke:
        torch.set_num_threads(1)  # tiny inputs: waking threads up would take longer than the work
    for suite in settings.suites:
        for op, workload in find(suite, settings.only, settings.device, first=settings.first):
            row = Row(suite, op, workload.name, "ok")
            try:
                _fill(row, workload, settings, ceilings)
            except Exception as error:  # the rest of the table is worth having
                row.state, row.detail, row.times = "failed", _one_line(error), {}
            gc.collect()
            yield row


def _fill(row: Row, workload: Workload, settings: Settings, ceilings: dict[str, Ceilings]) -> None:
    case = workload.case(torch.device(settings.device), settings.smoke)
    row.bytes, row.operations = float(case.bytes), float(case.operations)
    row.floor_ms = {key: ceiling.floor_ms(row.bytes, row.operations) for key, ceiling in ceilings.items()}
    try:
        expected = case.expected()
    except ImportError as missing:
        row.state, row.detail = "unchecked", f"needs {missing}"
        return
    gate = compare(case.part(case.ours()), expected, case.limit)
    row.error, row.limit = gate.error, gate.limit
    if not gate.green:
        row.state, row.detail = "wrong", f"differs from the reference by {gate.error:.1e}, allowed {gate.limit:.1e}"
        return
    contestants = {OURS: case.ours}
    for name, call in _rivals(case, settings).items():
        try:
            if not _agrees(case, name, call, expected, gate).green:
                row.differs.append(name)
            contestants[name] = call
        except Exception as error:  # such as a type that it does not have
            row.unable[name] = _one_line(error)
    del expected
    if settings.device == "cuda":
        row.times["cuda"] = measure.on_cuda(contestants, settings.seconds, most=1 if settings.smoke else 60)
        row.facts = measure.facts(case.ours, settings.seconds)
        return
    for threads in settings.threads:
        most = 1 if settings.smoke else 60
        row.times[str(threads)] = measure.on_cpu(contestants, threads, settings.seconds, most=most)


def _rivals(case: Case, settings: Settings) -> dict[str, Callable[[], Any]]:
    found = {name: call for name, call in case.rivals.items() if name in VERSIONS}
    if settings.compile and "eager" in found:
        found["compiled"] = torch.compile(found["eager"])
    return found


def _agrees(case: Case, name: str, call: Callable[[], Any], expected: Any, ours: Gate) -> Gate:
    view = case.views.get(name, case.part)
    found = compare(view(call()), expected)
    return Gate(found.error, max(found.limit, 10 * ours.limit))  # rounding of its own is no difference


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"
