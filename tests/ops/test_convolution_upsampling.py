"""Transposed convolutions with one channel per group and a stride of half the kernel or more, as for upsampling."""

import pytest
import torch
from convolutions import compare, tensors
from fastvision import ops
from support import ALL_DTYPES, FORMATS
from torch.nn import functional

PROBLEMS = [  # channels, size, kernel, stride, padding, output padding
    (21, (5, 9), (4, 4), (2, 2), (1, 1), (0, 0)),
    (3, (5, 9), (8, 6), (4, 3), (2, 1), (0, 0)),
    (1, (4, 6), (16, 16), (8, 8), (0, 0), (0, 0)),
    (32, (5, 9), (3, 3), (2, 2), (1, 1), (1, 1)),
    (5, (5, 9), (5, 7), (3, 4), (0, 3), (0, 3)),
    (17, (5, 9), (2, 3), (4, 5), (0, 0), (3, 4)),  # pixels that no tap meets
    (40, (7, 1), (4, 4), (2, 2), (3, 1), (0, 0)),
    (2, (1, 9), (4, 9), (2, 8), (0, 4), (1, 7)),
    (7, (3, 70), (8, 8), (7, 7), (4, 5), (6, 0)),  # more columns than are taken at once
    (1, (3, 700), (2, 4), (2, 2), (0, 1), (0, 0)),
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("seed", "problem"), list(enumerate(PROBLEMS)))  # each seed has an instruction set of its own
def test_against_torch(backend, seed, problem, bias, dtype, format):
    channels, size, kernel, *options = problem
    seed += ALL_DTYPES.index(dtype)
    problem = {"seed": seed, "batch": 2, "size": size, "groups": channels, "channels": (1, 1), "kernel": kernel}
    problem |= {"bias": bias, "dtype": dtype, "format": format, "layout": "contiguous"}
    inputs = tensors(backend, problem, True)

    def ours(x, weight, bias=None):
        return ops.conv_transpose2d(x, weight, bias, *options, channels, algorithm="fastvision")

    def theirs(x, weight, bias=None):
        return functional.conv_transpose2d(x, weight, bias, *options, channels)

    compare(ours, theirs, inputs, problem)
    x, weight, *_ = (None if t is None else t.detach() for t in inputs)
    x[1, -1, -1, size[1] // 2], weight[0, 0, 0, -1] = torch.nan, torch.inf
    expected = theirs(x.cpu().double(), weight.cpu().double())
    assert torch.equal(ours(x, weight).isfinite().cpu(), expected.isfinite())
