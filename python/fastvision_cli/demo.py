"""``fastvision demo``: trains a small Mask R-CNN on digits on photographs, evaluates it and writes a report."""

import argparse
import importlib.util
import json
import os
import platform
import time
from collections.abc import Iterator
from typing import Any

import fastvision
import numpy as np
import PIL
import torch
from fastvision.data import DigitsOnPhotos
from fastvision.engine import Step, TrainingLog, one_cycle, train
from fastvision.engine.train import Batch
from fastvision.metrics import CocoEvaluator
from fastvision.models.detection import Detections
from torch import Tensor, nn

from .errors import ENVIRONMENT, CommandError
from .files import output_directory
from .model_files import build_model, use_device, weights_to_bytes
from .progress import Progress, clock

MODEL = "mask_rcnn_tiny"
NUM_CLASSES = 1 + len(DigitsOnPhotos.class_names)
TRAIN_IMAGES, BATCH_SIZE = 6400, 8
TEST_IMAGES, TEST_BATCH_SIZE = 300, 20
LEARNING_RATE, WEIGHT_DECAY, MAX_GRADIENT_NORM = 3e-3, 1e-4, 5.0
SHOWN_IMAGES, SHOWN_SCORE = 12, 0.5

Evaluators = dict[str, CocoEvaluator]


