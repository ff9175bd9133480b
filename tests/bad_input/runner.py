"""Runs each case in a process of its own, forked from this one, which has done nothing but import.

Reads lines "module function backend" and answers each with one line of JSON. A child has 8 GB of address space, 30
seconds, and fresh memory filled with NaN; ending by a signal or by the clock is a result, not the end of the run.
"""

import faulthandler
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback

import torch

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import support

LIMIT_BYTES, LIMIT_SECONDS = 8 * 2**30, 30


def child(module: str, function: str, backend: str, report: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    faulthandler.enable()
    status = 0
    try:
        with support.Backend(backend) as active:
            getattr(importlib.import_module(module), function)(active)
    except BaseException:
        with open(report, "w") as f:
            traceback.print_exc(file=f)
        status = 1
    os._exit(status)


def run(module: str, function: str, backend: str) -> dict[str, str]:
    with tempfile.NamedTemporaryFile() as report:
        pid = os.fork()
        if pid == 0:
            child(module, function, backend, report.name)
        started = time.monotonic()
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() - started > LIMIT_SECONDS:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return {"outcome": "timeout", "detail": f"no result in {LIMIT_SECONDS} s"}
            time.sleep(0.005)
        if os.WIFSIGNALED(status):
            return {"outcome": "signal", "detail": signal.Signals(os.WTERMSIG(status)).name}
        with open(report.name) as f:
            detail = f.read()
        return {"outcome": "passed" if os.WEXITSTATUS(status) == 0 else "failed", "detail": detail}


def main() -> None:
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.manual_seed(0)
    for line in sys.stdin:
        print(json.dumps(run(*line.split())), flush=True)


if __name__ == "__main__":
    main()
