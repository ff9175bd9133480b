"""Runs the command ``fastvision`` as a shell does."""

import re
import resource
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

SECONDS = 280


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str
    cpu_seconds: float

    def failed(self, code: int, *texts: str) -> None:
        """The exit code, one line ``error:``, perhaps one line ``hint:``, and these texts."""
        assert self.code == code, self.err
        lines = [line for line in self.messages() if not line.startswith("warning: ")]
        assert lines, "no line says why"
        assert lines[0].startswith("error: "), self.err
        assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), self.err
        for text in texts:
            assert text in self.err

    def messages(self) -> list[str]:
        """The lines on stderr but those of progress, which come every five seconds when the machine is busy."""
        return [
            line for line in self.err.splitlines() if not re.match(r"(training|evaluating|predicting): +\d+%", line)
        ]

    def succeeded(self) -> "Result":
        assert self.code == 0, self.err
        assert "Traceback" not in self.err
        return self


def command(*words: object, python: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, *python, "-m", "fastvision_cli", *map(str, words)]


def run(*words: object, python: tuple[str, ...] = (), **options: Any) -> Result:
    return measured(command(*words, python=python), **options)


def run_python(program: str, **options: Any) -> Result:
    return measured([sys.executable, "-c", program], **options)


def measured(arguments: list[str], **options: Any) -> Result:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "timeout": SECONDS}
    done = subprocess.run(arguments, check=False, **(streams | options))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Result(done.returncode, (done.stdout or b"").decode(), (done.stderr or b"").decode(), cpu)
