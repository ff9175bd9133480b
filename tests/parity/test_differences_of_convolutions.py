"""Convolutions in docs/differences.md: what torchvision does with them, what we do."""

from functools import partial

import pytest
import torch
from fastvision import ops
from fastvision.ops import _dispatch
from test_differences_of_regions import in_a_process
from torch.nn import functional

X, OFFSET, WEIGHT = torch.arange(16.0).view(1, 1, 4, 4), torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 1, 1)
CALL = "theirs.deform_conv2d(torch.ones(1, 1, 4, 4), torch.zeros(1, 2, 4, 4){}, torch.ones(1, 1, 1, 1){})"


def test_an_offset_that_is_not_a_number_is_a_zero_sample(torchvision):
    assert in_a_process(CALL.format(" + inf - inf", "")) == -11, "a segmentation fault"
    offset = OFFSET.clone().requires_grad_()
    moved = offset + torch.nan
    out = ops.deform_conv2d(X, moved, WEIGHT)
    assert not out.any()
    assert not torch.autograd.grad(out.sum(), moved)[0].any()


def test_deformable_convolution_takes_16_bit_input(torchvision):
    half = X.bfloat16(), OFFSET.bfloat16(), WEIGHT.bfloat16()
    with pytest.raises(NotImplementedError):
        torchvision.ops.deform_conv2d(*half)
    with pytest.raises(RuntimeError):
        torchvision.ops.deform_conv2d(X.half(), OFFSET, WEIGHT.half())
    for offset in (half[1], OFFSET):
        assert torch.equal(ops.deform_conv2d(half[0], offset, half[2]), half[0])
    assert torch.equal(ops.deform_conv2d(X.half(), OFFSET, WEIGHT.half()), X.half())


def test_second_derivatives_of_deformable_convolution(torchvision):
    def twice(library):
        offset = OFFSET.clone().requires_grad_()
        squares = library.deform_conv2d(X, offset + 0.5, WEIGHT).square().sum()
        (gradient,) = torch.autograd.grad(squares, offset, create_graph=True)
        return torch.autograd.grad(gradient.sum(), offset)[0]

    with pytest.raises(RuntimeError, match="double backwards on deform_conv2d not supported"):
        twice(torchvision.ops)
    # The samples inside grow by 4 per pixel down and 1 per pixel right: d2(s^2) = 2 * 4 * (4 + 1) and 2 * 1 * (4 + 1).
    torch.testing.assert_close(twice(ops)[0, :, :3, :3], torch.tensor([40.0, 10.0]).view(2, 1, 1).expand(2, 3, 3))


def test_a_stride_of_0_is_an_error(torchvision):
    assert in_a_process(CALL.format("", ", stride=0")) == -8, "a floating point exception"
    with pytest.raises(ValueError, match="deform_conv2d: stride: expected an integer >= 1, got 0"):
        ops.deform_conv2d(X, OFFSET, WEIGHT, stride=0)


def test_a_pixel_of_weight_0_takes_no_part(torchvision):
    x = X.clone()
    x[0, 0, 2, 2] = torch.nan
    assert torchvision.ops.deform_conv2d(x, OFFSET, WEIGHT).isnan().sum() == 4
    assert ops.deform_conv2d(x, OFFSET, WEIGHT).isnan().sum() == 1


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("width", [16, 256])
def test_winograd_rounds_a_little_more_than_direct_summation(format, width):
    """Transforms add 4 numbers at a time and results 9 products, so that errors are up to 3 times as large."""
    g = torch.Generator().manual_seed(width)
    x = torch.randn(1, width, 30, 31, generator=g).to(memory_format=format)
    weight = torch.randn(64, width, 3, 3, generator=g) / (9 * width) ** 0.5
    exact = functional.conv2d(x.double(), weight.double(), None, 1, 1)
    out = ops.conv2d(x, weight, None, 1, 1, algorithm="fastvision")
    error, direct = ((found - exact).abs() for found in (out, functional.conv2d(x, weight, None, 1, 1)))
    assert error.mean() < 3 * direct.mean()
    assert error.max() < 3 * direct.max()
    torch.testing.assert_close(out.double(), exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("width", "size"), [(64, 56), (256, 50), (512, 28)])
def test_gradients_by_winograds_weights_round_as_direct_summation(width, size):
    """Sums of fewer numbers in a row make up for the transforms. Prints the ratios of docs/kernels/convolution.md."""
    g = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(1, width, size, size, generator=g) for _ in "xy")
    x, weight = x.relu(), torch.zeros(width, width, 3, 3)

    def gradient(convolution, x, weight, grad):
        weight.requires_grad_()
        return torch.autograd.grad(convolution(x, weight, None, 1, 1), weight, grad)[0]

    exact = gradient(functional.conv2d, x.double(), weight.double(), grad.double())
    own = gradient(partial(ops.conv2d, algorithm="fastvision"), x, weight, grad)
    error, direct = ((found - exact).abs() for found in (own, gradient(functional.conv2d, x, weight, grad)))
    print(f"{width} x {size} x {size}: {error.mean() / direct.mean():.2f}, {error.max() / direct.max():.2f}")
    assert error.mean() < 1.5 * direct.mean()
    assert error.max() < 2 * direct.max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_winograd_in_16_bits_rounds_as_direct_summation(dtype):
    g = torch.Generator().manual_seed(1)
    x, weight = torch.randn(1, 64, 30, 31, generator=g).to(dtype), torch.randn(64, 64, 3, 3, generator=g).to(dtype)
    exact = functional.conv2d(x.double(), weight.double(), None, 1, 1)
    out = ops.conv2d(x, weight, None, 1, 1, algorithm="fastvision")
    error, direct = ((found - exact).abs() for found in (out, functional.conv2d(x, weight, None, 1, 1)))
    assert error.mean() < 1.001 * direct.mean()
    assert error.max() < 1.001 * direct.max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_winograd_in_16_bits_loses_digits_beside_a_far_larger_pixel(dtype):
    g = torch.Generator().manual_seed(1)
    x = (torch.randn(1, 64, 32, 32, generator=g) / 100).to(dtype)
    x[0, 0, 5, 5] = 1e4
    weight = (torch.randn(64, 64, 3, 3, generator=g) / 24).to(dtype)
    exact = functional.conv2d(x.double(), weight.double(), None, 1, 1)
    out = ops.conv2d(x, weight, None, 1, 1, algorithm="fastvision")
    # What is added up for the tile, and that far around it.
    nearby = functional.max_pool2d(x.double().abs(), 11, 1, 5)
    summed = functional.conv2d(nearby, weight.double().abs(), None, 1, 1)
    error, rounding = (out - exact).abs(), torch.finfo(dtype).eps / 2 * exact.abs() + torch.finfo(dtype).smallest_normal
    assert (error <= 1.001 * rounding + 1e-6 * summed).all()
    assert not (error <= 1.001 * rounding + 1e-8 * summed).all()
    far = torch.ones(32, 32, dtype=torch.bool)
    far[:12, :12] = False
    assert (error <= 1.001 * rounding + 1e-6)[..., far].all()


def test_16_bits_are_widened_where_the_processor_cannot_multiply_them(monkeypatch):
    monkeypatch.setitem(_dispatch._PRODUCT, torch.float16, 5.0)
    g = torch.Generator().manual_seed(1)
    x, weight = torch.randn(1, 24, 15, 15, generator=g).half(), torch.randn(16, 24, 3, 3, generator=g).half()
    assert torch.equal(ops.conv2d(x, weight, stride=2), functional.conv2d(x.float(), weight.float(), stride=2).half())
