"""Gradients of depthwise weights in channels_last: pieces of rows, groups of channels, threads."""

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
