"""Runs code where a crash, a hang or a huge allocation is seen: in a process of its own with limits."""

import json
import subprocess
import sys

MEMORY = 8 << 30
SECONDS = 30

_SETUP = f"""
import faulthandler, json, resource
faulthandler.enable()
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
from math import inf, nan
import numpy as np
import torch
from fastvision import metrics, ops
"""
_EVALUATE = """
outcomes = []
for source in sources:
    try:
        outcomes.append(["ok", repr(eval(source))])
    except Exception as error:
        outcomes.append([type(error).__name__, str(error)])
print(json.dumps(outcomes))
"""


def run(program: str) -> str:
    """What the program prints. It must end by itself, and in time."""
    done = subprocess.run(
        [sys.executable, "-"], input=_SETUP + program, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


def outcomes_of(sources: list[str]) -> list[tuple[str, str]]:
    """For each expression "ok" and its value, or the name of the exception and its text."""
    outcomes = json.loads(run(f"sources = {sources!r}\n{_EVALUATE}"))
    return [(kind, text) for kind, text in outcomes]
