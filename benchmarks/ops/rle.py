"""Run-length masks against pycocotools. These ops take and return host memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fastvision import ops

from ..rivals import faster_coco_eval, pycocotools
from ..workload import Case, Workload


def draw_masks(count: int, height: int, width: int) -> np.ndarray:
    """Blobs of 20 to 300 pixels radius with a wavy outline."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    masks = np.zeros((count, height, width), np.uint8)
    for mask in masks:
        dy, dx = y - rng.uniform(0, height), x - rng.uniform(0, width)
        a, b = np.exp(rng.uniform(np.log(20), np.log(300), 2))
        mask[:] = (dy / a) ** 2 + (dx / b) ** 2 < 1 + 0.1 * np.sin(9 * np.arctan2(dy, dx))
    return masks


def from_rows(masks: Any) -> list[dict[str, Any]]:
    """pycocotools' run lengths of row-major masks, which it wants column-major."""
    arrays = np.asarray(masks.cpu() if isinstance(masks, torch.Tensor) else masks).astype(np.uint8, copy=False)
    return [pycocotools.mask.encode(np.asfortranarray(mask)) for mask in arrays]


def to_runs(mask: np.ndarray) -> str:
    """The definition of the compressed form: runs in column-major order, zeros first, as differences to the last but
    one from the fourth on, in groups of five bits."""
    flat = np.concatenate([[0], mask.T.ravel(), [2]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], edges])).tolist()
    counts = [int(c) for c in (counts if mask.size else [])]
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            text += chr(group + (32 if more else 0) + 48)
            if not more:
                break
    return text


def encode(device: torch.device, masks: int, height: int, width: int, noise: bool = False) -> Case:
    drawn = draw_masks(masks, height, width)
    if noise:
        drawn = (np.random.default_rng(0).random(drawn.shape) < 0.5).astype(np.uint8)

    def runs(objects: Sequence[dict[str, Any]]) -> list[str]:
        return [o["counts"].decode() for o in objects]

    return Case(
        ours=lambda: ops.rle_encode(drawn),
        expected=lambda: [to_runs(mask) for mask in drawn],
        part=runs,
        rivals={"pycocotools": lambda: from_rows(drawn), "faster-coco-eval": lambda: _fast().encode(_columns(drawn))},
        bytes=float(drawn.size),
    )


def decode(device: torch.device, masks: int, height: int, width: int) -> Case:
    drawn = draw_masks(masks, height, width)
    objects = ops.rle_encode(drawn)
    return Case(
        ours=lambda: ops.rle_decode(objects),
        expected=lambda: torch.from_numpy(drawn).bool(),
        rivals={
            "pycocotools": lambda: pycocotools.mask.decode(objects),
            "faster-coco-eval": lambda: _fast().decode(objects),
        },
        views=dict.fromkeys(("pycocotools", "faster-coco-eval"), lambda r: torch.from_numpy(r).permute(2, 0, 1).bool()),
        bytes=float(drawn.size),
    )


def iou(device: torch.device, masks: int, height: int, width: int) -> Case:
    drawn = draw_masks(masks, height, width)
    objects, crowd = ops.rle_encode(drawn), [0] * masks
    flat = torch.from_numpy(drawn).flatten(1).double()

    def expected() -> torch.Tensor:
        both, area = flat @ flat.T, flat.sum(1)
        return both / (area[:, None] + area - both)

    return Case(
        ours=lambda: ops.rle_iou(objects, objects),
        expected=expected,
        rivals={
            "pycocotools": lambda: pycocotools.mask.iou(objects, objects, crowd),
            "faster-coco-eval": lambda: _fast().iou(objects, objects, crowd),
        },
        bytes=float(sum(len(o["counts"]) for o in objects) * 2 + 8 * masks**2),
    )


def polygons(device: torch.device, masks: int, height: int, width: int) -> Case:
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    circles = rng.uniform((0, 0, 20), (width, height, 300), (masks, 3))
    drawn = [np.stack([x + r * np.cos(angles), y + r * np.sin(angles)], 1).ravel().tolist() for x, y, r in circles]

    def with_pycocotools() -> list[dict[str, Any]]:
        """The definition: the bytes have to be the same."""
        if pycocotools is None:
            raise ImportError("pycocotools")
        return [pycocotools.mask.frPyObjects([p], height, width)[0] for p in drawn]

    return Case(
        ours=lambda: [ops.rle_from_polygons([p], height, width) for p in drawn],
        expected=with_pycocotools,
        rivals={"pycocotools": with_pycocotools},
        bytes=16.0 * 60 * masks,
    )


def _fast() -> Any:
    return faster_coco_eval.mask


def _columns(masks: np.ndarray) -> np.ndarray:
    return np.asfortranarray(masks.transpose(1, 2, 0))


FULL, SMOKE = {"masks": 100, "height": 800, "width": 1333}, {"masks": 3, "height": 50, "width": 60}
WORKLOADS = [
    Workload("encode 100 of 800x1333", encode, FULL, SMOKE, device="cpu"),
    Workload("encode 4 of noise", encode, {**FULL, "masks": 4, "noise": True}, SMOKE, device="cpu"),
    Workload("decode 100 of 800x1333", decode, FULL, SMOKE, device="cpu"),
    Workload("IoU of 100 x 100", iou, FULL, SMOKE, device="cpu"),
    Workload("100 polygons of 60 corners", polygons, FULL, SMOKE, device="cpu"),
]
