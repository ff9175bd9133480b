"""Memory stays where it is, however often ops are called and fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

LIMIT = 2 * 10**6  # of 10,000 calls of one kind; the sum of all stays below 20 MB


def test_calls_and_failing_calls_leave_no_memory_behind():
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here / "ops")])}
    command = [sys.executable, here / "leaks.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout)
    assert [r for r in results if r[2] > LIMIT] == []
    assert sum(r[2] for r in results) < 20 * 10**6
