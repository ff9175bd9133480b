"""Arguments, errors and exit codes of the command ``fastvision``. Imports nothing that is slow."""

import argparse
import io
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from .errors import ENVIRONMENT, USAGE, CommandError, one_line, reason

MOST_CLASSES = 100_000
_INTERNAL_ERROR = 1
_BROKEN_PIPE = 141
_ALIASES = {"doctor": "info"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0: ok. 2: wrong use. 3: bad data or file. 4: environment (device, optional package, memory, disk). 130 and 143:
    stopped by SIGINT and SIGTERM. 1: an error of fastvision itself.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    received: list[int] = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be no text
    with _stop_signals(received):
        try:
            code = _run(words)
            if sys.stdout is not None:  # as when it was closed by the caller
                sys.stdout.flush()
            return code
        except BaseException as error:
            if "--debug" in words and not isinstance(error, KeyboardInterrupt):
                import traceback

                traceback.print_exc()
            return _explain(error, received)


def _run(words: list[str]) -> int:
    try:
        return _run_command(words)
    except SystemExit as end:  # after --help and --version
        return end.code if isinstance(end.code, int) else 0


def _run_command(words: list[str]) -> int:
    parser, commands = _parsers()
    position = next((i for i, word in enumerate(words) if not word.startswith("-")), None)
    if position is None:
        _parse(parser, words)
        raise CommandError(USAGE, f"expected a command: {', '.join(commands)}", "fastvision --help")
    _parse(parser, words[:position])
    name = _ALIASES.get(words[position], words[position])
    if name not in commands:
        hint = _nearest(name, [*commands, *_ALIASES]) or f"the commands are {', '.join(commands)}"
        raise CommandError(USAGE, f"unknown command {words[position]!r}", hint)
    options = _parse(commands[name], words[position + 1 :])
    if name == "demo":
        from . import demo

        return demo.run(options)
    if name == "predict":
        from . import predict

        return predict.run(options)
    if name == "bench":
        from fastvision.benchmarks import command_line as benchmarks

        return int(benchmarks.short(options))
    from . import info

    return info.run()


class _Parser(argparse.ArgumentParser):
    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="", file=file)  # argparse's own says nothing when it fails

    def error(self, message: str) -> NoReturn:
        raise CommandError(USAGE, one_line(message), f"{self.prog} --help")


def _parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    options, unknown = parser.parse_known_args(words)
    if unknown:
        known = [name for action in parser._actions for name in action.option_strings]
        hint = _nearest(unknown[0].split("=")[0], known) or f"{parser.prog} --help"
        raise CommandError(USAGE, f"{parser.prog}: unknown argument {unknown[0]!r}", hint)
    return options


