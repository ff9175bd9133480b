"""The checks of benchmarks/gpu_ops.py that need no GPU."""

from benchmarks import gpu_ops


def test_every_function_is_deterministic():
    outcomes = list(gpu_ops.determinism("cpu", 2))
    assert len(outcomes) > 30
    assert all(outcome == "ok" for _, outcome in outcomes), outcomes
