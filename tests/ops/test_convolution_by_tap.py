"""Dense convolutions with stride 1 by the CPU kernel that leaves out taps outside of the map."""

import itertools

import pytest
import torch
from convolutions import by_definition, compare, tensors
from fastvision import _lib, ops
from hypothesis import assume, given
from hypothesis import strategies as st
from support import FORMATS, LAYOUTS, seeds
from torch.nn import functional

channels = st.sampled_from([16, 17, 33, 70, 130])
kernels = st.sampled_from([(1, 2), (2, 2), (3, 1), (3, 3), (4, 5)])
pairs = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(
    p=st.fixed_dictionaries(
        {
            "seed": seeds,
            "dtype": st.sampled_from([torch.float32, torch.float64]),
            "format": st.sampled_from(FORMATS),
            "layout": st.sampled_from(LAYOUTS),
            "batch": st.sampled_from([0, 1, 3]),
            "size": st.tuples(st.integers(1, 19), st.integers(1, 19)),
            "groups": st.just(1),
            "channels": st.tuples(channels, channels),
            "kernel": kernels,
            "dilation": pairs,
            "padding": st.tuples(st.integers(0, 19), st.integers(0, 19)),
            "bias": st.booleans(),
        }
    ),
    transposed=st.booleans(),
)
def test_matches_torch(cpu, p, transposed):
    reach = [d * (k - 1) for d, k in zip(p["dilation"], p["kernel"])]
    grown = [n + (r - 2 * q if transposed else 2 * q - r) for n, q, r in zip(p["size"], p["padding"], reach)]
    assume(min(grown) >= 1 and max(grown) < 40)
    geometry = (p["padding"], 0, 1, p["dilation"]) if transposed else (p["padding"], p["dilation"])
    own = ops.conv_transpose2d if transposed else ops.conv2d
    theirs = functional.conv_transpose2d if transposed else functional.conv2d
    compare(
        lambda x, weight, bias=None: own(x, weight, bias, 1, *geometry, algorithm="fastvision"),
        lambda x, weight, bias=None: theirs(x, weight, bias, 1, *geometry),
        tensors(cpu, p, transposed),
        p,
    )


@pytest.mark.parametrize("format", FORMATS)
def test_many_weights_and_pixels(cpu, format):
    """In huge pages, several tasks for an image; eighths are exact."""
    g = torch.Generator().manual_seed(4)
    x = (torch.randint(-8, 9, (1, 300, 61, 63), generator=g) / 8).to(memory_format=format)
    weight = torch.randint(-8, 9, (400, 300, 3, 3), generator=g) / 8
    out = ops.conv2d(x, weight, None, 1, 50, 50, algorithm="fastvision")
    assert torch.equal(out, functional.conv2d(x.double(), weight.double(), None, 1, 50, 50).float())


def test_large_images_are_packed_one_by_one():
    """Each has more numbers than are packed at a time."""
    g = torch.Generator().manual_seed(6)
    x, weight = torch.randn(2, 16, 1030, 1030, generator=g), torch.randn(16, 16, 3, 3, generator=g)
    out = ops.conv2d(x, weight, None, 1, 700, 700, algorithm="fastvision")
    for image in range(2):
        alone = ops.conv2d(x[image], weight, None, 1, 700, 700, algorithm="fastvision")
        assert torch.equal(out[image], alone)
    torch.testing.assert_close(
        out[:, :, :4], functional.conv2d(x, weight, None, 1, 700, 700)[:, :, :4], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("format", FORMATS)
def test_threads_blocks_and_vectors_give_equal_bits(format):
    g = torch.Generator().manual_seed(5)
    x = torch.randn(3, 140, 21, 17, generator=g).to(memory_format=format)
    weight, bias = torch.randn(100, 140, 3, 3, generator=g), torch.randn(100, generator=g)
    grad = torch.randn(3, 100, 21, 17, generator=g).to(memory_format=format)

    def both(images):
        part = x[images].detach().requires_grad_()
        out = ops.conv2d(part, weight, bias, 1, 12, 12, algorithm="fastvision")
        return out, torch.autograd.grad(out, part, grad[images])[0]

    expected = both(slice(None))
    best = _lib.build_info()["cpu_isa_best"]
    try:
        for threads, isa in itertools.product((1, 2, 5), {best, "avx2"} if best == "avx512" else {best}):
            torch.set_num_threads(threads)
            torch.ops.fastvision.set_cpu_isa(isa)
            for images in (slice(None), slice(1, 2)):
                for ours, want in zip(both(images), expected):
                    assert torch.equal(ours, want[images])
    finally:
        torch.set_num_threads(2)
        torch.ops.fastvision.set_cpu_isa(best)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("transposed", [False, True])
def test_not_finite_values_reach_what_depends_on_them(cpu, format, value, which, transposed):
    g = cpu.vary(1)
    x, weight = torch.rand(2, 16, 9, 14, generator=g) + 0.1, torch.rand(17, 16, 2, 3, generator=g) + 0.1
    (x, weight)[which][1, 3, 1, 2] = value
    x = x.to(memory_format=format)
    for padding in (0, 3, 7):
        if transposed:  # by turned weights, the same
            turned, less = weight.transpose(0, 1).flip(2, 3).contiguous(), (4 - padding, 8 - padding)
            if min(less) < 0:
                continue
            out = ops.conv_transpose2d(x, turned, None, 1, less, 0, 1, 4, algorithm="fastvision")
        else:
            out = ops.conv2d(x, weight, None, 1, padding, 4, algorithm="fastvision")
        expected = by_definition(x, weight, padding, 4)
        torch.testing.assert_close(out.double(), expected, equal_nan=True, atol=1e-5, rtol=1e-5)
