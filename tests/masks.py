"""Binary masks of all kinds, for tests of run lengths."""

import numpy as np
import torch
from hypothesis import strategies as st
from support import few, seeds


def draw_masks(p):
    """Masks (N, H, W) of 0 and 1: noise of any density, overlapping rectangles, nothing or everything."""
    rng = np.random.default_rng(p["seed"])
    n, h, w = p["n"], p["h"], p["w"]
    if p["kind"] == "noise":
        return (rng.random((n, h, w)) < rng.choice([0.01, 0.1, 0.5, 0.9])).astype(np.uint8)
    masks = np.full((n, h, w), p["kind"] == "full", np.uint8)
    for mask in masks if p["kind"] == "blocks" else ():
        for _ in range(3):
            y, x = rng.integers(0, h + 1), rng.integers(0, w + 1)
            mask[y : y + rng.integers(0, h + 1), x : x + rng.integers(0, w + 1)] ^= 1
    return masks


def lay_out(masks, layout, seed):
    """The same masks in another container, dtype or memory order."""
    if layout == "column major":
        return np.asfortranarray(masks.transpose(1, 2, 0)).transpose(2, 0, 1)
    if layout == "any value":
        return masks * np.random.default_rng(seed).integers(1, 256, masks.shape, dtype=np.uint8)
    if layout == "sliced":
        return np.repeat(np.repeat(masks, 2, 1), 3, 2)[:, ::2, ::3]
    if layout == "padded rows":
        return np.pad(masks, ((0, 0), (0, 0), (2, 3)), constant_values=1)[:, :, 2 : masks.shape[2] + 2]
    if layout == "backwards":
        return masks[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]
    return {"bool": masks.astype(bool), "tensor": torch.from_numpy(masks), "tensor bool": torch.from_numpy(masks) > 0}[
        layout
    ]


LAYOUTS = ("bool", "tensor", "tensor bool", "column major", "any value", "sliced", "padded rows", "backwards")
problems = st.fixed_dictionaries(
    {
        "seed": seeds,
        "n": st.integers(0, 4),
        "h": few | st.integers(1, 5),
        "w": few | st.integers(1, 5) | st.sampled_from([127, 128, 129, 200]),
        "kind": st.sampled_from(["noise", "blocks", "blocks", "empty", "full"]),
    }
)
