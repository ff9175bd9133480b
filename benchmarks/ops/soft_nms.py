"""Soft non-maximum suppression of one set of boxes, and of many."""

import torch
from fastvision import ops
from fastvision.ops.box_iou import box_iou_reference
from fastvision.ops.soft_nms import soft_nms_reference
from torch import Tensor

from .. import inputs
from ..workload import Case, Workload

SIGMA, LOWEST = 0.5, 1e-3


def eager_loop(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """The usual loop: takes the best box, lowers the scores of the others, drops those below the threshold."""
    index, kept, kept_scores = torch.arange(len(boxes), device=boxes.device), [], []
    while len(index):
        best = scores.argmax()
        kept.append(index[best])
        kept_scores.append(scores[best])
        overlaps = box_iou_reference(boxes[best, None], boxes)[0]
        scores = scores * torch.exp(-overlaps.square() / SIGMA)
        scores[best] = 0
        left = scores > LOWEST
        index, boxes, scores = index[left], boxes[left], scores[left]
    return torch.stack(kept), torch.stack(kept_scores)


def one(device: torch.device, boxes: int) -> Case:
    b, s = (torch.from_numpy(a).to(device) for a in inputs.clustered(boxes))
    _, expected = soft_nms_reference(b.double().cpu(), s.double().cpu(), sigma=SIGMA, score_threshold=LOWEST)
    return Case(
        ours=lambda: ops.soft_nms(b, s, sigma=SIGMA, score_threshold=LOWEST),
        expected=lambda: expected,
        part=lambda result: result[1],  # scores alike to the last bit may change places
        rivals={"eager": lambda: eager_loop(b, s)},
        bytes=20 * boxes + 12 * len(expected),
        operations=16 * boxes * len(expected) / 2,
    )


def batch(device: torch.device, segments: int, boxes: int) -> Case:
    """Images and classes side by side; the rival takes them one by one."""
    drawn = [inputs.clustered(boxes, seed) for seed in range(segments)]
    b, s = (torch.stack([torch.from_numpy(a) for a in column]).to(device) for column in zip(*drawn))
    some = slice(0, None, max(1, segments // 4))
    chosen = zip(b[some].double().cpu(), s[some].double().cpu())
    expected = [soft_nms_reference(*pair, sigma=SIGMA, score_threshold=LOWEST)[1] for pair in chosen]

    def without_padding(result: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
        _, scores, counts = (tensor[some] for tensor in result)
        return [row[:count] for row, count in zip(scores, counts)]

    return Case(
        ours=lambda: ops.soft_nms_padded(b, s, sigma=SIGMA, score_threshold=LOWEST),
        expected=lambda: expected,
        part=without_padding,
        rivals={"eager": lambda: [eager_loop(*pair) for pair in zip(b, s)]},
        views={"eager": lambda results: [scores for _, scores in results[some]]},
        bytes=segments * boxes * 32,
        operations=16 * segments * boxes * sum(map(len, expected)) / len(expected) / 2,
    )


SMOKE = {"boxes": 60}
WORKLOADS = [
    Workload("1000 boxes", one, {"boxes": 1000}, SMOKE),
    Workload("5000 boxes", one, {"boxes": 5000}, SMOKE),
    Workload("16 x 300 boxes", batch, {"segments": 16, "boxes": 300}, {**SMOKE, "segments": 2}, device="cpu"),
    Workload("640 x 1000 boxes", batch, {"segments": 640, "boxes": 1000}, {**SMOKE, "segments": 2}, device="cuda"),
]
