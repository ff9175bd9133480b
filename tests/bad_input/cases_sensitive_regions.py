"""The rules that the cases of regions are samples of, for position-sensitive pooling and for the maximum of samples."""

import resource
import time
from math import inf, nan

import torch
from cases_regions import T, X, index_error, raises
from fastvision import ops

ROI = T([[0.0, 0, 0, 4, 4]])
# All take nine channels or a multiple of them for 3 x 3 bins.
OPS = {
    "roi_align": lambda x, boxes, size=3, **options: ops.roi_align(x, boxes, size, mode="max", **options),
    "ps_roi_align": lambda x, boxes, size=3, **options: ops.ps_roi_align(x, boxes, size, **options),
    "ps_roi_pool": lambda x, boxes, size=3, **options: ops.ps_roi_pool(x, boxes, size, **options),
}


def sensitive_image_index(b):
    for name, op in OPS.items():
        for bad in (2.0, -1.0, 1.5, 3e9, 1e5, inf, nan):
            x = X(2, 9, 8, 8, requires_grad=True)
            rois = T([[1.0, 0, 0, 4, 4], [bad, 0, 0, 4, 4], [0.0, 1, 1, 5, 5]])
            out = index_error(b, lambda op=op, x=x, rois=rois: op(x, rois), name, 1, "0..1")
            if out is None:
                continue
            assert torch.equal(out[::2], op(x, rois[::2]))
            out[1].sum().backward()
            assert not x.grad.any()
        index_error(b, lambda op=op: op(torch.zeros(0, 9, 8, 8), ROI), name, 0)


def sensitive_regions_not_finite(b):
    for op in OPS.values():
        for corners in ([0, 0, 4, nan], [-inf, -inf, inf, inf], [nan, 0, 4, 4]):
            x = X(2, 9, 8, 8, requires_grad=True)
            y = op(x, T([[0.0, *corners]]))
            y.sum().backward()
            assert not y.any()
            assert not x.grad.any()


def sensitive_regions_of_any_size(b):
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    for op in OPS.values():
        for size in (1e9, 1e30, 3e38):
            for corners in ([0, 0, size, size], [-size, -size, size, size], [size, size, -size, -size]):
                x = X(2, 9, 8, 8, requires_grad=True)
                y = op(x, T([[0.0, *corners]]))
                y.sum().backward()
                assert y.isfinite().all()
                assert x.grad.isfinite().all()
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def sensitive_arguments(b):
    x = X(1, 9, 8, 8)
    for name, op in OPS.items():
        for size in ((0, 3), 0, -1):
            with raises(ValueError, name, "output_size"):
                op(x, ROI, size)
        with raises(ValueError, "output_size: expected an int or 2 ints, got 3"):
            op(x, ROI, (3, 3, 3))
        for scale in (0.0, -1.0, inf, nan):
            with raises(ValueError, name, "spatial_scale"):
                op(x, ROI, spatial_scale=scale)
        for shape in ((1, 9, 8, 0), (1, 9, 0, 8)):
            with raises(ValueError, name, "height", "width"):
                op(torch.zeros(shape), ROI)
            assert op(torch.zeros(shape), torch.zeros(0, 5)).shape[0] == 0
        with raises(TypeError, "float32", "float64"):
            op(x, ROI.double())
        with raises(TypeError, "int64", ".float()"):
            op(x, ROI.long())
        with raises(ValueError, "input", "(1, 9, 8, 8, 8)"):
            op(X(1, 9, 8, 8, 8), ROI)
        with raises(ValueError, "boxes", "(1, 4)"):
            op(x, ROI[:, 1:])
        with raises(ValueError, "boxes", "1", "5"):
            op(x, [ROI[:, 1:]] * 5)
        with raises(ValueError, "device", "meta"):
            op(x, ROI.to("meta"))
        assert op(x, ROI).isfinite().all()
    for name in ("roi_align", "ps_roi_align"):
        with raises(ValueError, "sampling_ratio", "256"):
            OPS[name](x, ROI, sampling_ratio=100000)
    for op in (ops.ps_roi_align, ops.ps_roi_pool):
        with raises(ValueError, "input", "3 * 3", "8"):
            op(X(1, 8, 8, 8), ROI, 3)
        with raises(ValueError, "input"):  # bins beyond 2**63
            op(x, ROI, (2**32, 2**32))
    for size, kinds, text in ((100000, RuntimeError, "bytes"), (2**31, ValueError, "2**63")):
        with raises(kinds, text):
            ops.roi_align(x, ROI, size, mode="max")
    assert ops.roi_align(x, ROI, 3, mode="max").isfinite().all()
    with raises(ValueError, "mode", "'avg' or 'max'"):
        ops.roi_align(x, ROI, 3, mode="min")


def sensitive_nothing(b):
    for op in OPS.values():
        x = X(2, 9, 8, 8, requires_grad=True)
        y = op(x, torch.zeros(0, 5))
        y.sum().backward()
        assert y.shape[0] == 0
        assert not x.grad.any()
        x = torch.zeros(1, 0, 8, 8, requires_grad=True)
        op(x, ROI).sum().backward()
        assert x.grad.shape == (1, 0, 8, 8)
        assert op(torch.zeros(0, 9, 8, 8), []).shape[0] == 0


def sensitive_backward_of_anything(b):
    """R2: the raw backward ops believe neither their shapes nor their indices."""
    rois = T([[0.0, 0, 0, 4, 4]])
    for name, extra in (("ps_roi_align_backward", (1.0, 2)), ("ps_roi_pool_backward", (1.0, False))):
        with raises(RuntimeError, name, "grad"):
            getattr(b.ops, name)(X(3, 1, 2, 2), rois, *extra, 2, 8, 8, False)
        with raises(RuntimeError, "n: expected"):
            getattr(b.ops, name)(X(1, 1, 2, 2), rois, *extra, -1, 8, 8, False)
    for argmax in (torch.zeros(1, 1, 7, 7, dtype=torch.int64), torch.zeros(1, 1, 2, 2, dtype=torch.int32)):
        with raises(RuntimeError, "argmax"):
            b.ops.roi_align_max_backward(X(1, 1, 2, 2), rois, argmax, 1.0, 2, False, 2, 8, 8, False)
    for corrupt in (2**62, 2**63 - 1, -(2**63), 2**31):
        argmax = torch.full((1, 1, 2, 2), corrupt, dtype=torch.int64)
        out = b.ops.roi_align_max_backward(X(1, 1, 2, 2), rois, argmax, 1.0, 2, False, 2, 8, 8, False)
        assert not out.any()


def a093(b):
    corner = X(50, 2) * 10
    rois = torch.cat([torch.zeros(50, 1), corner, corner + X(50, 2) * 12], 1)
    runs = {"roi_pool": lambda x: ops.roi_pool(x, rois, 3), **{n: lambda x, f=f: f(x, rois) for n, f in OPS.items()}}
    for run in runs.values():
        x = X(1, 9, 16, 16, requires_grad=True)
        y = run(x)
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        first = None
        for seed in range(25):
            b.vary(seed)
            y = run(x)
            (gradient,) = torch.autograd.grad(y, x, grad)
            first = gradient if first is None else first
            assert torch.equal(gradient, first)
