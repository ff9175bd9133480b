"""Matrix NMS of boxes and of masks."""

import torch
from fastvision import ops
from fastvision.ops.box_iou import box_iou_reference
from fastvision.ops.mask_iou import mask_iou_reference
from fastvision.ops.matrix_nms import matrix_nms_reference

from .. import inputs
from ..workload import Case, Workload
from .mask_iou import blobs


def of_boxes(device: torch.device, boxes: int) -> Case:
    b, s = (torch.from_numpy(a).to(device) for a in inputs.clustered(boxes))
    b64, s64 = b.double(), s.double()
    return Case(
        ours=lambda: ops.matrix_nms(b, s),
        expected=lambda: matrix_nms_reference(box_iou_reference(b64, b64), s64),
        rivals={"eager": lambda: matrix_nms_reference(box_iou_reference(b, b), s)},
        bytes=24 * boxes,
        operations=16 * boxes * boxes / 2,
    )


def of_masks(device: torch.device, masks: int, size: tuple[int, int]) -> Case:
    dense = blobs(masks, size, device)
    scores = (torch.randperm(masks, generator=torch.Generator().manual_seed(1)) + 1).to(device) / (masks + 1)
    return Case(
        ours=lambda: ops.matrix_nms(dense, scores),
        expected=lambda: matrix_nms_reference(mask_iou_reference(dense, dense).double(), scores.double()),
        rivals={"eager": lambda: matrix_nms_reference(mask_iou_reference(dense, dense), scores)},
        bytes=dense.numel() + 8 * masks,
        operations=masks * masks / 2 * dense[0].numel() / 32,
    )


WORKLOADS = [
    Workload("500 boxes", of_boxes, {"boxes": 500}, {"boxes": 40}),
    Workload("2000 boxes", of_boxes, {"boxes": 2000}, {"boxes": 40}),
    Workload("500 masks 200x336", of_masks, {"masks": 500, "size": (200, 336)}, {"masks": 6, "size": (20, 30)}),
]
