"""``fastvision predict``: detections of images as pictures and in COCO's results format."""

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from fastvision import ops
from fastvision.data import IMAGE_EXTENSIONS, ImageError, ImageWarning, image_to_tensor, load_image
from fastvision.models.detection import Detections
from fastvision.viz import draw_detections
from PIL import Image

from .errors import DATA, USAGE, CommandError, one_line, reason
from .files import output_directory
from .model_files import load_model, use_device
from .progress import Progress

Entry = dict[str, Any]
_LARGEST_JPEG = 65_500  # pixels on a side that libjpeg writes


def run(options: argparse.Namespace) -> int:
    if options.output is None and not options.json:
        raise CommandError(USAGE, "expected --output DIR, --json or both", "fastvision predict --help")
    with nullcontext() if options.output is None else output_directory(options.output) as output:
        paths = _image_paths(options.images)
        names = _picture_names(paths)
        if output is not None and options.draw:
            _check_no_input_is_lost(paths, [options.output / name for name in names])
        if options.threads:
            torch.set_num_threads(options.threads)
        device = use_device(options.device)
        model, class_names = load_model(options.weights, options.model, options.num_classes)
        model.to(device)

        def show(number: int, picture: Image.Image, found: Detections) -> None:
            if output is not None and options.draw:
                output.write(names[number - 1], _drawn(picture, found, class_names, paths[number - 1]))

        entries, skipped = _predict_all(options, paths, model, device, show)
        text = "[" + ",\n".join(json.dumps(entry) for entry in entries) + "]\n"
        if output is not None:
            output.write("predictions.json", text.encode())
            if options.skip_bad:
                lines = "".join(f"{line}\n" for line in skipped)
                output.write("skipped.txt", lines.encode(errors="surrogateescape"))
    if options.json:
        print(text, end="")
    else:
        done = f"detections: {len(entries)}, images: {len(paths) - len(skipped)}"
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


def _picture_names(paths: list[Path]) -> list[str]:
    """The names of the images; of several with one name the later ones get a number."""
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        suffix = ".jpg" if _is_jpeg(path) else ".png"
        name, number = path.stem + suffix, 2
        while name in taken:
            name, number = f"{path.stem}-{number}{suffix}", number + 1
        taken.add(name)
        names.append(name)
    return names


def _is_jpeg(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg")


def _check_no_input_is_lost(paths: list[Path], targets: list[Path]) -> None:
    inputs = {os.path.realpath(path) for path in paths}
    for target in targets:
        if os.path.realpath(target) in inputs:
            raise CommandError(
                USAGE,
                f"--output: the annotated picture would replace the image {target}",
                "choose another directory with --output, or --no-draw",
            )


def _predict_all(
    options: argparse.Namespace,
    paths: list[Path],
    model: Callable[[list[torch.Tensor]], list[Detections]],
    device: torch.device,
    show: Callable[[int, Image.Image, Detections], None],
) -> tuple[list[Entry], list[str]]:
    """COCO results of all images, and why images were skipped; ``show`` is called for every other image."""
    entries: list[Entry] = []
    skipped: list[str] = []
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
        sure = found.scores >= options.score
        masks = None if found.masks is None else found.masks[sure].cpu()
        found = Detections(found.boxes[sure].cpu(), found.scores[sure].cpu(), found.labels[sure].cpu(), masks)
        entries += _entries(number, path, found)
        show(number, picture, found)
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


def _entries(image_id: int, path: Path, found: Detections) -> list[Entry]:
    """COCO results of one image, whose number is its place among the images from 1."""
    entries: list[Entry] = []
    sizes = found.boxes[:, 2:] - found.boxes[:, :2]
    rows = zip(found.boxes.tolist(), sizes.tolist(), found.scores.tolist(), found.labels.tolist())
    for corner, size, score, label in rows:
        box = [round(value, 3) for value in (*corner[:2], *size)]
        entry = {"image_id": image_id, "file_name": str(path), "category_id": label, "bbox": box}
        entries.append(entry | {"score": round(score, 6)})
    if found.masks is not None:
        for entry, runs in zip(entries, ops.rle_encode(found.masks)):
            entry["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode()}
    return entries


def _drawn(picture: Image.Image, found: Detections, names: list[str], path: Path) -> bytes:
    """The annotated picture as a file of the image's kind."""
    drawn = draw_detections(
        picture, found.boxes, labels=found.labels, scores=found.scores, masks=found.masks, names=names
    )
    out = io.BytesIO()
    if not _is_jpeg(path):
        drawn.save(out, "PNG")
    elif max(drawn.size) > _LARGEST_JPEG:
        raise CommandError(
            DATA, f"{path}: too large for an annotated JPEG: {drawn.width} x {drawn.height}", "--no-draw"
        )
    else:
        drawn.save(out, "JPEG", quality=92)
    return out.getvalue()
