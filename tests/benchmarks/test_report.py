"""Tables, files and pictures from made-up results."""

import dataclasses
import json

import pytest

from benchmarks import command_line, document, machine, measure, report
from benchmarks.run import OURS, Results, Row


def time(wall, cpu=None, iqr=0.01):
    return measure.Time(wall, iqr, wall if cpu is None else cpu, 9)


def row(workload="5000 boxes", ours=1.0, theirs=8.0, **fields):
    times = {
        "1": {OURS: time(ours), "torchvision": time(theirs), "eager": time(3 * theirs)},
        "2": {OURS: time(ours / 2), "torchvision": time(theirs), "eager": time(2 * theirs)},
    }
    sizes = {"bytes": 1e6, "operations": 1e6, "floor_ms": {"1": 0.5, "2": 0.25}}
    return Row("ops", "nms", workload, "ok", **{"times": times, **sizes, **fields})


def cuda_row():
    facts = measure.DeviceFacts(3, 0, 1_000_000, time(0.008))
    return row(times={"cuda": {OURS: time(0.02), "torchvision": time(0.1)}}, floor_ms={"cuda": 0.01}, facts=facts)


@pytest.fixture
def results():
    wrong = Row("ops", "nms", "other boxes", "wrong", "differs", 0.1, 1e-5)
    ceilings = {"1": machine.Ceilings(2e10, 1e11), "2": machine.Ceilings(3e10, 2e11)}
    facts = {"processor": "Abacus 3000", "cores": 2, "torch": "2.13.0"}
    settings = {"device": "cpu", "seconds": 1.0, "smoke": False, "date": "2030-01-01", "python": "3.11"}
    return Results(facts, settings, ceilings, ["busy"], [row(), row("few boxes", 2.0, 1.0), wrong])


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1234.5, "1,234"), (12.345, "12.3"), (0.01234, "0.0123"), (1.0, "1.00")]
)
def test_numbers_have_three_digits(value, text):
    assert report.number(value) == text


def test_lines_fit_and_columns_agree(results):
    lines = [report.columns("cpu"), *map(report.line, results.rows), report.columns("cuda"), report.line(cuda_row())]
    lines.append(report.line(row("a workload with a name that is a good deal too long")))
    lines.append(report.line(row(ours=123456.0, theirs=1234567.0)))
    assert max(map(len, lines)) <= 140
    assert len(report.columns("cpu")) == len(report.line(results.rows[0]))
    assert len(report.columns("cuda")) == len(report.line(cuda_row()))
    assert all(len(text) <= 140 for text in report.heading(results).splitlines())


def test_line_says_what_it_should(results):
    text = report.line(results.rows[0])
    for part in ("nms 5000 boxes", "torchvision", "8.00x", "16x", "50%", "2.00", "1.00 GB"):
        assert part in text
    assert "WRONG: differs" in report.line(results.rows[2])
    assert "torchvision~" in report.line(row(differs=["torchvision", "eager"]))
    assert "eager" in report.line(row(differs=["torchvision"]))
    disturbed = row(times={"1": {OURS: time(2.0, 1.0)}})
    assert "2.00!" in report.line(disturbed)


def test_summary_has_means_and_what_is_slower(results):
    text = " ".join(report.summary(results.rows).split())
    assert "geometric mean against the best rival: 2.00x over 2 workloads, 2.00x where each of 1 ops counts" in text
    assert "geometric mean against eager: 6.00x over 2 workloads" in text
    assert "slower than a rival: nms few boxes" in text
    assert "1 of 3 workloads wrong or failed" in text


def test_each_op_counts_alike():
    rows = [row("a", 1.0, 2.0), row("b", 1.0, 8.0), dataclasses.replace(row("c", 1.0, 9.0), op="box_iou")]
    mean = report.means(rows, "torchvision", "1")
    assert (mean.workloads, mean.ops) == (3, 2)
    assert mean.of_workloads == pytest.approx(144 ** (1 / 3))
    assert mean.of_ops == pytest.approx(6.0)
    assert report.means(rows, "pycocotools", "1") is None


def test_comparison_marks_changes_beyond_noise():
    before = [row("a", 1.0), row("b", 1.0), row("c", 1.0), row("gone")]
    after = [row("a", 1.02), row("b", 2.0), row("c", 0.5), row("new")]
    lines = {line.split()[1]: line for line in report.comparison(before, after).splitlines()[1:] if " 1t" in line}
    assert set(lines) == {"a", "b", "c"}
    assert lines["a"].rstrip().endswith("0.98x")
    assert lines["b"].endswith("SLOWER")
    assert lines["c"].endswith("faster")


def test_results_survive_a_file(results, tmp_path):
    results.rows.append(cuda_row())
    file = tmp_path / "new" / "results.json"
    command_line.write(results.to_json(), file)
    assert Results.from_json(json.loads(file.read_text())) == results


@pytest.mark.parametrize(
    ("device", "features", "warned"), [("5", "011001", True), ("5", "011000", False), ("1", "011001", False)]
)
def test_memory_given_back(tmp_path, device, features, warned):
    for name, text in (("device", f"0x000{device}\n"), ("features", features + "0" * 58)):
        (tmp_path / "virtio0").mkdir(exist_ok=True)
        (tmp_path / "virtio0" / name).write_text(text)
    assert (machine.memory_given_back(tmp_path) is not None) == warned
    assert machine.memory_given_back(tmp_path / "none") is None


def test_machine_has_no_private_names(results):
    facts = machine.describe("cpu")
    assert facts["processor"]
    assert not any("/" in str(value) for value in facts.values())
    assert machine.slug({"processor": "Abacus(R) 3000 Processor", "cores": 2}) == "abacus-3000-2-cores"


def test_document_is_generated_and_the_same_each_time(results, tmp_path):
    pytest.importorskip("matplotlib", reason="an extra that the pictures need")
    folder = tmp_path / "results"
    command_line.write(results.to_json(), folder / "cpu.json")
    for _ in range(2):
        assert document.main(folder, tmp_path / "docs") == 0
        files = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.glob("docs/**/*.*")}
    text = (tmp_path / "docs/performance.md").read_text()
    page = (tmp_path / "docs/performance/abacus-3000-2-cores.md").read_text()
    assert document.main(folder, tmp_path / "docs") == 0
    assert files == {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.glob("docs/**/*.*")}
    assert "No figure here was measured on a GPU yet" in text
    assert "[Abacus 3000](performance/abacus-3000-2-cores.md)" in text
    assert "| 5000 boxes | 1.00 | 0.500 | torchvision | 8.00x | 16x | 50% | not measured |" in page
    assert "(../images/performance/abacus-3000-2-cores/nms.svg)" in page
    assert (tmp_path / "docs/images/performance/abacus-3000-2-cores/nms.svg").is_file()
    gpu = dataclasses.replace(results, machine={**results.machine, "gpu": "Loom"}, rows=[cuda_row()])
    gpu.ceilings = {"cuda": machine.Ceilings(3e12, 6e13, 4e-6)}
    command_line.write(gpu.to_json(), folder / "loom/ops.json")  # as gpu_check.py does
    document.main(folder, tmp_path / "docs")
    page = (tmp_path / "docs/performance/loom.md").read_text()
    assert "| 5000 boxes | 0.0200 | 0.00800 | 3 | 0 | 1.00 | torchvision | 5.00x | 50% |" in page
    assert "0.0200 ms" in (tmp_path / "docs/performance/abacus-3000-2-cores.md").read_text()
    assert "No figure here" not in (tmp_path / "docs/performance.md").read_text()
