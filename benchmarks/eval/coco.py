"""The COCO evaluation of a data set of the size of val2017: 100 detections per image, 7.36 objects, 80 classes.

Times of CocoEvaluator include the update calls, those of the others the loading of results from Python objects.
"""

import contextlib
import functools
import io
from typing import Any

import numpy as np
import torch
from fastvision.metrics import CocoEvaluator, evaluate_coco

from ..rivals import faster_coco_eval, pycocotools
from ..workload import Case, Workload

DETECTIONS, CLASSES, OBJECTS_PER_IMAGE = 100, 80, 7.36
Entries = list[dict[str, Any]]


def draw(images: int) -> tuple[Entries, Entries]:
    """Objects of all sizes; about a third of the detections are shifted copies of an object."""
    rng = np.random.default_rng(0)

    def boxes(count: int) -> np.ndarray:
        corner = rng.uniform(0, 500, (count, 2))
        return np.concatenate([corner, corner + np.exp(rng.uniform(np.log(8), np.log(300), (count, 2)))], 1)

    predictions, targets = [], []
    for image in range(images):
        count = rng.poisson(OBJECTS_PER_IMAGE)
        truth, classes = boxes(count), rng.integers(1, CLASSES + 1, count)
        found, labels = boxes(DETECTIONS), rng.integers(1, CLASSES + 1, DETECTIONS)
        near = min(5 * count, 70)
        if count:
            copied = rng.integers(0, count, near)
            sides = (truth[copied, 2:] - truth[copied, :2])[:, [0, 1, 0, 1]]
            found[:near] = truth[copied] + rng.normal(size=(near, 4)) * sides * 0.08
            labels[:near] = np.where(rng.random(near) < 0.7, classes[copied], labels[:near])
        targets.append(
            {
                "boxes": torch.tensor(truth, dtype=torch.float32),
                "labels": torch.tensor(classes),
                "iscrowd": torch.tensor(rng.random(count) < 0.01),
                "area": torch.tensor((truth[:, 2:] - truth[:, :2]).prod(1) * 0.6),
                "image_id": image,
            }
        )
        predictions.append(
            {
                "boxes": torch.tensor(found, dtype=torch.float32),
                "labels": torch.tensor(labels),
                "scores": torch.tensor(-np.sort(-rng.random(DETECTIONS)), dtype=torch.float32),
            }
        )
    return predictions, targets


def as_json(predictions: Entries, targets: Entries) -> tuple[dict[str, Any], list[Any]]:
    def entries(dicts: Entries, **keys: str) -> Entries:
        rows = []
        for image, entry in enumerate(dicts):
            boxes = entry["boxes"].double()
            boxes[:, 2:] -= boxes[:, :2]
            columns = [boxes.tolist(), entry["labels"].tolist(), *(entry[key].tolist() for key in keys)]
            for box, label, *others in zip(*columns):
                rows.append({"image_id": image, "category_id": label, "bbox": box, **dict(zip(keys.values(), others))})
        return rows

    annotations = entries(targets, area="area", iscrowd="iscrowd")
    annotations = [{**a, "id": i + 1, "iscrowd": int(a["iscrowd"])} for i, a in enumerate(annotations)]
    truth = {
        "images": [{"id": i} for i in range(len(targets))],
        "categories": [{"id": c} for c in range(1, CLASSES + 1)],
        "annotations": annotations,
    }
    return truth, entries(predictions, scores="score")


def with_api(coco: Any, evaluation: Any, truth: dict[str, Any], results: list[Any]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        index = coco()
        index.dataset = truth
        index.createIndex()
        run = evaluation(index, index.loadRes([dict(r) for r in results]), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [float(v) for v in run.stats[:12]]


def build(device: torch.device, images: int, batch: int = 16, from_json: bool = False) -> Case:
    predictions, targets = draw(images)
    truth, results = as_json(predictions, targets)

    def ours() -> list[float]:
        if from_json:
            return list(evaluate_coco(truth, results).values())
        evaluator = CocoEvaluator()
        for i in range(0, images, batch):
            evaluator.update(predictions[i : i + batch], targets[i : i + batch])
        return list(evaluator.compute().values())

    def with_pycocotools() -> list[float]:
        return with_api(pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval, truth, results)

    @functools.cache
    def expected() -> torch.Tensor:
        """pycocotools is the definition."""
        if pycocotools is None:
            raise ImportError("pycocotools")
        return as_tensor(with_pycocotools())

    def as_tensor(scores: list[float]) -> torch.Tensor:
        return torch.tensor(scores, dtype=torch.float64)

    def with_faster_coco_eval() -> list[float]:
        return with_api(faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster, truth, results)

    return Case(
        ours=ours,
        expected=expected,
        part=as_tensor,
        rivals={"pycocotools": with_pycocotools, "faster-coco-eval": with_faster_coco_eval},
        views={"faster-coco-eval": lambda scores: as_tensor(scores).float()},  # right to about 1e-7
        bytes=32.0 * (len(results) + len(truth["annotations"])),
    )


SMOKE = {"images": 20}
WORKLOADS = [
    Workload("5000 images, from tensors", build, {"images": 5000}, SMOKE, device="cpu"),
    Workload("5000 images, from JSON", build, {"images": 5000, "from_json": True}, SMOKE, device="cpu"),
]
