"""A short run of the fuzzer of raw ops; `python tools/fuzz_ops.py` is the long one."""

import subprocess
import sys
from pathlib import Path

FUZZER = Path(__file__).parents[1] / "tools/fuzz_ops.py"


def test_random_calls_raise_or_agree_between_backends():
    done = subprocess.run([sys.executable, FUZZER, "--calls", "60"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
