"""Depthwise convolution in channels_last: runs of pixels; gradients of weights by pieces of rows; threads."""

import pytest
import torch
from fastvision import ops
from torch.nn import functional


@pytest.mark.parametrize("channels", [1, 18, 50, 264])
@pytest.mark.parametrize(
    ("width", "stride", "padding", "dilation"),
    [(300, 1, 1, 1), (300, 2, 3, 2), (700, 1, 0, 150), (700, 3, 200, 199), (129, 1, 140, 3), (5, 1, 2, 2)],
)
def test_pieces_of_rows_and_any_number_of_threads(backend, channels, width, stride, padding, dilation):
    g = backend.vary(channels + width)
    x = torch.randn(2, channels, 4, width, generator=g, dtype=torch.float64)
    weight = torch.randn(channels, 1, 3, 3, generator=g, dtype=torch.float64)
    numbers = ((1, stride), (1, padding), (1, dilation), channels)
    exact = weight.clone().requires_grad_()
    out = functional.conv2d(x, exact, None, *numbers)
    grad = torch.randn(out.shape, generator=g, dtype=torch.float64)
    (expected,) = torch.autograd.grad(out, exact, grad)
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        leaf = weight.float().to(backend.device).requires_grad_()
        moved = x.float().to(backend.device, memory_format=torch.channels_last)
        out = ops.conv2d(moved, leaf, None, *numbers, algorithm="fastvision")
        (gradient,) = torch.autograd.grad(out, leaf, grad.float().to(backend.device))
        results.append(gradient)
    torch.testing.assert_close(results[0].double().cpu(), expected, rtol=1e-4, atol=1e-3)
    assert all(torch.equal(r, results[0]) for r in results)


# Pixels with the same taps are computed several at a time, those that are left one or two at a time.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [16, 70])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2, 9])
def test_runs_of_pixels(backend, dtype, channels, stride, dilation):
    for width in range(1, 17):
        g = backend.vary(width)
        x = torch.randn(1, channels, 3, width, generator=g, dtype=torch.float64)
        weight, bias = (torch.randn(channels, *rest, generator=g, dtype=torch.float64) for rest in ((1, 2, 3), ()))
        numbers = ((1, stride), (1, dilation), (1, dilation), channels)
        exact = x.clone().requires_grad_()
        expected = functional.conv2d(exact, weight, bias, *numbers)
        grad = torch.randn(expected.shape, generator=g, dtype=torch.float64)
        (expected_gradient,) = torch.autograd.grad(expected, exact, grad)
        moved = x.to(backend.device, dtype, memory_format=torch.channels_last).requires_grad_()
        factors = [t.to(backend.device, dtype) for t in (weight, bias)]
        out = ops.conv2d(moved, *factors, *numbers, algorithm="fastvision")
        last = grad.to(backend.device, dtype, memory_format=torch.channels_last)
        (gradient,) = torch.autograd.grad(out, moved, last)
        for found, wanted in ((out, expected), (gradient, expected_gradient)):
            torch.testing.assert_close(found.double().cpu(), wanted, rtol=1e-5, atol=1e-5)
