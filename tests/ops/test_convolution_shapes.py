"""Convolutions of the shapes that kernels treat apart, and of shapes that only gradients or raw calls ask for."""

from functools import partial

import pytest
import torch
from convolutions import compare, tensors
from fastvision import ops
from fastvision.ops.conv2d import conv2d_op
from fastvision.ops.conv_transpose2d import conv_transpose2d_op
from support import ALL_DTYPES, FORMATS, Backend, assert_close
from torch.nn import functional


@pytest.mark.parametrize("groups", [1, 2])
def test_strides_beyond_the_map(backend, groups):
    """They only lead outside; nothing may be as large as they are, or take as long."""
    g = backend.vary(8)
    x, kernel = torch.randn(2, 2, 1, 2, generator=g), torch.randn(2, 2 // groups, 3, 3, generator=g)
    geometry = [2**30 + 1, 2**31 - 1, 1, 0, 3, 7]
    options = ((2**30 + 1, 1), (1, 0), 0, groups, (3, 7))
    out = conv_transpose2d_op(
        x.to(backend.device), kernel.to(backend.device), None, geometry, groups, 5, 9, False, False
    )
    expected = functional.conv_transpose2d(x[..., :1], kernel, None, *options)
    assert_close(out, functional.pad(expected, (0, 9 - expected.shape[3], 0, 0)).double()[..., :5, :9])
    large = torch.randn(2, 2, 9, 16, generator=g)
    out = conv2d_op(large.to(backend.device), kernel.to(backend.device), None, geometry, groups, 1, 1, False, False)
    assert_close(out, functional.conv2d(large, kernel, None, geometry[:2], (1, 0), (3, 7), groups).double())


# Channels in whole packs of 16 bytes, more than a warp has at once; planes several to a tile, and in bands of rows.
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize(
    ("groups", "size", "kernel", "stride", "padding", "dilation"),
    [
        (24, (13, 12), (3, 3), (1, 1), (6, 5), (6, 5)),
        (264, (5, 4), (2, 3), (2, 1), (1, 0), (1, 1)),
        (8, (6, 7), (5, 5), (2, 3), (3, 4), (1, 2)),
        (8, (6, 7), (6, 5), (1, 1), (2, 2), (1, 1)),
        (3, (211, 103), (3, 2), (1, 1), (9, 1), (9, 1)),
        (2, (190, 121), (3, 3), (3, 2), (1, 0), (2, 3)),
    ],
)
def test_depthwise(backend, format, dtype, groups, size, kernel, stride, padding, dilation):
    problem = {"batch": 2, "size": size, "groups": groups, "channels": (1, 1), "kernel": kernel}
    problem |= {"bias": kernel[0] == 3, "dtype": dtype, "format": format, "layout": "contiguous"}
    for name, options in (
        ("conv2d", (stride, padding, dilation, groups)),
        ("conv_transpose2d", (stride, padding, 0, groups, dilation)),
    ):
        for seed in range(3) if backend.name == "cpu" else [groups]:  # an instruction set for each
            compare(
                lambda *t, name=name, options=options: getattr(ops, name)(
                    t[0], t[1], t[2] if len(t) > 2 else None, *options, algorithm="fastvision"
                ),
                lambda *t, name=name, options=options: getattr(functional, name)(
                    t[0], t[1], t[2] if len(t) > 2 else None, *options
                ),
                tensors(backend, {**problem, "seed": seed}, name == "conv_transpose2d"),
                {**problem, "seed": seed},
            )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", [(9, 8), (6, 70)])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_depthwise_of_not_finite_values(backend, format, size, place, seed):
    """They reach what reads them, and nothing else: padding is not zeros that they are multiplied with."""
    g = backend.vary(seed)
    shapes = [(2, 3, *size), (3, 1, 3, 3), (2, 3, *size)]  # input, weight and gradient of the result
    drawn = [torch.randn(*shape, generator=g, dtype=torch.float64) for shape in shapes]

    def run(f, values):
        x, weight = (t.clone().requires_grad_() for t in values[:2])
        out = f(x.to(memory_format=format), weight, None, 1, 2, 2, 3)
        return out, *torch.autograd.grad(out, (x, weight), values[2])

    def reached(at_place):
        values = [torch.ones_like(t) for t in drawn]
        values[place].zero_()[1, ..., 0, -1] = at_place
        return run(functional.conv2d, values)

    drawn[place][1, ..., 0, -1] = 0
    expected = run(functional.conv2d, drawn)
    for value in (torch.nan, torch.inf):
        drawn[place][1, ..., 0, -1] = value
        found = run(partial(ops.conv2d, algorithm="fastvision"), [t.to(backend.device) for t in drawn])
        for ours, right, with_it, without in zip(found, expected, reached(1), reached(0), strict=True):
            unreached = with_it == without
            assert torch.equal(ours.isfinite().cpu(), unreached)
            torch.testing.assert_close(ours.cpu()[unreached], right[unreached])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("padding", [(1, 256), (256, 1), (0, 40), (9, 9)])
def test_results_of_any_size(backend, padding, groups, format):
    """As gradients ask for: windows that lie outside of the map, and pixels that no window meets."""
    g = backend.vary(7)
    x, kernel = torch.randn(2, 3, 9, 8, generator=g), torch.randn(3, 3 // groups, 3, 3, generator=g)
    small, geometry = x.to(backend.device, memory_format=format), [2, 1, *padding, 1, 2]
    weight = kernel.to(backend.device)
    out = conv2d_op(small, weight, None, geometry, groups, 5, 4, False, False)
    padded = functional.pad(x, (padding[1], 300, padding[0], 300))
    expected = functional.conv2d(padded, kernel, None, (2, 1), 0, (1, 2), groups)[..., :5, :4]
    assert_close(out, expected.double())
    out = conv_transpose2d_op(small, weight, None, geometry, groups, 20, 30, False, False)
    whole = functional.pad(functional.conv_transpose2d(x, kernel, None, (2, 1), 0, 0, groups, (1, 2)), (0, 300, 0, 300))
    expected = whole[..., padding[0] : padding[0] + 20, padding[1] : padding[1] + 30]
    assert_close(out, expected.double())


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(16, 8, 4), (17, 8, 0), (15, 8, 3), (5, 9, 2), (64, 32, 16), (33, 16, 40)]
)
def test_wide_strides(backend, kernel, stride, padding, format):
    """Bilinear upsampling and its like: NaN and infinity reach what torch lets them reach."""
    g = backend.vary(kernel)
    x = torch.randn(2, 3, 4, 6, generator=g, dtype=torch.float64)
    weight = torch.randn(3, 1, kernel, kernel, generator=g, dtype=torch.float64)
    bias = torch.randn(3, generator=g, dtype=torch.float64)
    for place, value in (((0, 0, 0, 0), 1.0), ((1, 2, 3, 5), torch.nan), ((0, 1, 1, 2), torch.inf)):
        x[place] = value
        ours = [
            t.detach().clone().to(backend.device).requires_grad_() for t in (x.to(memory_format=format), weight, bias)
        ]
        theirs = [t.detach().clone().requires_grad_() for t in (x, weight, bias)]
        out = ops.conv_transpose2d(*ours, stride, padding, 1, 3, algorithm="fastvision")
        expected = functional.conv_transpose2d(*theirs, stride, padding, 1, 3)
        torch.testing.assert_close(out.cpu(), expected, equal_nan=True)
        if value == 1.0:
            grad = torch.randn(expected.shape, generator=g, dtype=torch.float64)
            gradients = torch.autograd.grad(out, ours, grad.to(out.device))
            for a, b in zip(gradients, torch.autograd.grad(expected, theirs, grad), strict=True):
                torch.testing.assert_close(a.cpu(), b)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("channels", "size", "stride"),
    [
        ((200, 3), (20, 21), 1),  # more channels of the small map than a task takes
        ((3, 520), (9, 10), 2),  # of the large one
        ((3, 5), (91, 90), 1),  # more pixels than are added up by themselves
    ],
)
@pytest.mark.parametrize("seed", range(3))  # each has an instruction set of its own
def test_products_in_parts(channels, size, stride, format, seed):
    problem = {"seed": seed, "batch": 2, "size": size, "groups": 1, "channels": channels, "kernel": (3, 2)}
    problem |= {"bias": False, "dtype": torch.float32, "format": format, "layout": "contiguous"}
    with Backend("cpu") as backend:
        compare(
            lambda *t: ops.conv2d(*t, None, stride, 1, algorithm="fastvision"),
            lambda *t: functional.conv2d(*t, None, stride, 1),
            tensors(backend, problem, False),
            problem,
        )
