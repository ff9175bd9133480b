"""Output files, which appear complete or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import ENVIRONMENT, USAGE, CommandError, reason


class OutputDirectory:
    """Where a command writes. The files lie in a hidden directory inside ``path`` until :func:`output_directory` ends
    well; then each takes its place in one step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hidden = path / f".fastvision-{os.getpid()}.tmp"

    def prepare(self) -> None:
        self.clear()  # of a process that had the same number and was killed
        try:
            self._hidden.mkdir(parents=True)
        except OSError as error:
            raise CommandError(
                ENVIRONMENT,
                f"cannot write into the directory {self.path}: {reason(error)}",
                "choose another with --output",
            ) from error

    def write(self, name: str, data: bytes) -> None:
        if (self.path / name).is_dir():
            raise CommandError(ENVIRONMENT, f"cannot write {self.path / name}: it is a directory")
        try:
            with open(self._hidden / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CommandError(ENVIRONMENT, f"cannot write {self.path / name}: {reason(error)}") from error

    def publish(self) -> None:
        for file in sorted(self._hidden.iterdir()):
            try:
                os.replace(file, self.path / file.name)
            except OSError as error:
                raise CommandError(ENVIRONMENT, f"cannot write {self.path / file.name}: {reason(error)}") from error

    def clear(self) -> None:
        shutil.rmtree(self._hidden, ignore_errors=True)


@contextmanager
def output_directory(path: Path) -> Iterator[OutputDirectory]:
    """Makes the directory if need be. After an error or a signal all files are as before, and what was made is gone."""
    if path.exists() and not path.is_dir():
        raise CommandError(USAGE, f"--output: expected a directory, got the file {path}")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    output = OutputDirectory(path)
    try:
        output.prepare()
        yield output
        output.publish()
    except BaseException:
        output.clear()
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise
    output.clear()
