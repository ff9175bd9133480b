"""How far a command has come, on stderr: a bar on a terminal, elsewhere one line now and then."""

import sys
import time
from typing import Any

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Of one command, stage after stage.

    On a terminal each stage has a bar if tqdm is installed. Anywhere else it is plain lines, at least five seconds
    apart over all stages.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""
        self._start = 0.0
        self._last_line = time.monotonic()

    def update(self, stage: str, done: float, total: float, details: str = "") -> None:
        """``done`` of ``total``, in any unit, of a stage that began with the first update under its name."""
        now = time.monotonic()
        if stage != self._stage:
            self._begin(stage, total)
            self._start = now
        if self._bar is not None:
            self._bar.set_postfix_str(details, refresh=False)
            self._bar.update(done - self._bar.n)
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (now - self._start) * (total - done) / done if done else 0.0
            parts = [f"{stage}: {done / total:.0%}", details, f"{clock(left)} left"]
            print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._stage = ""

    def _begin(self, stage: str, total: float) -> None:
        self.close()
        self._stage = stage
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"
            self._bar = tqdm(total=total, desc=stage, bar_format=layout, file=sys.stderr, dynamic_ncols=True)


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