def _nearest(word: str, known: list[str]) -> str | None:
    import difflib

    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]!r}?" if near else None


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(
        prog="fastvision",
        usage="fastvision [--help] [--version] COMMAND ...",
        description="Fast, exact and crash-proof computer vision ops for PyTorch, and the models built from them.",
        epilog="commands:\n"
        "  demo       train a small Mask R-CNN from scratch, evaluate it and write a report\n"
        "  predict    detect objects in images with trained weights\n"
        "  bench      time the ops beside what else is installed, after comparing results\n"
        "  info       versions, native library, devices and what is missing (also: doctor)\n\n"
        "'fastvision COMMAND --help' shows the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show versions and exit")

    demo = _Parser(
        prog="fastvision demo",
        description="Train a small Mask R-CNN from scratch on handwritten digits pasted on photographs, evaluate it on "
        "digits and photographs it has not seen, and write weights.safetensors, metrics.json, predictions.png, "
        "pr_curve.png and report.html. Nothing is downloaded. Takes one to two minutes.",
        parents=[common],
        allow_abbrev=False,
    )
    demo.add_argument("--output", type=Path, default=Path("runs/demo"), metavar="DIR", help="default: %(default)s")
    demo.add_argument(
        "--budget",
        type=_number(0, 86400, above=True),
        metavar="SECONDS",
        help="train for this long instead of a fixed number of images; the result then depends on the machine's speed",
    )
    demo.add_argument(
        "--threads", type=_integer(1, 1024), default=1, metavar="N", help="CPU threads (default: %(default)s)"
    )
    demo.add_argument(
        "--seed",
        type=_integer(0, 2**63 - 1),
        default=0,
        metavar="N",
        help="the same seed and threads give the same weights, bit by bit (default: %(default)s)",
    )
    _add_device(demo)

    predict = _Parser(
        prog="fastvision predict",
        description="Detect objects in images; writes annotated pictures and predictions.json (COCO results format).",
        parents=[common],
        allow_abbrev=False,
    )
    predict.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image, or directory of images")
    predict.add_argument(
        "--weights", type=Path, required=True, metavar="FILE", help=".safetensors, or a state_dict saved by torch.save"
    )
    predict.add_argument("--output", type=Path, metavar="DIR", help="where to write pictures and predictions.json")
    predict.add_argument("--json", action="store_true", help="print the predictions on standard output")
    predict.add_argument(
        "--score",
        type=_number(0, 1),
        default=0.5,
        metavar="S",
        help="least score of a detection (default: %(default)s)",
    )
    predict.add_argument(
        "--draw", action=argparse.BooleanOptionalAction, default=True, help="write annotated pictures (default: yes)"
    )
    predict.add_argument(
        "--skip-bad", action="store_true", help="leave out images that cannot be read and list them in skipped.txt"
    )
    predict.add_argument(
        "--model", metavar="NAME", help="model builder, such as maskrcnn_resnet50_fpn; default: the one in the weights"
    )
    predict.add_argument(
        "--num-classes",
        type=_integer(2, MOST_CLASSES),
        metavar="N",
        help="classes of the model, with the background; default: those of the weights",
    )
    predict.add_argument("--threads", type=_integer(1, 1024), metavar="N", help="CPU threads (default: torch's choice)")
    _add_device(predict)

    bench = _Parser(
        prog="fastvision bench",
        description="Time one workload of every op beside what else is installed (torchvision, plain torch, "
        "pycocotools), in turns, after comparing its result with a float64 reference. Takes about a minute.",
        parents=[common],
        allow_abbrev=False,
    )
    bench.add_argument("--only", metavar="NAME", help="workloads with this in their name, such as 'nms 5000'")
    bench.add_argument("--threads", type=_integer(1, 1024), metavar="N", help="CPU threads; default: 1 and 2")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    _add_device(bench)

    info = _Parser(
        prog="fastvision info",
        description="Versions, native library, devices and optional packages: what a bug report needs. The exit code "
        "is 4 if the installation does not work.",
        parents=[common],
        allow_abbrev=False,
    )
    return parser, {"demo": demo, "predict": predict, "bench": bench, "info": info}


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")


class _Version(argparse.Action):
    def __call__(self, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        def of(package: str) -> str:
            try:
                return version(package)
            except PackageNotFoundError:
                return "missing"

        python = ".".join(map(str, sys.version_info[:3]))
        print(f"fastvision {of('fastvision')} (Python {python}, torch {of('torch')}, NumPy {of('numpy')})")
        raise SystemExit(0)


def _integer(least: int, most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text!r}")
        return value

    return convert


def _number(least: float, most: float, *, above: bool = False) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or (above and value == least):
            allowed = f"above {least} up to {most}" if above else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"expected a number {allowed}, got {text!r}")
        return value

    return convert


@contextmanager
def _stop_signals(received: list[int]) -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt, so that nothing half-written stays behind; a second one kills."""

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    earlier = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError):  # not in the main thread: the caller's business
            earlier[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _explain(error: BaseException, received: list[int]) -> int:
    """Print the error; returns the exit code."""
    if received:  # whatever the interruption led to
        code, message, hint = 128 + received[0], f"stopped by {signal.Signals(received[0]).name}", None
    elif isinstance(error, KeyboardInterrupt):
        code, message, hint = 128 + signal.SIGINT, "stopped by SIGINT", None
    elif isinstance(error, BrokenPipeError):
        _drop_output()
        return _BROKEN_PIPE
    elif isinstance(error, CommandError):
        code, message, hint = error.exit_code, error.message, error.hint
    elif isinstance(error, ImportError):
        code, message, hint = ENVIRONMENT, one_line(error), "fastvision info"
    elif isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        code, message, hint = ENVIRONMENT, f"out of memory: {one_line(error) or 'no details'}", None
    elif isinstance(error, OSError):
        place = error.filename if error.filename is not None else "standard output"
        code, message, hint = ENVIRONMENT, f"{place}: {reason(error)}", None
    else:
        code, message = _INTERNAL_ERROR, f"internal error: {type(error).__name__}: {one_line(error)}"
        hint = "run it again with --debug and report the traceback with the output of 'fastvision info'"
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        _drop_output()
    with suppress(OSError, ValueError, AttributeError):
        print(f"error: {one_line(message)}", file=sys.stderr)
        if hint:
            print(f"hint: {one_line(hint)}", file=sys.stderr)
        sys.stderr.flush()
    return code


def _drop_output() -> None:
    """What cannot be written shall not be tried once more at exit."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
