"""3 x 3 convolutions by the CPU kernel that saves products, of numbers that its transforms spread or overflow."""

import pytest
import torch
from convolutions import by_definition, own, weight_gradient_by_definition
from support import FORMATS
from torch.nn import functional

HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("values", [(torch.nan,), (torch.inf,), (torch.inf, -torch.inf)])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("images", [2, 9])  # few tiles and many
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_not_finite_values_reach_what_depends_on_them(cpu, format, dilation, values, which, images, dtype):
    g = cpu.vary(dilation)
    x, weight = torch.rand(images, 16, 9, 14, generator=g) + 0.1, torch.rand(17, 16, 3, 3, generator=g) + 0.1
    x, weight = x.to(dtype), weight.to(dtype)
    tolerance = {"atol": 1e-5, "rtol": max(1e-5, torch.finfo(dtype).eps)}
    for value, place in zip(values, ((1, 3, 2, 2), (1, 4, 1, 0))):
        (x, weight)[which][place] = value
    x = x.to(memory_format=format)
    for padding in (0, 1, 2):
        out = own(x, weight, None, 1, padding, dilation)
        expected = by_definition(x, weight, padding, dilation)
        torch.testing.assert_close(out.double(), expected, equal_nan=True, **tolerance)
        # The gradient by the input of a convolution with turned weights is the same.
        large = torch.zeros(expected.shape, dtype=dtype).to(memory_format=format).requires_grad_()
        turned = weight.transpose(0, 1).flip(2, 3)
        (gradient,) = torch.autograd.grad(own(large, turned, None, 1, 2 * dilation - padding, dilation), large, x)
        torch.testing.assert_close(gradient.double(), expected, equal_nan=True, **tolerance)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("values", [(torch.nan,), (torch.inf,), (torch.inf, -torch.inf)])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_not_finite_values_and_the_gradient_by_the_weights(cpu, format, dilation, values, which, dtype):
    g = cpu.vary(dilation)
    for padding in (0, 1, 2):
        size = [n + 2 * padding - 2 * dilation for n in (9, 14)]
        x, grad = torch.rand(2, 16, 9, 14, generator=g) + 0.1, torch.rand(2, 17, *size, generator=g) + 0.1
        for value, place in zip(values, ((1, 3, 2, 2), (1, 4, 1, 0))):
            (x, grad)[which][place] = value
        x, grad = (t.to(dtype).to(memory_format=format) for t in (x, grad))
        weight = torch.zeros(17, 16, 3, 3, dtype=dtype, requires_grad=True)
        (ours,) = torch.autograd.grad(own(x, weight, None, 1, padding, dilation), weight, grad)
        expected = weight_gradient_by_definition(x, grad, padding, dilation)
        rtol = max(1e-5, torch.finfo(dtype).eps)
        torch.testing.assert_close(ours.double(), expected, equal_nan=True, atol=1e-5, rtol=rtol)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_overflows_that_direct_summation_can_hold(cpu, format, dtype):
    """Copies of the largest numbers: differences of neighbours, and sums of weights, are infinite."""
    g = cpu.vary(1)
    largest = torch.finfo(dtype).max
    x = (torch.randint(0, 2, (1, 16, 8, 23), generator=g) * 2.0 - 1).to(dtype)
    identity = torch.zeros(16, 16, 3, 3, dtype=dtype)
    identity[range(16), range(16), 1, 1] = 1
    big = (largest * x).to(memory_format=format)
    assert torch.equal(own(big, identity, None, 1, 1), big)
    big[..., 5:] = 1  # tiles without large values too
    assert torch.equal(own(big, identity, None, 1, 1), big)
    heavy = torch.full((16, 16, 3, 3), largest, dtype=dtype)
    x = torch.zeros(1, 16, 8, 23, dtype=dtype).to(memory_format=format)
    x[0, 3, 4, 5] = 1
    assert torch.equal(own(x, heavy, None, 1, 1), functional.conv2d(x, heavy, None, 1, 1))
    grad = torch.zeros_like(x)
    grad[0, 3, 4, 5] = 1
    unknown = torch.zeros(16, 16, 3, 3, dtype=dtype, requires_grad=True)
    (by_weight,) = torch.autograd.grad(own(big, unknown, None, 1, 1), unknown, grad)
    assert torch.equal(by_weight.double(), weight_gradient_by_definition(big, grad, 1, 1))
