import json
import os
import pickle
import resource
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from fastvision import ops
from fastvision.models.detection import mask_rcnn_tiny
from PIL import Image
from shell import command, run

ALL = ("--score", "0")


def noise(width=96, height=64, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def results(folder):
    return json.loads((folder / "predictions.json").read_text())


def without_names(entries):
    return [{key: value for key, value in entry.items() if key != "file_name"} for entry in entries]


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    noise().save(path)
    return path


def test_pictures_and_coco_results_of_any_size_and_kind(weights, tmp_path):
    # One pixel, one column, all colours, names in any script, a loop of links, other files: nothing ends the command.
    images, out = tmp_path / "images", tmp_path / "deep" / "out"
    images.mkdir()
    sizes = {"a.jpg": (96, 64), "b.png": (1, 1), "c.png": (1, 20_000), "d.webp": (300, 200), "e.tiff": (40, 41)}
    for name, size in sizes.items():
        noise(*size).save(images / name)
    (images / "notes.txt").write_text("no image")
    (images / "loop").symlink_to(images)
    (images / "loop.png").symlink_to(images / "loop.png")
    again = tmp_path / "a.jpeg"
    noise(seed=1).save(again)
    environment = {k: v for k, v in os.environ.items() if k != "DISPLAY"}
    result = run(
        "predict", images, again, "--weights", weights, "--output", out, *ALL, env=environment | {"LC_ALL": "C"}
    ).succeeded()
    assert result.messages() == []
    assert sorted(p.name for p in out.iterdir()) == [
        "a-2.jpg", "a.jpg", "b.png", "c.png", "d.png", "e.png", "predictions.json",
    ]  # fmt: skip
    assert {p.name: Image.open(p).size for p in out.glob("[b-e].png")} == {
        f"{name[0]}.png": size for name, size in sizes.items() if name != "a.jpg"
    }
    entries = results(out)
    paths = [*(images / name for name in sizes), again]
    assert {entry["image_id"] for entry in entries} >= {1, 4, 5, 6}
    for entry in entries:
        path = paths[entry["image_id"] - 1]
        width, height = Image.open(path).size
        x, y, w, h = entry["bbox"]
        assert entry["file_name"] == str(path)
        assert 0 <= x <= x + w <= width + 1e-3
        assert 0 <= y <= y + h <= height + 1e-3
        assert entry["category_id"] in (1, 2, 3)
        assert 0 <= entry["score"] <= 1
        runs = {"size": entry["segmentation"]["size"], "counts": entry["segmentation"]["counts"].encode()}
        assert ops.rle_decode([runs]).shape == (1, height, width)


def test_pycocotools_reads_the_results(run_here, weights, photo, tmp_path):
    from pycocotools.coco import COCO

    run_here("predict", photo, "--weights", weights, "--output", tmp_path / "out", *ALL).succeeded()
    truth = COCO()
    truth.dataset = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": k} for k in (1, 2, 3)]}
    truth.createIndex()
    loaded = truth.loadRes(str(tmp_path / "out/predictions.json"))
    assert len(loaded.getAnnIds()) == len(results(tmp_path / "out")) > 0


def test_exif_orientation(run_here, weights, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    noise().save(tmp_path / "turned.png", exif=exif.tobytes())
    noise().transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    entries = [
        json.loads(run_here("predict", tmp_path / name, "--weights", weights, "--json", *ALL).succeeded().out)
        for name in ("turned.png", "upright.png")
    ]
    assert entries[0]
    assert without_names(entries[0]) == without_names(entries[1])


def test_no_images(run_here, weights, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run_here("predict", tmp_path / "empty", "--weights", weights, "--output", tmp_path / "out")
    result.failed(3, "0 images found", str(tmp_path / "empty"), ".jpg", ".webp")
    assert not (tmp_path / "out").exists()


def test_a_broken_image_ends_it_or_is_skipped(run_here, weights, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    noise().save(images / "a.png")
    noise(300, 300).save(images / "b.jpg")
    (images / "b.jpg").write_bytes((images / "b.jpg").read_bytes()[:300])
    noise().save(images / "c.png")
    out.mkdir()
    earlier = {"a.png": b"of an earlier run", "predictions.json": b"also"}
    for name, data in earlier.items():
        (out / name).write_bytes(data)

    words = ("predict", images, tmp_path / "missing.png", "--weights", weights, "--output", out)
    run_here(*words).failed(3, str(images / "b.jpg"), "truncated", "--skip-bad")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == earlier

    result = run_here(*words, "--skip-bad", "--no-draw", *ALL).succeeded()
    skipped = (out / "skipped.txt").read_text().splitlines()
    assert len(skipped) == 2
    assert skipped[0].startswith(f"{images / 'b.jpg'}: ")
    assert skipped[1] == f"{tmp_path / 'missing.png'}: No such file or directory"
    assert result.messages() == [f"warning: skipped {line}" for line in skipped]
    assert {entry["image_id"] for entry in results(out)} == {1, 3}
    assert (out / "a.png").read_bytes() == earlier["a.png"]


def test_of_ten_thousand_frames_the_first(weights, tmp_path):
    first, *others = [Image.new("L", (8, 8), shade % 256) for shade in range(10_000)]
    first.save(tmp_path / "many.gif", save_all=True, append_images=others)
    result = run("predict", tmp_path / "many.gif", "--weights", weights, "--json", *ALL).succeeded()
    assert {entry["image_id"] for entry in json.loads(result.out)} == {1}
    assert len(result.messages()) == 1
    assert result.messages()[0].startswith(f"warning: {tmp_path / 'many.gif'}: has several frames")
    assert result.cpu_seconds < 8  # most of it imports torch


def test_inputs_are_not_overwritten(run_here, weights, photo, tmp_path):
    before = photo.read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    run_here("predict", photo, "--weights", weights, "--output", tmp_path / "link").failed(
        2, "would replace", "--no-draw"
    )
    assert photo.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "photo.png"]


class TouchesAFile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


def test_weights_never_run_code(run_here, photo, tmp_path):
    torch.save({"model": TouchesAFile(tmp_path / "PWNED")}, tmp_path / "evil.pt")
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(TouchesAFile(tmp_path / "PWNED")))
    for name in ("evil.pt", "evil.bin"):
        words = ("--model", "mask_rcnn_tiny", "--num-classes", "4", "--json")
        run_here("predict", photo, "--weights", tmp_path / name, *words).failed(3, name, "weights_only", "safetensors")
    assert not (tmp_path / "PWNED").exists()


def test_weights_that_do_not_fit(run_here, weights, photo, tmp_path):
    torch.save(mask_rcnn_tiny(21).state_dict(), tmp_path / "voc.pt")
    words = ("predict", photo, "--json", "--weights", tmp_path / "voc.pt", "--model", "mask_rcnn_tiny")
    result = run_here(*words, "--num-classes", "81")
    result.failed(3, "voc.pt does not fit", "(21, 128) in the file, (81, 128) in the model", "--num-classes")
    assert result.err.count(" in the file, ") == 5
    assert "; and 1 more" in result.err
    assert run_here(*words, "--num-classes", "21").succeeded().out.startswith("[")
    run_here(*words).failed(2, "voc.pt", "--model and --num-classes")


BROKEN = {
    "cut.safetensors": lambda whole: whole[:-1],
    "empty.safetensors": lambda whole: b"",
    "text.pt": lambda whole: b"hello",
    "array.pt": lambda whole: pickle.dumps([1, 2]),
    "classes.safetensors": lambda whole: whole.replace(b'num_classes\\": 4', b'num_classes\\": -'),
    "model.safetensors": lambda whole: whole.replace(b"mask_rcnn_tiny", b"mask_rcnn_evil"),
    "many.safetensors": lambda whole: whole.replace(b'classes\\": 4', b'classes\\":1e9'),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_weights(run_here, weights, photo, tmp_path, name):
    whole = weights.read_bytes()
    path = tmp_path / name
    path.write_bytes(BROKEN[name](whole))
    assert path.read_bytes() != whole
    more = ("--model", "mask_rcnn_tiny", "--num-classes", "4") if name.endswith(".pt") else ()
    run_here("predict", photo, "--weights", path, "--json", *more).failed(3, str(path))


def test_weights_that_are_not_there(run_here, photo, tmp_path):
    run_here("predict", photo, "--weights", tmp_path, "--json").failed(2, f"directory {tmp_path}")
    run_here("predict", photo, "--weights", tmp_path / "none.pt", "--json").failed(3, "none.pt: No such file")


@pytest.mark.parametrize("place", ["/proc", "file/below", "file"])
def test_output_that_cannot_be_written_is_found_first(photo, tmp_path, place):
    (tmp_path / "file").write_bytes(b"mine")
    result = run("predict", photo, "--weights", "not looked at", "--output", tmp_path / place, cwd=tmp_path)
    result.failed(2 if place == "file" else 4, f"directory {tmp_path / place}" if place != "file" else "the file")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_full_disk_changes_nothing(weights, photo, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "predictions.json").write_bytes(b"earlier")

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # as if no more room were left

    result = run("predict", photo, "--weights", weights, "--output", out, *ALL, preexec_fn=limited)
    result.failed(4, f"cannot write {out / 'photo.png'}: File too large")
    assert [(p.name, p.read_bytes()) for p in out.iterdir()] == [("predictions.json", b"earlier")]
    with open("/dev/full", "w") as full:
        run("predict", photo, "--weights", weights, "--json", *ALL, stdout=full).failed(4, "No space left on device")


def test_a_pipe_that_closes_early(weights, photo):
    words = command("predict", *[photo] * 20, "--json", "--weights", weights, *ALL)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(10).startswith(b'[{"image_i')
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode in (0, 141)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_nothing_half_written(weights, photo, tmp_path, number, code):
    out = tmp_path / "new" / "out"
    words = command("predict", *[photo] * 3000, "--weights", weights, "--output", out, *ALL)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 60
        while not list(tmp_path.glob("new/out/.fastvision*/photo*.png")) and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(number)
        err = process.communicate()[1].decode()
    assert process.returncode == code
    assert err.splitlines()[-1] == f"error: stopped by {number.name}"
    assert not (tmp_path / "new").exists()


def test_no_cuda(weights, photo):
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    result = run("predict", photo, "--weights", weights, "--json", "--device", "cuda", env=hidden)
    result.failed(4, "--device cuda", str(torch.__version__), f"torch.version.cuda is {torch.version.cuda}", "hint:")


def test_names_of_bytes_that_are_no_text(weights, tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\n.png"
    with open(path, "wb") as file:
        noise().save(file, "PNG")
    result = run("predict", os.fsdecode(path), "--weights", weights, "--output", tmp_path / "out", *ALL).succeeded()
    assert result.messages() == []
    assert os.path.exists(os.fsencode(tmp_path) + b"/out/\xff\n.png")
    assert results(tmp_path / "out")
