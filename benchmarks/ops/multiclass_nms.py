"""Detections from class scores: threshold, best thousand, suppression per class."""

from typing import Any

import torch
from fastvision import ops

from .. import inputs
from ..rivals import torchvision
from ..workload import Case, Workload

Detections = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # boxes, scores, labels
SCORE, IOU, BEST, DETECTIONS = 0.05, 0.5, 1000, 100


def build(device: torch.device, images: int, boxes: int, classes: int) -> Case:
    corners = torch.stack([torch.from_numpy(inputs.clustered(boxes, seed)[0]) for seed in range(images)])
    # A few per cent of the scores pass the threshold, as after training.
    scores = torch.sigmoid(inputs.normal((images, boxes, classes), torch.device("cpu")) * 1.5 - 6)
    b, s = corners[:, :, None].to(device), scores.to(device)

    def one_by_one() -> list[Detections]:
        """As torchvision's RetinaNet does it."""
        results = []
        for one, its_scores in zip(b[:, :, 0], s.flatten(1)):
            passed = torch.nonzero(its_scores > SCORE)[:, 0]
            best, order = its_scores[passed].topk(min(BEST, len(passed)))
            row = torch.div(passed[order], classes, rounding_mode="floor")
            label = passed[order] % classes
            keep = torchvision.ops.batched_nms(one[row], best, label, IOU)[:DETECTIONS]
            results.append((one[row[keep]], best[keep], label[keep]))
        return results

    def expected() -> list[Detections]:
        results = []
        for one, its_scores in zip(corners, scores.flatten(1)):
            passed = torch.nonzero(its_scores.double() > SCORE)[:, 0]
            best = passed[its_scores[passed].argsort(descending=True, stable=True)[:BEST]]
            row, label = best // classes, best % classes
            keep, _ = inputs.greedy_nms(one[row].numpy(), its_scores[best].numpy(), IOU, label.numpy())
            kept = keep[:DETECTIONS]
            results.append((one[row[kept]].double(), its_scores[best[kept]].double(), label[kept]))
        return results

    def without_padding(result: Any) -> list[Detections]:
        return [
            (boxes[:n], scores[:n], labels[:n])
            for boxes, scores, labels, n in zip(result.boxes, result.scores, result.labels, result.count)
        ]

    return Case(
        ours=lambda: ops.multiclass_nms(
            b, s, score_threshold=SCORE, iou_threshold=IOU, pre_topk=BEST, max_output=DETECTIONS
        ),
        expected=expected,
        part=without_padding,
        rivals={"torchvision": one_by_one},
        views={"torchvision": list},
        bytes=4 * scores.numel() + images * BEST * 16 + images * DETECTIONS * 40,
        operations=scores.numel(),
    )


SMOKE = {"boxes": 100, "classes": 3}
WORKLOADS = [
    Workload("16800 boxes x 80 classes", build, {"images": 1, "boxes": 16_800, "classes": 80}, SMOKE),
    Workload("8 x 1000 boxes x 90 classes", build, {"images": 8, "boxes": 1000, "classes": 90}, SMOKE),
]
