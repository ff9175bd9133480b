import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from html.parser import HTMLParser

import pytest
import torch
from fastvision.data import DigitsOnPhotos
from PIL import Image
from safetensors import safe_open
from shell import command, run, run_python

FILES = ["metrics.json", "pr_curve.png", "predictions.png", "report.html", "weights.safetensors"]
TIMES = {"train_seconds", "train_cpu_seconds", "seconds_per_image"}
SMALL = """
import sys
from fastvision_cli import demo, main
demo.TRAIN_IMAGES, demo.TEST_IMAGES, demo.SHOWN_IMAGES = 24, 10, 2
sys.exit(main({words!r}))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The result of training for two seconds, and its folder."""
    folder = tmp_path_factory.mktemp("demo") / "runs" / "first"
    return run("demo", "--budget", "2", "--output", folder).succeeded(), folder


def test_writes_all_files(trained):
    result, folder = trained
    assert sorted(p.name for p in folder.iterdir()) == FILES
    assert "on 300 held-out images: box AP 0." in result.out
    assert f"wrote {folder / 'report.html'}" in result.out
    for name in ("pr_curve.png", "predictions.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 400
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["images"] == 300
    assert metrics["budget_seconds"] == 2
    assert metrics["train_images"] % 8 == 0
    assert 2 <= metrics["train_seconds"] < 30
    assert 0 < metrics["train_cpu_seconds"] < 4
    for key in ("box_AP", "box_AP50", "box_AP75", "mask_AP", "mask_AP50", "mask_AP75"):
        assert 0 <= metrics[key] <= 1
    assert set(metrics["final_losses"]) == {
        "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask",
    }  # fmt: skip


def test_output_that_is_no_terminal_has_plain_lines(trained):
    result, _ = trained
    assert "\r" not in result.out + result.err
    assert "\x1b" not in result.out + result.err
    assert len(result.err.splitlines()) <= 1 + result.cpu_seconds * 2  # one in five seconds, on a busy machine too


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.references, self.pictures, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.references += [values[key] for key in ("src", "srcset", "href", "data", "action") if key in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag == "img":
            assert values["alt"]
            self.pictures.append(values["src"])
        assert tag not in ("script", "link", "iframe", "object")
        if tag not in ("img", "meta", "source", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_sound_file(trained):
    _, folder = trained
    text = (folder / "report.html").read_text("utf-8")
    page = Page(text)
    assert not page.open
    assert len(page.pictures) >= 2 * 12 + 3
    assert all(reference.startswith(("data:image/", "#")) for reference in page.references)
    assert not re.search(r"url\(|@import", text)
    assert len(set(page.ids)) == len(page.ids)
    assert len(text) < 2_000_000
    metrics = json.loads((folder / "metrics.json").read_text())
    for key in ("box_AP50", "mask_AP50"):
        assert f"{metrics[key]:.3f}" in text


def test_predict_takes_the_weights(trained, tmp_path):
    _, folder = trained
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        note = json.loads(file.metadata()["fastvision"])
    assert note["class_names"] == list(DigitsOnPhotos.class_names)
    image, _ = DigitsOnPhotos("test", length=1)[0]
    Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(tmp_path / "image.png")
    words = ("--weights", folder / "weights.safetensors", "--output", tmp_path / "out")
    run("predict", tmp_path / "image.png", *words).succeeded()
    assert (tmp_path / "out/image.png").is_file()


def test_the_same_seed_gives_the_same_bits_and_a_terminal_sees_a_bar(tmp_path):
    def program(name):
        return SMALL.format(words=["demo", "--seed", "3", "--threads", "2", "--output", str(tmp_path / name)])

    def bits(name):
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        assert metrics["train_images"] == 24
        weights = (tmp_path / name / "weights.safetensors").read_bytes()
        return weights, {key: value for key, value in metrics.items() if key not in TIMES}

    run_python(program("first")).succeeded()
    code, seen = run_in_terminal([sys.executable, "-c", program("again")])
    assert code == 0, seen
    assert "training: 100%|█" in seen
    assert "evaluating: 100%|█" in seen
    assert bits("first") == bits("again")


def run_in_terminal(arguments):
    """The exit code and what stood on stderr, a terminal of 80 columns."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    seen = b""
    with subprocess.Popen(arguments, stderr=terminal, stdout=subprocess.DEVNULL) as process:
        os.close(terminal)
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(controller, 4096):
                seen += part
    os.close(controller)
    return process.returncode, seen.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_training(tmp_path, number, code):
    with subprocess.Popen(
        command("demo", "--output", tmp_path / "out"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline().startswith(b"training mask_rcnn_tiny")
        time.sleep(1)
        process.send_signal(number)
        err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == code
    assert err.splitlines()[-1] == f"error: stopped by {number.name}"
    assert not (tmp_path / "out").exists()


def test_failures_before_the_training(tmp_path):
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    result = run("demo", "--device", "cuda", "--output", tmp_path / "out", env=hidden)
    result.failed(4, "--device cuda", str(torch.__version__), f"torch.version.cuda is {torch.version.cuda}", "hint:")
    assert not (tmp_path / "out").exists()
    run("demo", "--output", "/proc").failed(4, "/proc", "--output")
    missing = "import sys; sys.modules['jinja2'] = None; " + SMALL.format(words=["demo"]).strip().replace("\n", "; ")
    run_python(missing, cwd=tmp_path).failed(4, "jinja2", 'pip install "fastvision[demo]"')
    assert not list(tmp_path.iterdir())
