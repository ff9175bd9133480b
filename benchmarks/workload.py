"""What is measured: a workload is an op at one size, a case is a workload whose inputs have been drawn."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


def _whole(result: Any) -> Any:
    return result


@dataclass(frozen=True)
class Case:
    """One op on drawn inputs. All calls take no arguments."""

    ours: Callable[[], Any]
    expected: Callable[[], Any]  # the float64 reference; its result must equal part(ours())
    bytes: float  # each element of the inputs that is needed read once, each element of the result written once
    operations: float = 0.0  # arithmetic; a multiply-add counts two
    rivals: Mapping[str, Callable[[], Any]] = field(default_factory=dict)  # by the names of rivals.VERSIONS
    part: Callable[[Any], Any] = _whole  # what ``expected`` describes, where the whole would take too long
    views: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)  # makes a rival's result like ours
    limit: float = 0.0  # allowed where it is more than TOLERANCES, with the reason beside it


@dataclass(frozen=True)
class Workload:
    """``build(device, **size)`` draws the inputs of a case; ``smoke`` are the sizes of a quick trial."""

    name: str
    build: Callable[..., Case]
    size: Mapping[str, Any]
    smoke: Mapping[str, Any]
    device: str | None = None  # only there; None: on both

    def case(self, device: torch.device, smoke: bool) -> Case:
        return self.build(device, **{**self.size, **(self.smoke if smoke else {})})


SUITES = ("ops", "models", "eval")


def find(suite: str, only: str | None, device: str, *, first: bool = False) -> Iterator[tuple[str, Workload]]:
    """(op, workload) of a suite. ``only`` is a part of "op workload", ``first`` leaves the first one of each op."""
    package = importlib.import_module(f".{suite}", __package__)
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        workloads = importlib.import_module(f".{module.name}", package.__name__).WORKLOADS
        there = [w for w in workloads if w.device in (None, device)]
        for workload in there[:1] if first else there:
            if only is None or only in f"{module.name} {workload.name}":
                yield module.name, workload


# Largest norm of the difference allowed, as a share of the norm of what is expected. Small enough that one wrong value
# among a hundred million shows.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@dataclass(frozen=True)
class Gate:
    """The difference from the reference; infinite where exact results differ or the kinds of results do."""

    error: float
    limit: float

    @property
    def green(self) -> bool:
        return self.error <= self.limit

    def __or__(self, other: "Gate") -> "Gate":
        """The worse of two."""
        return max(self, other, key=lambda g: (not g.green, g.error / g.limit if g.limit else g.error))


def compare(actual: Any, expected: Any, limit: float = 0.0) -> Gate:
    """Tensors, arrays, numbers, bytes, and lists, tuples and dictionaries of them. Only floating point may differ."""
    if isinstance(expected, Mapping):
        if not isinstance(actual, Mapping) or actual.keys() != expected.keys():
            return Gate(float("inf"), 0.0)
        actual, expected = list(actual.values()), [expected[key] for key in actual]
    if isinstance(expected, (list, tuple)):
        if not isinstance(actual, (list, tuple)) or len(actual) != len(expected):
            return Gate(float("inf"), 0.0)
        worst = Gate(0.0, 0.0)
        for one, other in zip(actual, expected):
            worst |= compare(one, other, limit)
        return worst
    if isinstance(expected, (bytes, str)):
        return Gate(0.0 if actual == expected else float("inf"), 0.0)
    a, e = torch.as_tensor(actual).detach().cpu(), torch.as_tensor(expected).detach().cpu()
    if a.shape != e.shape:
        return Gate(float("inf"), 0.0)
    if not (a.is_floating_point() and e.is_floating_point()):
        return Gate(0.0 if torch.equal(a.long(), e.long()) else float("inf"), 0.0)
    limit = max(limit, TOLERANCES[a.dtype])
    if not e.numel():
        return Gate(0.0, limit)
    scale = e.double().norm().clamp(min=torch.finfo(torch.float32).tiny)
    error = float((a.double() - e.double()).norm() / scale)
    return Gate(error if error == error else float("inf"), limit)
