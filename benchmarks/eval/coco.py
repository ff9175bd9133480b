"""The COCO evaluation against pycocotools and faster-coco-eval: python benchmarks/eval/coco.py [--images 5000]

A data set with the size of COCO val2017's detections: 100 detections per image, 36.8k objects of 80 classes. Times of
CocoEvaluator include the update calls, those of the others the loading of results from Python objects.
"""

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fastvision.metrics import CocoEvaluator, evaluate_coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

try:
    import faster_coco_eval
except ImportError:
    faster_coco_eval = None

DETECTIONS, CLASSES, OBJECTS_PER_IMAGE = 100, 80, 7.36
Dictionaries = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def draw(images: int, seed: int = 0) -> Dictionaries:
    """Objects of all sizes; about a third of the detections are shifted copies of an object."""
    rng = np.random.default_rng(seed)

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


def as_json(predictions: list[dict[str, Any]], targets: list[dict[str, Any]]) -> tuple[dict[str, Any], list[Any]]:
    def entries(dicts: list[dict[str, Any]], **keys: str) -> list[dict[str, Any]]:
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


def with_updates(predictions: list[Any], targets: list[Any], threads: int, batch: int) -> list[float]:
    torch.set_num_threads(threads)
    evaluator = CocoEvaluator()
    for i in range(0, len(targets), batch):
        evaluator.update(predictions[i : i + batch], targets[i : i + batch])
    return list(evaluator.compute().values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5, help="of fastvision; a third of them for the others")
    options = parser.parse_args()
    predictions, targets = draw(options.images)
    truth, results = as_json(predictions, targets)

    def json_on(threads: int) -> list[float]:
        torch.set_num_threads(threads)
        return list(evaluate_coco(truth, results).values())

    contestants: dict[str, Callable[[], list[float]]] = {
        "pycocotools": lambda: with_api(COCO, COCOeval, truth, results),
    }
    if faster_coco_eval is not None:
        fast = faster_coco_eval
        contestants["faster-coco-eval"] = lambda: with_api(fast.COCO, fast.COCOeval_faster, truth, results)
    for threads in (1, 2):
        for batch in (1, 16):
            contestants[f"CocoEvaluator, batches of {batch}, {threads} threads"] = (
                lambda threads=threads, batch=batch: with_updates(predictions, targets, threads, batch)  # type: ignore[misc]
            )
        contestants[f"evaluate_coco on JSON, {threads} threads"] = lambda threads=threads: json_on(threads)  # type: ignore[misc]

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    expected: list[float] = []
    for number in range(options.rounds):
        for name, run in contestants.items():
            ours = "oco" in name and "-" not in name and name != "pycocotools"
            if not ours and number % 3:
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            scores = run()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            expected = expected or scores
            if not np.allclose(scores, expected, rtol=0, atol=1e-12 if ours else 1e-6):
                raise SystemExit(f"{name}: the results differ: {scores} instead of {expected}")

    objects = len(truth["annotations"])
    print(
        f"{options.images} images, {len(results)} detections, {objects} objects, AP {expected[0]:.4f}; seconds, medians"
    )
    print(f"{'':44}{'wall':>9}{'CPU':>9}{'pycocotools / this, CPU':>26}")
    slowest = statistics.median(cpu for _, cpu in times["pycocotools"])
    for name, measured in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*measured))
        print(f"{name:44}{wall:9.3f}{cpu:9.3f}{slowest / cpu:25.1f}x")


if __name__ == "__main__":
    main()
