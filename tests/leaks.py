"""Calls every native op 10,000 times as it should be and 10,000 times so that it fails; prints what memory grew by.

One line of JSON: a list of [op, "good" or "failing", bytes]. Run by test_leaks.py in a process of its own.
"""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastvision import _host, _lib
from native_calls import native_calls

CALLS, WARM_UP = 10_000, 1000
# An image index or a label that does not exist; all others fail by the dtype of their first tensor.
FOUND_LATE = (
    "roi_align",
    "roi_align_max",
    "roi_align_rotated",
    "roi_pool",
    "ps_roi_align",
    "ps_roi_pool",
    "softmax_focal_loss",
)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(call: Callable[[], Any], fails: bool) -> int:
    def repeat(times: int) -> None:
        for _ in range(times):
            try:
                call()
            except (RuntimeError, TypeError, ValueError):
                assert fails
            else:
                assert not fails

    repeat(WARM_UP)
    before = resident()
    repeat(CALLS)
    return resident() - before


def damaged(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if name in FOUND_LATE:
        return (args[0], args[1] + 100, *args[2:])
    first = args[0][0] if isinstance(args[0], list) else args[0]
    wrong = first.detach().to(torch.complex64)
    return ([wrong] if isinstance(args[0], list) else wrong, *args[1:])


def torch_calls() -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    ops = {op.name: op for op in _lib.Op._all}
    samples = {name: args for name, args in reversed(native_calls()) if name in ops and name != "device_errors"}
    calls = {}
    for name, args in samples.items():
        calls[name] = partial(ops[name], *args), partial(ops[name], *damaged(name, args))
    return calls


def host_calls() -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    good = [_host.rle_encode(np.eye(6, 7, dtype=bool)[None], 1)[0]]
    short = [{"size": [6, 7], "counts": good[0]["counts"][:-1]}]
    out, crowd, square = np.zeros((1, 6, 7), np.uint8), np.zeros(1, bool), np.array([0.0, 0, 3, 0, 3, 3])
    cases: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
        "rle_encode": ((out, 1), (out[0], 1)),
        "rle_decode": ((good, out, 1), (short, out, 1)),
        "rle_area": ((good, 1), (short, 1)),
        "rle_boxes": ((good, 1), (good * 2 + short, 1)),
        "rle_iou": ((good, good, crowd, 1), (good, short, crowd, 1)),
        "rle_merge": ((good * 2, False, 1), (good + short, False, 1)),
        "rle_from_polygons": (([square], 6, 7), ([square, square[:4]], 6, 7)),
    }
    return {
        name: (partial(getattr(_host, name), *args), partial(getattr(_host, name), *wrong))
        for name, (args, wrong) in cases.items()
    }


def main() -> None:
    torch.set_num_threads(1)
    results = []
    for name, (good, failing) in {**torch_calls(), **host_calls()}.items():
        results += [[name, "good", growth(good, False)], [name, "failing", growth(failing, True)]]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
