"""3 x 3 convolutions of many channels by the CPU kernel that saves products, against torch in float64."""

import itertools
from typing import NamedTuple

import pytest
import torch
from convolutions import own, weight_gradient_by_definition
from fastvision import _lib, ops
from hypothesis import given
from hypothesis import strategies as st
from support import FORMATS, LAYOUTS, lay_out, seeds
from torch.nn import functional

HALVES = [torch.bfloat16, torch.float16]

sizes = st.sampled_from([1, 2, 3, 4, 5, 8, 11, 18])
channels = st.sampled_from([8, 9, 16, 33, 70])


class Problem(NamedTuple):
    seed: int
    batch: int
    size: tuple[int, int]
    width: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    with_bias: bool
    format: torch.memory_format
    layout: str

    def has_windows(self):
        return all(self.size[k] + 2 * self.padding[k] > 2 * self.dilation[k] for k in (0, 1))

    def inputs(self, draw):
        """Input, weight and bias of what draw(*shape) returns."""
        x, weight = draw(self.batch, self.width[0], *self.size), draw(self.width[1], self.width[0], 3, 3)
        x = lay_out(x.to(memory_format=self.format), self.layout).requires_grad_()
        return x, weight.requires_grad_(), draw(self.width[1]) if self.with_bias else None


problems = st.builds(
    Problem,
    seed=seeds,
    batch=st.sampled_from([1, 1, 3]),
    size=st.tuples(sizes, sizes),
    width=st.tuples(channels, channels),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    with_bias=st.booleans(),
    format=st.sampled_from(FORMATS),
    layout=st.sampled_from(LAYOUTS),
).filter(Problem.has_windows)


@given(p=problems)
def test_small_multiples_of_an_eighth_are_exact(cpu, p):
    """All transforms are sums with factors 1/2: every intermediate value has less than 24 bits."""
    g = cpu.vary(p.seed)

    def draw(*shape):
        return torch.randint(-8, 9, shape, generator=g) / 8

    x, weight, bias = p.inputs(draw)
    exact = [t.detach().double().requires_grad_() for t in (x, weight)]
    out = own(x, weight, bias, 1, p.padding, p.dilation)
    expected = functional.conv2d(*exact, None if bias is None else bias.double(), 1, p.padding, p.dilation)
    assert torch.equal(out.double(), expected)
    grad = draw(*out.shape).to(memory_format=p.format)
    gradients = torch.autograd.grad(out, (x, weight), grad), torch.autograd.grad(expected, exact, grad.double())
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.equal(ours.double(), theirs)


@given(p=problems, dtype=st.sampled_from(HALVES))
def test_16_bits_are_rounded_once(cpu, p, dtype):
    """The larger tiles' errors in float32, as a share of what is added up, are far below 16 bits."""
    g = cpu.vary(p.seed)

    def draw(*shape):
        return torch.randn(shape, generator=g).to(dtype)

    x, weight, bias = p.inputs(draw)
    out = own(x, weight, bias, 1, p.padding, p.dilation)
    grad = draw(*out.shape).to(memory_format=p.format)
    gradients = torch.autograd.grad(out, (x, weight), grad)

    def check(found, exact, magnitude):
        assert found.dtype == dtype
        rounding = torch.finfo(dtype).eps / 2 * exact.abs() + torch.finfo(dtype).smallest_normal
        assert ((found.double() - exact).abs() <= 1.001 * rounding + 1e-5 * magnitude.max()).all()

    def exactly(x, weight, bias, grad):
        x, weight = (t.detach().double().requires_grad_() for t in (x, weight))
        out = functional.conv2d(x, weight, bias, 1, p.padding, p.dilation)
        return out.detach(), *torch.autograd.grad(out, (x, weight), grad.double())

    sums = exactly(x, weight, None if bias is None else bias.double(), grad)
    magnitudes = exactly(x.abs(), weight.abs(), None, grad.abs())
    for found, exact, magnitude in zip((out, *gradients), sums, magnitudes, strict=True):
        check(found, exact, magnitude)


@pytest.mark.parametrize("format", FORMATS)
def test_many_weights_for_many_tiles(cpu, format):
    """So many that they lie in huge pages, in several panels; eighths are exact."""
    g = torch.Generator().manual_seed(4)
    x = (torch.randint(-8, 9, (1, 256, 33, 32), generator=g) / 8).to(memory_format=format)
    weight = torch.randint(-8, 9, (260, 256, 3, 3), generator=g) / 8
    assert torch.equal(own(x, weight, None, 1, 1), functional.conv2d(x.double(), weight.double(), None, 1, 1).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("algorithm", ["auto", "fastvision"])
def test_no_images_have_a_gradient_of_zero(algorithm, dtype):
    x, weight = torch.rand(0, 64, 40, 40, dtype=dtype), torch.rand(64, 64, 3, 3, dtype=dtype, requires_grad=True)
    out = ops.conv2d(x, weight, None, 1, 1, algorithm=algorithm)
    (gradient,) = torch.autograd.grad(out, weight, torch.rand_like(out))
    assert torch.equal(gradient, torch.zeros_like(weight))


@pytest.mark.parametrize("format", FORMATS)
def test_gradient_by_the_weights_of_many_tiles(cpu, format):
    """More than are transformed at once, of several blocks of channels; eighths are exact."""
    g = torch.Generator().manual_seed(5)
    x, grad = ((torch.randint(-8, 9, (2, n, 45, 43), generator=g) / 8).to(memory_format=format) for n in (130, 200))
    weight = torch.zeros(200, 130, 3, 3, requires_grad=True)
    (ours,) = torch.autograd.grad(own(x, weight, None, 1, 1), weight, grad)
    assert torch.equal(ours.double(), weight_gradient_by_definition(x, grad, 1, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(41, 37), (16, 15)])  # an image of many tiles; of so few that weights come by panels
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dilation", [1, 3])
def test_threads_blocks_panels_and_vectors_give_equal_bits(format, dilation, size, dtype):
    g = torch.Generator().manual_seed(dilation)
    images = 3 if min(size) > 16 else 9

    def draw(*shape):
        return torch.randn(shape, generator=g).to(dtype)

    x, weight, bias = (
        draw(images, 140, *size).to(memory_format=format),
        draw(100, 140, 3, 3).requires_grad_(),
        draw(100),
    )
    grad = draw(images, 100, *size).to(memory_format=format)

    def both(images):
        part = x[images].detach().requires_grad_()
        out = own(part, weight, bias, 1, dilation, dilation)
        return out, *torch.autograd.grad(out, (part, weight), grad[images])

    expected = both(slice(None))
    best = _lib.build_info()["cpu_isa_best"]
    try:
        for threads, isa in itertools.product((1, 2, 4), {best, "avx2"} if best == "avx512" else {best}):
            torch.set_num_threads(threads)
            torch.ops.fastvision.set_cpu_isa(isa)
            for images in (slice(None), slice(1, 2)):
                out, by_input, by_weight = both(images)
                assert torch.equal(out, expected[0][images])
                assert torch.equal(by_input, expected[1][images])
                if images == slice(None):
                    assert torch.equal(by_weight, expected[2])
    finally:
        torch.set_num_threads(2)
        torch.ops.fastvision.set_cpu_isa(best)
