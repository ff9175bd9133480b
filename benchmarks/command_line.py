"""The command ``python -m benchmarks``."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .workload import SUITES

RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compares the results of every workload with a float64 reference, then times it beside what else "
        "is installed (torchvision, plain torch, pycocotools, ...), in turns in one process.",
        epilog="One thread is compared by CPU time, more by wall time. 'floor' is the least time that this machine's "
        "memory bandwidth and arithmetic allow, as a share of ours.",
    )
    parser.add_argument("suite", nargs="?", choices=(*SUITES, "all", "document"), default="ops", help="default: ops; "
                        "document: write docs/performance.md and its pages from the committed results")  # fmt: skip
    parser.add_argument("--only", metavar="NAME", help="workloads with this in their name, such as 'nms 5000'")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="only with N CPU threads; default: with 1 and with 2")
    parser.add_argument("--seconds", type=float, default=1.0, help="per contestant and workload (default: 1)")
    parser.add_argument("--compile", action="store_true", help="also torch.compile of the plain torch versions")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one sample: does everything run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here, row by row")
    parser.add_argument("--compare", metavar="FILE", help="results to compare with, or a git commit that has this "
                        "machine's in benchmarks/results")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.suite == "document":
        from . import document

        return document.main(RESULTS)
    from .run import Settings

    settings = Settings(
        suites=SUITES if options.suite == "all" else (options.suite,),
        only=options.only,
        device=options.device,
        threads=(options.threads,) if options.threads else (1, 2),
        seconds=options.seconds,
        smoke=options.smoke,
        compile=options.compile,
    )
    return run(settings, options.json, options.compare)


def short(options: argparse.Namespace) -> int:
    """``fastvision bench``: the first workload of every op, or those named, for less time each."""
    from .run import Settings

    threads = (options.threads,) if options.threads else (1, 2)
    first = options.only is None
    settings = Settings(only=options.only, device=options.device, threads=threads, seconds=0.2, first=first)
    return run(settings, options.json)


def run(settings: "Settings", output: Path | None = None, before: str | None = None) -> int:  # type: ignore[name-defined]  # noqa: F821
    """Measure and print; returns 0, or 1 if a result is wrong or an op fails."""
    from . import report
    from .run import rows, start

    if settings.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            print("error: --device cuda: torch sees no CUDA device", file=sys.stderr)
            return 1
    results = start(settings)
    earlier = _read(before, results.machine) if before else None
    print(report.heading(results))
    print(report.columns(settings.device), flush=True)
    for row in rows(settings, results.ceilings):
        results.rows.append(row)
        print(report.line(row), flush=True)
        if output:
            write(results.to_json(), output)
    print(report.summary(results.rows))
    if earlier:
        print(report.comparison(earlier.rows, results.rows))
    if not results.rows:
        print(f"error: no workload has {settings.only!r} in its name", file=sys.stderr)
    return int(not results.rows or any(row.state in ("wrong", "failed") for row in results.rows))


def write(results: dict[str, object], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(_rounded(results), indent=1) + "\n")
    part.replace(file)


def _rounded(value: object) -> object:
    """Four significant digits: more says nothing."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _read(source: str, machine: dict[str, object]) -> "Results":  # type: ignore[name-defined]  # noqa: F821
    from .machine import slug
    from .run import Results

    if Path(source).is_file():
        return Results.from_json(json.loads(Path(source).read_text()))
    path = f"benchmarks/results/{slug(machine)}.json"
    shown = subprocess.run(["git", "show", f"{source}:{path}"], capture_output=True, text=True, cwd=RESULTS.parent)
    if shown.returncode:
        raise SystemExit(f"error: --compare: neither a file nor a commit with {path}: {source}")
    return Results.from_json(json.loads(shown.stdout))