def run(options: argparse.Namespace) -> int:
    missing = [name for name in ("jinja2", "matplotlib", "tqdm") if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(
            ENVIRONMENT, f"the demo needs {', '.join(missing)}", 'install them: pip install "fastvision[demo]"'
        )
    with output_directory(options.output) as output:
        for name, data in _files(options).items():
            output.write(name, data)
    print(f"wrote {options.output / 'report.html'}, and weights, metrics and pictures beside it")
    print(f"next: fastvision predict IMAGE --weights {options.output / 'weights.safetensors'} --output DIR")
    return 0


def _files(options: argparse.Namespace) -> dict[str, bytes]:
    """Train and evaluate; returns the contents of the files by name, the report last."""
    from . import report

    device = use_device(options.device)
    torch.set_num_threads(options.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA asks for determinism
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time
    torch.manual_seed(options.seed)
    model = build_model(MODEL, NUM_CLASSES).to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = sum(p.numel() for p in model.parameters())
    steps = None if options.budget else TRAIN_IMAGES // BATCH_SIZE
    amount = f"{steps * BATCH_SIZE} images" if steps else f"{options.budget:g} seconds"
    threads = f"{options.threads} thread{'s' if options.threads > 1 else ''}"
    print(
        f"training {MODEL} ({parameters:,} parameters) from scratch for {amount}, {threads}, seed {options.seed}",
        flush=True,
    )
    progress = Progress()
    log = _train(model, steps, options, device, progress)
    evaluators, seconds_per_image = _evaluate(model, device, progress)
    progress.close()
    metrics = _metrics(options, log, evaluators, parameters, seconds_per_image)
    print(
        f"trained on {metrics['train_images']} images in {clock(metrics['train_seconds'])} "
        f"({metrics['train_cpu_seconds']:.0f} s of CPU time)\n"
        f"on {TEST_IMAGES} held-out images: box AP {metrics['box_AP']:.3f}, AP50 {metrics['box_AP50']:.3f}; "
        f"mask AP {metrics['mask_AP']:.3f}, AP50 {metrics['mask_AP50']:.3f}",
        flush=True,
    )
    examples = _examples(model, device)
    curves = {"box": evaluators["bbox"].curves(), "mask": evaluators["segm"].curves()}
    note = {"model": MODEL, "num_classes": NUM_CLASSES, "class_names": DigitsOnPhotos.class_names}
    return {
        "weights.safetensors": weights_to_bytes(model, note | {"fastvision": fastvision.__version__}),
        "metrics.json": (json.dumps(metrics, indent=2) + "\n").encode(),
        "predictions.png": report.predictions_png(examples),
        "pr_curve.png": report.precision_recall_png(curves),
        "report.html": report.html(metrics, log, curves, examples).encode(),
    }


def _train(
    model: nn.Module, steps: int | None, options: argparse.Namespace, device: torch.device, progress: Progress
) -> TrainingLog:
    def show(step: Step) -> None:
        rate = step.images / max(step.seconds, 1e-9)
        progress.update("training", round(step.share, 4), 1, f"loss {step.loss:.3f}, {rate:.0f} images/s")

    return train(
        model,  # type: ignore[arg-type]
        _batches(options.seed, device),
        torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True),
        one_cycle(LEARNING_RATE),
        steps=steps,
        seconds=options.budget,
        max_gradient_norm=MAX_GRADIENT_NORM,
        on_step=show,
    )


def _batches(seed: int, device: torch.device) -> Iterator[Batch]:
    """Images that are never repeated, without end."""
    data = DigitsOnPhotos("train", length=2**62, seed=seed)
    first = 0
    while True:
        items = [data[i] for i in range(first, first + BATCH_SIZE)]
        targets = [{key: value.to(device) for key, value in target.items()} for _, target in items]
        yield [image.to(device) for image, _ in items], targets
        first += BATCH_SIZE


def _evaluate(model: nn.Module, device: torch.device, progress: Progress) -> tuple[Evaluators, float]:
    """Evaluators of boxes and masks on the held-out images, and the seconds that the model takes for one."""
    evaluators: Evaluators = {kind: CocoEvaluator(kind) for kind in ("bbox", "segm")}
    data, seconds = DigitsOnPhotos("test", length=TEST_IMAGES), 0.0
    model.eval()
    for first in range(0, TEST_IMAGES, TEST_BATCH_SIZE):
        items = [data[i] for i in range(first, min(first + TEST_BATCH_SIZE, TEST_IMAGES))]
        start = time.perf_counter()
        with torch.inference_mode():
            found = model([image.to(device) for image, _ in items])
        seconds += time.perf_counter() - start
        predictions = [_tensors(detections) for detections in found]
        for evaluator in evaluators.values():
            evaluator.update(predictions, [target for _, target in items])
        progress.update("evaluating", first + len(items), TEST_IMAGES)
    return evaluators, seconds / TEST_IMAGES


def _metrics(
    options: argparse.Namespace, log: TrainingLog, evaluators: Evaluators, parameters: int, seconds_per_image: float
) -> dict[str, Any]:
    box, mask = evaluators["bbox"].compute(), evaluators["segm"].compute()
    last = log.steps[-1]
    return {
        "box_AP": box["AP"],
        "box_AP50": box["AP50"],
        "box_AP75": box["AP75"],
        "mask_AP": mask["AP"],
        "mask_AP50": mask["AP50"],
        "mask_AP75": mask["AP75"],
        "images": TEST_IMAGES,
        "train_images": last.images,
        "train_seconds": round(last.seconds, 3),
        "train_cpu_seconds": round(log.cpu_seconds, 3),
        "seconds_per_image": round(seconds_per_image, 6),
        "final_losses": last.losses,
        "model": MODEL,
        "parameters": parameters,
        "seed": options.seed,
        "threads": options.threads,
        "device": options.device,
        "budget_seconds": options.budget,
        "versions": {
            "fastvision": fastvision.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
        },
        "machine": {"system": platform.platform(), "cpu_kernels": fastvision.build_info()["cpu_isa"]},
    }


def _examples(model: nn.Module, device: torch.device) -> list[Any]:
    """The first held-out images with their ground truth and detections."""
    from .report import Example

    data = DigitsOnPhotos("test", length=SHOWN_IMAGES)
    with torch.inference_mode():
        found = model([data[i][0].to(device) for i in range(SHOWN_IMAGES)])
    examples = []
    for i, detections in enumerate(found):
        tensors = _tensors(detections)
        sure = tensors["scores"] >= SHOWN_SCORE
        examples.append(Example(*data[i], {key: value[sure] for key, value in tensors.items()}))
    return examples


def _tensors(found: Detections) -> dict[str, Tensor]:
    values = {"boxes": found.boxes, "scores": found.scores, "labels": found.labels, "masks": found.masks}
    return {key: value.cpu() for key, value in values.items() if value is not None}
