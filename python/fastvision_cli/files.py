"""Output files, which appear complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import ENVIRONMENT, USAGE, CommandError, reason


@contextmanager
def output_directory(path: Path) -> Iterator[Path]:
    """Makes the directory and checks that files can be written there. If the command then fails, a directory made here
    that is still empty disappears again."""
    if path.exists() and not path.is_dir():
        raise CommandError(USAGE, f"--output: expected a directory, got the file {path}")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = _temporary(path)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise CommandError(
                ENVIRONMENT, f"cannot write into the directory {path}: {reason(error)}", "choose another with --output"
            ) from error
        yield path
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def write_file(path: Path, data: bytes) -> None:
    """Replace a file in one step; after an error or a signal the earlier file is there, and no other."""
    temporary = _temporary(path.parent)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise CommandError(ENVIRONMENT, f"cannot write {path}: {reason(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _temporary(directory: Path) -> Path:
    return directory / f".fastvision-{os.getpid()}.tmp"
