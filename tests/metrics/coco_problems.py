"""Random COCO data sets, the reference's answer, and the same data as torchvision's dictionaries."""

import contextlib
import copy
import io

import numpy as np
import pycocotools.mask
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

HEIGHT, WIDTH = 60, 80


def reference(ground_truth, results, kind, sigmas=None):
    """pycocotools' COCOeval after summarize()."""
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(over="ignore"):
        truth, found = COCO(), COCO()
        truth.dataset = copy.deepcopy(ground_truth)
        truth.createIndex()
        found.dataset = {**copy.deepcopy(ground_truth), "annotations": []}
        found.createIndex()
        if results:
            found = truth.loadRes(copy.deepcopy(results))
        evaluation = COCOeval(truth, found, kind)
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def draw(seed, kind, keypoints=17):
    """Ground truth and results with crowds, empty images, ties, more than 100 detections of an image, areas at the
    limits of small, medium and large, and degenerate boxes. Coordinates are multiples of 1/8, so that corners and sides
    convert into each other exactly."""
    rng = np.random.default_rng(seed)
    generator = _Generator(rng, kind, float(rng.choice([20, 80, 300])), keypoints)
    categories = rng.choice(100, rng.integers(1, 5), replace=False).tolist()
    image_ids = rng.choice(1000, rng.integers(1, 7), replace=False).tolist()
    annotations, results = [], []
    for image in image_ids:
        mine = []
        for _ in range(rng.choice([0, 1, 3, 12])):
            annotation = generator.object(image, int(rng.choice(categories)))
            _, _, w, h = annotation["bbox"]
            annotation["area"] = float(rng.choice([w * h, 32**2, 96**2, 1e5]))
            annotation["iscrowd"] = int(rng.random() < 0.15)
            mine.append(annotation)
        annotations += mine
        for _ in range(rng.choice([0, 1, 5, 20, 130])):
            found = generator.object(image, int(rng.choice(categories)))
            if mine and rng.random() < 0.7:
                found = generator.near(mine[rng.integers(len(mine))])
            if kind != "bbox":
                del found["bbox"]
            found["score"] = float(np.round(rng.random(), rng.choice([1, 2, 7])))
            results.append(found)
    for number, i in enumerate(rng.permutation(len(annotations)).tolist()):
        annotations[i]["id"] = number + 1
    ground_truth = {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in image_ids],
        "annotations": [annotations[i] for i in rng.permutation(len(annotations))],
        "categories": [{"id": c, "name": str(c)} for c in categories],
    }
    return ground_truth, [results[i] for i in rng.permutation(len(results))]


class _Generator:
    def __init__(self, rng, kind, size, keypoints):
        self.rng, self.kind, self.size, self.keypoints = rng, kind, size, keypoints

    def object(self, image, category):
        x, y = self.eighths(self.rng.uniform(-5, self.size, 2))
        w, h = self.eighths(self.rng.uniform(-1, self.size, 2))
        shape = self.rng.random()
        if shape < 0.1:
            w = 0.0
        elif shape < 0.2:
            w = h = float(self.rng.choice([32, 96]))
        points = self.eighths(self.rng.uniform(-5, self.size, (self.keypoints, 3)))
        for point in points:
            point[2] = int(self.rng.integers(0, 3)) if shape > 0.3 else 0
        return self.complete({"image_id": image, "category_id": category, "bbox": [x, y, w, h]}, points)

    def near(self, annotation):
        noise = self.rng.choice([0, 0.5, 4])
        box = self.eighths(np.array(annotation["bbox"]) + self.rng.normal(size=4) * noise)
        points = np.array(annotation.get("keypoints", [0.0] * 3)).reshape(-1, 3)
        points = self.eighths(points + self.rng.normal(size=points.shape) * noise)
        return self.complete({**{k: annotation[k] for k in ("image_id", "category_id")}, "bbox": box}, points)

    def complete(self, entry, points):
        if self.kind == "segm":
            entry["segmentation"] = self.mask(entry["bbox"])
        if self.kind == "keypoints":
            entry["keypoints"] = [value for point in points for value in point]
            entry["num_keypoints"] = sum(value > 0 for value in entry["keypoints"][2::3])
        return entry

    def mask(self, box):
        x, y, w, h = box
        if self.rng.random() < 0.5:
            polygon = [[x, y, x + w, y, x + w, y + h * 0.7, x, y + h]]
            return pycocotools.mask.merge(pycocotools.mask.frPyObjects(polygon, HEIGHT, WIDTH))
        dense = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        dense[max(int(y), 0) : max(int(y + h), 0), max(int(x), 0) : max(int(x + w), 0)] = 1
        return pycocotools.mask.encode(dense)

    @staticmethod
    def eighths(values):
        return (np.round(np.asarray(values) * 8) / 8).tolist()


def as_dictionaries(ground_truth, results, kind):
    """(predictions, targets), a dictionary per image in the order of the ground truth."""
    predictions, targets = [], []
    for image in ground_truth["images"]:
        truth = [a for a in ground_truth["annotations"] if a["image_id"] == image["id"]]
        found = [r for r in results if r["image_id"] == image["id"]]
        targets.append(
            {
                **_shapes(truth, kind),
                "labels": torch.tensor([a["category_id"] for a in truth], dtype=torch.int64),
                "area": torch.tensor([a["area"] for a in truth]),
                "iscrowd": torch.tensor([a["iscrowd"] for a in truth], dtype=torch.uint8),
                "image_id": image["id"],
            }
        )
        predictions.append(
            {
                **_shapes(found, kind),
                "labels": torch.tensor([r["category_id"] for r in found], dtype=torch.int32),
                "scores": torch.tensor([r["score"] for r in found], dtype=torch.float64),
            }
        )
    return predictions, targets


def _shapes(entries, kind):
    shapes = {}
    if all("bbox" in e for e in entries):
        boxes = torch.tensor([e["bbox"] for e in entries]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        shapes["boxes"] = boxes
    if kind == "segm":
        shapes["masks"] = [e["segmentation"] for e in entries]
    if kind == "keypoints":
        shapes["keypoints"] = torch.tensor([np.reshape(e["keypoints"], (-1, 3)).tolist() for e in entries])
    return shapes
