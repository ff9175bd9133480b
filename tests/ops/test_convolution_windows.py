"""Convolutions whose windows lie side by side, such as 2 x 2 with stride 2."""

import fastvision
import pytest
import torch
from convolutions import compare, tensors
from fastvision import ops
from support import ALL_DTYPES, FORMATS, Backend
from torch.nn import functional


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("extra", [(0, 0), (1, 0), (0, 1)])
@pytest.mark.parametrize(
    ("groups", "channels", "kernel"),
    [(1, (5, 9), (2, 2)), (2, (3, 2), (3, 2)), (1, (2, 1), (2, 5)), (1, (2, 3), (5, 7))],
)
def test_transposed(backend, format, dtype, extra, groups, channels, kernel):
    seed = extra[0] + 2 * extra[1]  # each has an instruction set of its own
    problem = {"seed": seed, "batch": 2, "size": (7, 19), "groups": groups, "channels": channels, "kernel": kernel}
    problem |= {"bias": True, "dtype": dtype, "format": format, "layout": "contiguous"}
    options = (kernel, 0, extra, groups)
    inputs = tensors(backend, problem, True)
    compare(
        lambda *t: ops.conv_transpose2d(*t, *options, algorithm="fastvision"),
        lambda *t: functional.conv_transpose2d(*t, *options),
        inputs,
        problem,
    )
    x, weight, bias = (None if t is None else t.detach() for t in inputs)
    x[0, -1, 3, 4] = torch.nan
    out = ops.conv_transpose2d(x, weight, bias, *options, algorithm="fastvision")
    assert out.isnan().sum() == kernel[0] * kernel[1] * channels[1]


@pytest.mark.parametrize("seed", range(3))  # each has an instruction set of its own
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("rest", [(0, 0), (1, 1)])
@pytest.mark.parametrize(
    ("groups", "channels", "kernel"), [(1, (5, 9), (2, 2)), (2, (3, 2), (3, 2)), (1, (7, 40), (2, 4))]
)
def test_convolution(backend, seed, format, dtype, rest, groups, channels, kernel):
    size = tuple(n * k + r for n, k, r in zip((7, 39), kernel, rest))
    problem = {"seed": seed, "batch": 2, "size": size, "groups": groups, "channels": channels, "kernel": kernel}
    problem |= {"bias": True, "dtype": dtype, "format": format, "layout": "contiguous"}
    inputs = tensors(backend, problem, False)
    compare(
        lambda *t: ops.conv2d(*t, kernel, groups=groups, algorithm="fastvision"),
        lambda *t: functional.conv2d(*t, kernel, groups=groups),
        inputs,
        problem,
    )
    x, weight, bias = (None if t is None else t.detach() for t in inputs)
    x[0, -1, 3, 4] = torch.nan
    assert ops.conv2d(x, weight, bias, kernel, groups=groups, algorithm="fastvision").isnan().sum() == channels[0]


@pytest.mark.parametrize(
    ("groups", "channels", "kernel", "size"),
    [
        (1, (130, 3), (2, 2), (50, 50)),  # more than one block of channels, parts of several panels of pixels
        (1, (2, 1), (257, 256), (257, 512)),  # too many taps for all windows of 64 pixels at a time
        (40_000, (2, 1), (1, 1), (1, 1)),  # sums many times as large as the weights
    ],
)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("seed", range(3))  # each has an instruction set of its own
def test_shapes_that_the_cpu_treats_apart(groups, channels, kernel, size, seed, format):
    problem = {"seed": seed, "batch": 2, "size": size, "groups": groups, "channels": channels, "kernel": kernel}
    problem |= {"bias": True, "dtype": torch.float32, "format": format, "layout": "contiguous"}
    with Backend("cpu") as backend:
        compare(
            lambda *t: ops.conv2d(*t, kernel, groups=groups, algorithm="fastvision"),
            lambda *t: functional.conv2d(*t, kernel, groups=groups),
            tensors(backend, problem, False),
            problem,
        )


@pytest.mark.parametrize(
    ("groups", "channels", "size"),
    [
        (1, (130, 13), (20, 20)),  # more channels than are multiplied at a time, and more than one product
        (2, (2, 4), (512, 512)),  # 32 MiB, written past the caches
        (1, (2, 8), (516, 509)),  # as much, but rows do not begin at lines
    ],
)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("seed", range(3))  # each has an instruction set of its own
def test_transposed_that_the_cpu_treats_apart(groups, channels, size, seed, format):
    problem = {"seed": seed, "batch": 1, "size": size, "groups": groups, "channels": channels, "kernel": (2, 2)}
    problem |= {"bias": True, "dtype": torch.float32, "format": format, "layout": "contiguous"}
    with Backend("cpu") as backend:
        compare(
            lambda *t: ops.conv_transpose2d(*t, 2, groups=groups, algorithm="fastvision"),
            lambda *t: functional.conv_transpose2d(*t, 2, groups=groups),
            tensors(backend, problem, True),
            problem,
        )


@pytest.mark.parametrize("format", FORMATS)
def test_gradients_have_the_same_bits_for_all_sizes_of_vectors(format):
    """Parts of the pixels whose products are added up by themselves follow from the shape alone."""
    best = fastvision.build_info()["cpu_isa_best"]
    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, 33, 32, 32, generator=g).to(memory_format=format)
    weight = torch.randn(5000, 33, 1, 1, generator=g).requires_grad_()
    gradients = []
    try:
        for isa in ("avx2", "avx512")[: ["baseline", "avx2", "avx512"].index(best)]:
            torch.ops.fastvision.set_cpu_isa(isa)
            out = ops.conv2d(x, weight, algorithm="fastvision")
            gradients += torch.autograd.grad(out, weight, out.detach())
    finally:
        torch.ops.fastvision.set_cpu_isa(best)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
