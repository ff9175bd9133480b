"""Boxes to codes and back."""

import math

import torch
from fastvision import ops
from fastvision.ops.box_coder import decode_boxes_reference, encode_boxes_reference

from .. import inputs
from ..rivals import torchvision
from ..workload import Case, Workload

CLIP = math.log(1000 / 16)
SIZE = (inputs.HEIGHT, inputs.WIDTH)


def decode(device: torch.device, boxes: int) -> Case:
    anchors, codes = torch.from_numpy(inputs.boxes(boxes)).to(device), inputs.normal((boxes, 4), device) * 0.3

    def with_torchvision() -> torch.Tensor:
        coder = torchvision.models.detection._utils.BoxCoder((1.0, 1.0, 1.0, 1.0))
        return torchvision.ops.clip_boxes_to_image(coder.decode_single(codes, anchors), SIZE)  # type: ignore[no-any-return]

    return Case(
        ours=lambda: ops.decode_boxes(anchors, codes, image_size=SIZE),
        expected=lambda: decode_boxes_reference(anchors.double(), codes.double(), image_size=SIZE),
        rivals={
            "torchvision": with_torchvision,
            "eager": lambda: decode_boxes_reference(anchors, codes, image_size=SIZE),
        },
        bytes=48 * boxes,
        operations=40 * boxes,
    )


def encode(device: torch.device, boxes: int) -> Case:
    anchors, truth = (torch.from_numpy(inputs.boxes(boxes, seed)).to(device) for seed in (0, 1))

    def with_torchvision() -> torch.Tensor:
        coder = torchvision.models.detection._utils.BoxCoder((1.0, 1.0, 1.0, 1.0))
        return coder.encode_single(truth, anchors)  # type: ignore[no-any-return]

    return Case(
        ours=lambda: ops.encode_boxes(anchors, truth),
        expected=lambda: encode_boxes_reference(anchors.double(), truth.double()),
        rivals={"torchvision": with_torchvision, "eager": lambda: encode_boxes_reference(anchors, truth)},
        bytes=48 * boxes,
        operations=40 * boxes,
    )


SMOKE = {"boxes": 300}
WORKLOADS = [
    Workload("decode 268,569", decode, {"boxes": 268_569}, SMOKE),
    Workload("decode 1000", decode, {"boxes": 1000}, SMOKE),
    Workload("encode 268,569", encode, {"boxes": 268_569}, SMOKE),
]
