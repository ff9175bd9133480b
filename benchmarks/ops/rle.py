"""Run-length masks against pycocotools: python benchmarks/ops/rle.py [--masks 100] [--rounds 9]

Contestants run in turns in one process on the same masks; the table has medians of wall time and of CPU time.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pycocotools.mask as reference
import torch
from fastvision import ops

HEIGHT, WIDTH = 800, 1333


def draw_masks(count: int, seed: int = 0) -> np.ndarray:
    """Blobs of 20 to 300 pixels radius with a wavy outline."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = np.zeros((count, HEIGHT, WIDTH), np.uint8)
    for mask in masks:
        dy, dx = y - rng.uniform(0, HEIGHT), x - rng.uniform(0, WIDTH)
        a, b = np.exp(rng.uniform(np.log(20), np.log(300), 2))
        mask[:] = (dy / a) ** 2 + (dx / b) ** 2 < 1 + 0.1 * np.sin(9 * np.arctan2(dy, dx))
    return masks


def draw_polygons(count: int, seed: int = 0) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    circles = rng.uniform((0, 0, 20), (WIDTH, HEIGHT, 300), (count, 3))
    return [np.stack([x + r * np.cos(angles), y + r * np.sin(angles)], 1).ravel().tolist() for x, y, r in circles]


def in_turns(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median wall and CPU milliseconds of each."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: tuple(1e3 * statistics.median(column) for column in zip(*t)) for name, t in times.items()}  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()

    masks = draw_masks(options.masks)
    column_major = np.asfortranarray(masks.transpose(1, 2, 0))
    noise = (np.random.default_rng(0).random((4, HEIGHT, WIDTH)) < 0.5).astype(np.uint8)
    objects, noisy = reference.encode(column_major), ops.rle_encode(noise)
    polygons, crowd = draw_polygons(options.masks), [0] * options.masks

    def as_column_major(masks: np.ndarray) -> np.ndarray:
        return np.asfortranarray(masks.transpose(1, 2, 0))

    tasks: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "encode row-major masks": (
            lambda: ops.rle_encode(masks),
            lambda: [reference.encode(np.asfortranarray(mask)) for mask in masks],
        ),
        "encode column-major masks": (
            lambda: ops.rle_encode(column_major.transpose(2, 0, 1)),
            lambda: reference.encode(column_major),
        ),
        "decode": (lambda: ops.rle_decode(objects), lambda: reference.decode(objects)),
        "IoU of all pairs": (
            lambda: ops.rle_iou(objects, objects),
            lambda: reference.iou(objects, objects, crowd),
        ),
        "polygons to masks": (
            lambda: [ops.rle_from_polygons([p], HEIGHT, WIDTH) for p in polygons],
            lambda: [reference.frPyObjects([p], HEIGHT, WIDTH)[0] for p in polygons],
        ),
        "encode 4 masks of noise": (
            lambda: ops.rle_encode(noise),
            lambda: [reference.encode(np.asfortranarray(mask)) for mask in noise],
        ),
        "decode 4 masks of noise": (lambda: ops.rle_decode(noisy), lambda: reference.decode(noisy)),
    }
    for name, (ours, theirs) in tasks.items():
        mine, expected = ours(), theirs()
        if name.startswith("decode"):
            mine, expected = mine.numpy(), expected.transpose(2, 0, 1).astype(bool)
        same = np.array_equal(mine, expected) if isinstance(mine, (np.ndarray, torch.Tensor)) else mine == expected
        if not same:
            raise SystemExit(f"{name}: the results differ")

    print(f"{options.masks} masks {HEIGHT}x{WIDTH}, {masks.mean():.1%} foreground; milliseconds, wall (CPU)")
    print(f"{'':28}{'pycocotools':>18}{'1 thread':>18}{'2 threads':>18}{'CPU ratio, 1 thread':>22}")
    for name, (ours, theirs) in tasks.items():

        def on(threads: int, run: Callable[[], Any] = ours) -> None:
            torch.set_num_threads(threads)
            run()

        times = in_turns({"reference": theirs, "1": lambda: on(1), "2": lambda: on(2)}, options.rounds)
        cells = "".join(f"{wall:9.2f} ({cpu:6.2f})" for wall, cpu in times.values())
        print(f"{name:28}{cells}{times['reference'][1] / times['1'][1]:21.1f}x")


if __name__ == "__main__":
    main()
