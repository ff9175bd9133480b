"""Tables for a terminal, no wider than 140 columns."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .measure import Time
from .run import OURS, Results, Row

NAME = 43


def number(value: float) -> str:
    """Three significant digits, without exponent."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "-"
    digits = max(0, 2 - math.floor(math.log10(abs(value)) + 1e-9))
    return f"{value:,.{min(digits, 5)}f}"


def factor(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x" if value < 10 else f"{value:,.0f}x"


def keys(row: Row) -> list[str]:
    return list(row.times)


def best_rival(row: Row) -> str | None:
    """The one with the least CPU time on the fewest threads, or device time; of those with the same result if any."""
    if not row.times:
        return None
    times = row.times[keys(row)[0]]
    names = [name for name in times if name != OURS]
    same = [name for name in names if name not in row.differs] or names
    return min(same, key=lambda name: cost(times[name], keys(row)[0]), default=None)


def cost(time: Time, key: str) -> float:
    """One thread: CPU time, which other programs disturb least. Several threads and GPUs: wall time."""
    return time.cpu if key == "1" else time.wall


def ratio(row: Row, rival: str | None, key: str) -> float | None:
    """How many times as long as ours the rival takes."""
    times = row.times.get(key, {})
    if rival not in times or OURS not in times:
        return None
    return cost(times[rival], key) / cost(times[OURS], key)


def disturbed(time: Time, key: str) -> bool:
    """Whether one thread waited for much of its time, for others on the machine or for memory."""
    return key == "1" and time.wall > 1.1 * time.cpu


def share(row: Row, key: str) -> float | None:
    """The floor as a share of the time."""
    ours = row.times.get(key, {}).get(OURS)
    return row.floor_ms[key] / cost(ours, key) if ours and cost(ours, key) else None


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}" if value >= 0.01 else f"{value:.1%}"


def rate(row: Row, key: str) -> str:
    """Achieved bytes or operations per second, whichever is nearer to its ceiling by the counts."""
    ours = row.times.get(key, {}).get(OURS)
    if not ours:
        return "-"
    if row.operations > 8 * row.bytes:
        return f"{number(row.operations / cost(ours, key) / 1e6)} GF"
    return f"{number(row.bytes / cost(ours, key) / 1e6)} GB"


CPU_COLUMNS = ("1t ms", "IQR", "CPU ms", "2t ms", "1t/2t", "rival", "its CPU", "1t ratio", "2t ratio", "per s", "floor")
CPU_WIDTHS = (9, 8, 9, 9, 6, 13, 9, 9, 9, 9, 6)
CUDA_COLUMNS = ("ms", "IQR", "graph ms", "launches", "waits", "extra MB", "rival", "its ms", "ratio", "per s", "floor")
CUDA_WIDTHS = (9, 8, 9, 9, 6, 9, 13, 9, 8, 9, 6)


def heading(results: Results) -> str:
    lines = [", ".join(f"{key} {value}" for key, value in results.machine.items() if key != "compiler")]
    for key, c in results.ceilings.items():
        what = "GPU" if key == "cuda" else f"{key} thread(s)"
        lines.append(f"{what}: {c.bandwidth / 1e9:,.1f} GB/s (triad), {c.operations / 1e9:,.0f} GFLOP/s (product)")
    return "\n".join(_wrap(lines) + [f"warning: {w}" for w in results.warnings])


def _wrap(lines: Iterable[str]) -> list[str]:
    import textwrap

    return [part for line in lines for part in textwrap.wrap(line, 138)]


def columns(device: str) -> str:
    names, widths = (CUDA_COLUMNS, CUDA_WIDTHS) if device == "cuda" else (CPU_COLUMNS, CPU_WIDTHS)
    return f"{'workload':{NAME}}" + "".join(f"{n:>{w}}" for n, w in zip(names, widths))


