import os
import subprocess

import pytest
from fastvision_cli import command_line, info
from shell import command, run, run_python

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from fastvision_cli import main; sys.exit(main({words!r}))"


@pytest.mark.parametrize(
    "words", [["--help"], ["demo", "--help"], ["predict", "-h"], ["info", "--help"], ["--version"]]
)
def test_help_is_quick_and_loads_nothing(words):
    result = run(*words, python=("-X", "importtime"))
    assert result.code == 0
    loaded = {line.split("|")[-1].strip() for line in result.err.splitlines()}
    assert "fastvision_cli.command_line" in loaded
    assert not loaded & {"torch", "numpy", "PIL", "matplotlib", "tqdm", "fastvision"}
    assert min(run(*words).cpu_seconds for _ in range(3)) < 0.5
    assert "fastvision" in result.out


def test_help_needs_no_torch():
    result = run_python(WITHOUT_TORCH.format(words=["demo", "--help"])).succeeded()
    assert result.out.startswith("usage: fastvision demo")
    assert result.err == ""


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ([], ["expected a command", "demo", "predict", "info"]),
        (["trian"], ["'trian'", "demo, predict, bench, info"]),  # codespell:ignore trian
        (["predikt"], ["'predikt'", "did you mean 'predict'?"]),
        (["--treads", "2"], ["'--treads'"]),
        (["demo", "--sede", "1"], ["'--sede'", "did you mean '--seed'?"]),
        (["demo", "--seed", str(2**70)], ["--seed", "from 0 to 9223372036854775807", str(2**70)]),
        (["demo", "--seed", "-1"], ["--seed", "from 0 to"]),
        (["demo", "--seed", "one"], ["--seed", "from 0 to", "'one'"]),
        (["demo", "--threads", "0"], ["--threads", "from 1 to 1024"]),
        (["demo", "--budget", "0"], ["--budget", "above 0 up to 86400"]),
        (["demo", "--budget", "nan"], ["--budget", "'nan'"]),
        (["demo", "--device", "tpu"], ["--device", "cpu", "cuda"]),
        (["demo", "--bud", "1"], ["'--bud'", "--budget"]),
        (["predict"], ["--weights"]),
        (["predict", "a.png"], ["--weights"]),
        (["predict", "a.png", "--weights", "w", "--score", "1.5"], ["--score", "from 0 to 1"]),
        (["predict", "a.png", "--weights", "w", "--num-classes", "1"], ["--num-classes", "from 2 to 100000"]),
        (["info", "more"], ["'more'"]),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_wrong_use_is_named(words, texts):
    run(*words).failed(2, *texts)


@pytest.mark.parametrize("words", [["demo"], ["predict", "a.png", "--weights", "w", "--output", "out"]])
def test_without_torch(words, tmp_path):
    result = run_python(WITHOUT_TORCH.format(words=words), cwd=tmp_path)
    result.failed(4, "torch", "hint: fastvision info")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["demo", "--help"], ["--version"]])
def test_standard_output_that_takes_nothing(words, unbuffered):
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        run(*words, stdout=full, env=environment).failed(4, "standard output: No space left on device")
    read, write = os.pipe()
    os.close(read)
    result = run(*words, stdout=write, env=environment)
    os.close(write)
    assert (result.code, result.err) == (141, "")
    closed = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command(*words)], stderr=subprocess.PIPE, env=environment)
    assert (closed.returncode, closed.stderr) == (0, b"")


def test_an_internal_error_asks_for_a_report(monkeypatch, capsys):
    def broken():
        raise KeyError("secret\nline")

    monkeypatch.setattr(info, "run", broken)
    assert command_line.main(["info"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: internal error: KeyError: 'secret\\nline'"
    assert lines[1].startswith("hint: run it again with --debug and report")
    assert len(lines) == 2
    assert command_line.main(["info", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 99 bytes")])
def test_no_memory_left(monkeypatch, capsys, error):
    def hungry():
        raise error

    monkeypatch.setattr(info, "run", hungry)
    assert command_line.main(["info"]) == 4
    assert capsys.readouterr().err.startswith("error: out of memory: ")
