"""``fastvision predict``: detections of images as pictures and in COCO's results format."""

import argparse
import io
import json
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from fastvision import ops
from fastvision.data import IMAGE_EXTENSIONS, ImageError, ImageWarning, image_to_tensor, load_image
from fastvision.viz import draw_detections
from PIL import Image

from .errors import DATA, USAGE, CommandError, one_line, reason
from .files import output_directory, write_file
from .model_files import load_model, use_device
from .progress import Progress

Entry = dict[str, Any]


def run(options: argparse.Namespace) -> int:
    if options.output is None and not options.json:
        raise CommandError(USAGE, "expected --output DIR, --json or both", "fastvision predict --help")
    with nullcontext() if options.output is None else output_directory(options.output):
        paths = _image_paths(options.images)
        if options.threads:
            torch.set_num_threads(options.threads)
        device = use_device(options.device)
        model, names = load_model(options.weights, options.model, options.num_classes)
        entries, skipped = _predict_all(options, paths, model.to(device), device, names)
        text = "[" + ",\n".join(json.dumps(entry) for entry in entries) + "]\n"
        if options.output is not None:
            write_file(options.output / "predictions.json", text.encode())
            if options.skip_bad:
                write_file(
                    options.output / "skipped.txt",
                    "".join(f"{line}\n" for line in skipped).encode(errors="surrogateescape"),
                )
    if options.json:
        print(text, end="")
    else:
        done = f"{len(entries)} detections in {len(paths) - len(skipped)} images"
        left_out = f", {len(skipped)} skipped (skipped.txt)" if skipped else ""
        print(f"{done}{left_out}: {options.output / 'predictions.json'}")
    return 0


def _image_paths(given: list[Path]) -> list[Path]:
    """Files as given, of directories the image files directly inside, by name."""
    paths: list[Path] = []
    for path in given:
        if not path.is_dir():
            paths.append(path)
            continue
        try:
            inside = sorted(path.iterdir())
        except OSError as error:
            raise CommandError(DATA, f"cannot read the directory {path}: {reason(error)}") from error
        paths += [file for file in inside if file.suffix.lower() in IMAGE_EXTENSIONS and file.is_file()]
    if not paths:
        places = ", ".join(map(str, given))
        raise CommandError(DATA, f"0 images found in {places}", f"accepted extensions: {' '.join(IMAGE_EXTENSIONS)}")
    return paths


def _predict_all(
    options: argparse.Namespace,
    paths: list[Path],
    model: Callable[[list[torch.Tensor]], list[Any]],
    device: torch.device,
    names: list[str],
) -> tuple[list[Entry], list[str]]:
    entries: list[Entry] = []
    skipped: list[str] = []
    taken: set[str] = set()
    progress = Progress()
    for number, path in enumerate(paths, 1):
        try:
            picture = _load(path)
        except (ImageError, OSError) as error:
            why = one_line(error) if isinstance(error, ImageError) else f"{path}: {reason(error)}"
            if not options.skip_bad:
                raise CommandError(DATA, why, "--skip-bad leaves out images that cannot be read") from error
            skipped.append(why)
            print(f"warning: skipped {why}", file=sys.stderr)
            continue
        with torch.inference_mode():
            found = model([image_to_tensor(picture).to(device)])[0]
        kept = found.scores >= options.score
        boxes, scores, labels = found.boxes[kept].cpu(), found.scores[kept].cpu(), found.labels[kept].cpu()
        masks = None if found.masks is None else found.masks[kept].cpu()
        entries += _entries(number, path, boxes, scores, labels, masks)
        if options.output is not None and options.draw:
            drawn = draw_detections(picture, boxes, labels=labels, scores=scores, masks=masks, names=names)
            write_file(options.output / _picture_name(path, taken), _encoded(drawn, path))
        progress.update("predicting", number, len(paths), f"{number} of {len(paths)} images")
    progress.close()
    return entries, skipped


def _load(path: Path) -> Image.Image:
    """The picture; what the reader warns of becomes one line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ImageWarning)
        picture = load_image(path)
    for warning in caught:
        print(f"warning: {one_line(warning.message)}", file=sys.stderr)
    return picture


def _entries(
    image_id: int,
    path: Path,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    labels: torch.Tensor,
    masks: torch.Tensor | None,
) -> list[Entry]:
    """COCO results of one image, whose number is its place among the images from 1."""
    entries: list[Entry] = []
    sizes = boxes[:, 2:] - boxes[:, :2]
    for corner, size, score, label in zip(boxes.tolist(), sizes.tolist(), scores.tolist(), labels.tolist()):
        box = [round(value, 3) for value in (*corner[:2], *size)]
        entry = {"image_id": image_id, "file_name": str(path), "category_id": label, "bbox": box}
        entries.append(entry | {"score": round(score, 6)})
    if masks is not None:
        for entry, runs in zip(entries, ops.rle_encode(masks)):
            entry["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode()}
    return entries


def _picture_name(path: Path, taken: set[str]) -> str:
    """The name of the image; of several with one name the later ones get a number."""
    suffix = ".jpg" if path.suffix.lower() in (".jpg", ".jpeg") else ".png"
    name, number = path.stem + suffix, 2
    while name in taken:
        name, number = f"{path.stem}-{number}{suffix}", number + 1
    taken.add(name)
    return name


def _encoded(picture: Image.Image, path: Path) -> bytes:
    out = io.BytesIO()
    if path.suffix.lower() in (".jpg", ".jpeg"):
        picture.save(out, "JPEG", quality=92)
    else:
        picture.save(out, "PNG")
    return out.getvalue()