def line(row: Row) -> str:
    name = row.name if len(row.name) < NAME else row.name[: NAME - 2] + "…"
    if row.state != "ok":
        return f"{name:{NAME}}{row.state.upper()}: {row.detail}"[:140]
    rival = best_rival(row)
    marked = "-" if rival is None else rival[:11] + ("~" if rival in row.differs else "")
    if "cuda" in row.times:
        ours, f = row.times["cuda"][OURS], row.facts
        theirs = row.times["cuda"][rival].wall if rival else None
        cells = [
            number(ours.wall),
            number(ours.iqr),
            number(f.graph.wall) if f and f.graph else "-",
            "-" if not f or f.launches is None else str(f.launches),
            "-" if not f or f.synchronisations is None else str(f.synchronisations),
            number(f.extra_bytes / 1e6) if f else "-",
            marked,
            number(theirs) if theirs else "-",
            factor(ratio(row, rival, "cuda")),
            rate(row, "cuda"),
            percent(share(row, "cuda")),
        ]
        return f"{name:{NAME}}" + "".join(f"{c:>{w}}" for c, w in zip(cells, CUDA_WIDTHS))
    first = keys(row)[0]
    ours = row.times[first][OURS]
    more = next((k for k in keys(row) if k != first), None)
    cells = [
        number(ours.wall) + ("!" if disturbed(ours, first) else ""),
        number(ours.iqr),
        number(ours.cpu),
        number(row.times[more][OURS].wall) if more else "-",
        f"{ours.wall / row.times[more][OURS].wall:.2f}" if more else "-",
        marked,
        number(row.times[first][rival].cpu) if rival else "-",
        factor(ratio(row, rival, first)),
        factor(ratio(row, rival, more)) if more else "-",
        rate(row, first),
        percent(share(row, first)),
    ]
    return f"{name:{NAME}}" + "".join(f"{c:>{w}}" for c, w in zip(cells, CPU_WIDTHS))


class Means(NamedTuple):
    """Geometric means of ratios: over all workloads, and over the ops' own means, to which each op counts alike."""

    of_workloads: float
    workloads: int
    of_ops: float
    ops: int


def means(rows: Sequence[Row], rival: str | None, key: str) -> Means | None:
    """Over what this rival (None: the best one of each workload) has."""
    by_op: dict[str, list[float]] = {}
    for row in rows:
        if found := ratio(row, rival or best_rival(row), key):
            by_op.setdefault(row.op, []).append(found)
    if not by_op:
        return None
    everything = [r for ratios in by_op.values() for r in ratios]
    of_ops = statistics.geometric_mean(statistics.geometric_mean(ratios) for ratios in by_op.values())
    return Means(statistics.geometric_mean(everything), len(everything), of_ops, len(by_op))


def slower(rows: Sequence[Row], key: str) -> list[str]:
    """Workloads at which some rival is faster, with the ratio."""
    return [f"{row.name} ({factor(r)})" for row in rows if (r := ratio(row, best_rival(row), key)) and r < 1]


def summary(rows: Sequence[Row]) -> str:
    lines = []
    key = next((keys(row)[0] for row in rows if row.times), "1")
    names = dict.fromkeys(name for row in rows for by in row.times.values() for name in by if name != OURS)
    for rival in (None, *names):
        if mean := means(rows, rival, key):
            of_workloads = f"{factor(mean.of_workloads)} over {mean.workloads} workloads"
            of_ops = f"{factor(mean.of_ops)} where each of {mean.ops} ops counts alike"
            lines.append(f"geometric mean against {rival or 'the best rival'}: {of_workloads}, {of_ops}")
    if behind := slower(rows, key):
        lines.append(f"slower than a rival: {'; '.join(behind)}")
    if any(disturbed(row.times["1"][OURS], "1") for row in rows if "1" in row.times):
        lines.append("!: waited for more than a tenth of the time: the machine was shared, or its memory")
    if any(row.differs for row in rows):
        lines.append("~: the rival's result differs from the reference")
    for row in rows:
        lines += [f"{row.name}: {rival} cannot: {error}" for rival, error in row.unable.items()]
    bad = [row for row in rows if row.state in ("wrong", "failed")]
    lines += [f"{len(bad)} of {len(rows)} workloads wrong or failed"] if bad else []
    return "\n".join(_wrap(lines))


def comparison(before: Sequence[Row], after: Sequence[Row]) -> str:
    """Our times then and now, for workloads in both. Marked where the change is beyond both interquartile ranges."""
    old = {row.name: row for row in before}
    lines = [f"{'workload':{NAME}}{'before ms':>12}{'after ms':>12}{'before / after':>16}"]
    for row in after:
        for key in row.times:
            then = old[row.name].times.get(key, {}).get(OURS) if row.name in old else None
            now = row.times[key].get(OURS)
            if not then or not now:
                continue
            a, b = cost(then, key), cost(now, key)
            change = a / b
            noise = (then.iqr + now.iqr) / min(a, b)
            mark = "" if abs(math.log(change)) <= max(noise, 0.05) else "  faster" if change > 1 else "  SLOWER"
            unit = "GPU" if key == "cuda" else f"{key}t"
            name = f"{row.name[: NAME - 5]} {unit}"
            lines.append(f"{name:{NAME}}{number(a):>12}{number(b):>12}{factor(change):>16}{mark}")
    return "\n".join(lines)
