"""RoI align of sizes at which kernels change their way: wide regions, results and maps larger than the caches."""

import pytest
import torch
from fastvision import ops
from fastvision.ops.roi_align import roi_align_reference
from support import FORMATS, assert_close, random_boxes


@pytest.mark.parametrize("channels", [1, 4, 5, 8])
@pytest.mark.parametrize("ratio", [-1, 2])
def test_regions_as_wide_as_a_few_vectors(backend, channels, ratio):
    for seed, width in enumerate((16, 33, 49, 64, 65, 130)):
        g = backend.vary(seed)
        x = torch.randn(2, channels, 5, width, generator=g)
        whole = [[1.0, 0, 0, width, 5], [0, 0, 0, width, 5], [1, width - 9, 1, width, 5], [1, 1, 1, width - 2, 4]]
        rois = torch.tensor(whole)
        for size in (7, (3, 14), (2, 40)):
            out = ops.roi_align(x.to(backend.device), rois.to(backend.device), size, 1.0, ratio, True)
            pair = size if isinstance(size, tuple) else (size, size)
            # Fractions of coordinates up to 130 in float32 are the weights.
            assert_close(out, roi_align_reference(x.double(), rois.double(), pair, 1.0, ratio, True), scale=10)


def large_problem(channels, format):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels, 40, 60, generator=g).to(memory_format=format)
    return x, torch.cat([torch.zeros(720, 1), random_boxes(g, 720, size=40.0, dtype=torch.float32)], 1)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("channels", [256, 250])
def test_results_and_gradients_larger_than_caches(format, channels):
    x, rois = large_problem(channels, format)
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = ops.roi_align(leaf, rois, 7, 1.0, 2)
    assert out.nbytes >= 32 << 20
    for part in (slice(None, 300), slice(300, None)):
        assert torch.equal(out[part], ops.roi_align(x, rois[part], 7, 1.0, 2))
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(out, leaf, grad.to(memory_format=format))
    few = x[:, -8:].clone().requires_grad_()
    (expected,) = torch.autograd.grad(ops.roi_align(few, rois, 7, 1.0, 2), few, grad[:, -8:])
    torch.testing.assert_close(gradient[:, -8:], expected)


@pytest.mark.parametrize("op", ["maximum", "rotated"])
def test_maps_that_are_turned_over(op):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 256, 168, 200, generator=g)
    assert x.nbytes >= 32 << 20
    rois = torch.cat([torch.zeros(100, 1), random_boxes(g, 100, size=150.0, dtype=torch.float32)], 1)
    rotated = torch.cat([rois, torch.linspace(-90, 90, 100)[:, None]], 1)

    def pooled(x):
        if op == "maximum":
            return ops.roi_align(x, rois, 7, 1.0, 2, mode="max")
        return ops.roi_align_rotated(x, rotated, 7, 1.0, 2)

    out = pooled(x)
    assert torch.equal(out, pooled(x.contiguous(memory_format=torch.channels_last)))
    torch.testing.assert_close(out[:, 100:103], pooled(x[:, 100:103]))
