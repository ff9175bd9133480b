"""What op tests share: backends, tolerances, inputs that break things."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from fastvision import _lib
from hypothesis import strategies as st
from torch import Tensor

# Absolute and relative error allowed against the float64 reference of the same inputs.
TOLERANCES = {
    torch.float64: (1e-10, 1e-9),
    torch.float32: (1e-5, 1e-5),
    torch.float16: (4e-3, 4e-3),
    torch.bfloat16: (1.6e-2, 1.6e-2),
}
ALL_DTYPES = list(TOLERANCES)
FORMATS = [torch.contiguous_format, torch.channels_last]
seeds = st.integers(0, 2**32 - 1)
# Sizes around the tiles of the kernels, empty included.
few = st.sampled_from([0, 1, 2, 3, 5, 8, 17, 31, 32, 33, 63, 64, 65])


class Backend:
    """One way to run the ops: their CPU kernels, their CUDA kernels on the CPU, or their CUDA kernels on a GPU."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.device = "cuda" if name == "cuda" else "cpu"
        self.namespace = "fastvision_emulated" if name == "emulated" else "fastvision"
        self.ops = getattr(torch.ops, self.namespace)

    def __enter__(self) -> "Backend":
        _lib.use_namespace(self.namespace)
        return self

    def __exit__(self, *error: Any) -> None:
        _lib.use_namespace("fastvision")
        self.vary(None)

    def vary(self, seed: int | None) -> torch.Generator:
        """Draw how the backend runs (thread order and copies, or instruction set); returns a generator of inputs."""
        if self.name == "emulated":
            order = ("forward", "reverse", "random", "random")[(seed or 0) % 4]
            self.ops.configure_emulator(order, seed or 0, (seed or 0) // 4 % 2 == 0)
        elif self.name == "cpu":
            best = _lib.build_info()["cpu_isa_best"]
            known = ("baseline", "avx2", "avx512")
            usable = known[: known.index(best) + 1]
            self.ops.set_cpu_isa(best if seed is None else usable[seed % len(usable)])
        return torch.Generator().manual_seed(seed or 0)


def assert_close(actual: Tensor, expected: Tensor, scale: float = 1.0) -> None:
    """Compare with a float64 reference, by the tolerance of the actual dtype."""
    absolute, relative = TOLERANCES[actual.dtype]
    torch.testing.assert_close(
        actual.double().cpu(), expected.double().cpu(), atol=absolute * scale, rtol=relative * scale, equal_nan=True
    )


@contextmanager
def tf32(products: Any, allowed: bool = True) -> Iterator[None]:
    """Whether float32 may be rounded to TF32 in products: torch.backends.cuda.matmul or torch.backends.cudnn.conv."""
    before = products.fp32_precision
    products.fp32_precision = "tf32" if allowed else "ieee"
    try:
        yield
    finally:
        products.fp32_precision = before


def random_boxes(g: torch.Generator, *shape: int, size: float = 16.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Boxes of all kinds: mostly ordinary, some inverted, degenerate, equal to a neighbour, tiny or far away."""
    corner = torch.rand(*shape, 2, generator=g, dtype=torch.float64) * size
    sides = torch.rand(*shape, 2, generator=g, dtype=torch.float64) * size / 2
    kind = torch.rand(*shape, 1, generator=g)
    sides = torch.where(kind < 0.08, -sides, sides)
    sides = torch.where((kind >= 0.08) & (kind < 0.16), sides * torch.tensor([0.0, 1.0]), sides)
    corner = torch.where((kind >= 0.16) & (kind < 0.2), corner + 1000, corner)
    boxes = torch.cat([corner, corner + sides], -1)
    if shape[-1] > 1:
        boxes = torch.where((kind >= 0.2) & (kind < 0.3), boxes.roll(1, -2), boxes)
    return boxes.to(dtype)


LAYOUTS = ("contiguous", "strided", "shifted", "transposed")


def lay_out(t: Tensor, layout: str) -> Tensor:
    """The same values in other memory: every second element, off alignment, or dimensions in another order."""
    other = torch.nan if t.is_floating_point() else 1
    if layout == "strided":
        wide = t.new_full((*t.shape[:-1], 2 * t.shape[-1]), other)
        wide[..., ::2] = t
        return wide[..., ::2]
    if layout == "shifted":
        flat = t.new_full((t.numel() + 1,), other)
        flat[1:] = t.flatten()
        return flat[1:].view(t.shape)
    if layout == "transposed" and t.dim() > 1:
        return t.transpose(0, -1).contiguous().transpose(0, -1)
    return t


def random_rotated_boxes(g: torch.Generator, *shape: int, size: float = 16.0) -> Tensor:
    """Rotated boxes in degrees of all kinds: mostly ordinary, some degenerate, negative, equal, thin or far away."""
    centre = torch.rand(*shape, 2, generator=g, dtype=torch.float64) * size
    sides = torch.rand(*shape, 2, generator=g, dtype=torch.float64) * size / 2 + size / 100
    angle = torch.rand(*shape, 1, generator=g, dtype=torch.float64) * 800 - 400
    kind = torch.rand(*shape, 1, generator=g)
    sides = torch.where(kind < 0.05, sides * torch.tensor([0.0, 1.0]), sides)
    sides = torch.where((kind >= 0.05) & (kind < 0.08), -sides, sides)
    sides = torch.where((kind >= 0.08) & (kind < 0.16), sides * torch.tensor([1e-3, 4.0]), sides)
    centre = torch.where((kind >= 0.16) & (kind < 0.2), centre + 1000, centre)
    angle = torch.where((kind >= 0.2) & (kind < 0.4), (angle / 45).round() * 45, angle)
    boxes = torch.cat([centre, sides, angle], -1)
    if shape[-1] > 1:
        boxes = torch.where((kind >= 0.4) & (kind < 0.5), boxes.roll(1, -2), boxes)
    return boxes
