"""Cases A001 to A033: regions of interest. A function per case, called with the backend, in a process of its own."""

import resource
import time
from math import inf, nan

import torch
from fastvision import ops

T = torch.tensor


def X(*shape, **options):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), **options)


def raises(kinds, *texts):
    """A context that expects an exception of these kinds whose message has all the texts."""

    class Expected:
        def __enter__(self):
            return self

        def __exit__(self, kind, error, trace):
            assert kind is not None, f"no exception, expected {kinds}"
            if not issubclass(kind, kinds):
                return False
            for text in texts:
                assert text in str(error), f"{text!r} not in {error!s}"
            return True

    return Expected()


def index_error(backend, call, op, row, *texts):
    """R3: on the CPU a ValueError; on CUDA zeros in that row and a count."""
    if backend.name == "cpu":
        with raises(ValueError, f"row {row}", *texts):
            call()
        return None
    out = call()
    assert not out[row].any()
    assert ops.device_errors(backend.device) == (1, (op, row))
    return out


def a001(b):
    index_error(b, lambda: ops.roi_pool(X(1, 256, 50, 50), T([[1.0, 0, 0, 4, 4]]), 7), "roi_pool", 0, "0..0", "got 1")
    index_error(b, lambda: ops.roi_pool(X(1, 256, 50, 50), T([[1e5, 0, 0, 4, 4]]), 7), "roi_pool", 0)


def a002(b):
    index_error(b, lambda: ops.roi_align(X(2, 4, 8, 8), T([[-1.0, 0, 0, 4, 4]]), 3), "roi_align", 0, "got -1")


def a003(b):
    x = X(2, 4, 8, 8, requires_grad=True)
    out = index_error(b, lambda: ops.roi_align(x, T([[5.0, 0, 0, 4, 4]]), 3), "roi_align", 0)
    if out is not None:
        out.sum().backward()
        assert not x.grad.any()


def a004(b):
    index_error(b, lambda: ops.roi_pool(X(2, 4, 8, 8), T([[3e9, 0, 0, 4, 4]]), 3), "roi_pool", 0)


def a005(b):
    index_error(b, lambda: ops.roi_pool(X(2, 4, 8, 8), T([[inf, 0, 0, 4, 4]]), 3), "roi_pool", 0)


def a006(b):
    index_error(b, lambda: ops.roi_pool(X(3, 4, 8, 8), T([[1.5, 0, 0, 4, 4]]), 3), "roi_pool", 0, "1.5")


def a007(b):
    good = torch.cat([torch.arange(1000)[:, None] % 2, X(1000, 4) * 8], 1).float()
    bad = good.clone()
    bad[517, 0] = 2
    x = X(2, 4, 8, 8)
    out = index_error(b, lambda: ops.roi_align(x, bad, 3), "roi_align", 517)
    if out is not None:
        rest = [i for i in range(1000) if i != 517]
        assert torch.equal(out[rest], ops.roi_align(x, good, 3)[rest])


def a008(b):
    x = X(2, 4, 8, 8, requires_grad=True)
    y = ops.roi_align(x, T([[0.0, 0, 0, 4, nan]]), 3, sampling_ratio=1, aligned=True)
    y.sum().backward()
    assert not y.any()
    assert not x.grad.any()


def a009(b):
    assert not ops.roi_align(X(2, 4, 8, 8), T([[0.0, -inf, -inf, inf, inf]]), 3, sampling_ratio=2).any()


def a010(b):
    x = X(1, 1, 8, 8)
    y = ops.roi_pool(x, T([[0.0, -3e9, -3e9, 3e9, 3e9]]), 3)
    assert y[0, 0, 1, 1] == x.max()
    assert y.count_nonzero() == 1


def a011(b):
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    y = ops.roi_align(X(2, 4, 8, 8), T([[0.0, 0, 0, 1e9, 1e9]]), 3)
    assert time.monotonic() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
    assert y.abs().max() <= 1e-6


def a012(b):
    with raises(ValueError, "sampling_ratio", "256"):
        ops.roi_align(X(2, 4, 8, 8), T([[0.0, 0, 0, 4, 4]]), 3, sampling_ratio=100000)


def a013(b):
    for s in (-1, 0, 1, 2):
        assert not ops.roi_align(X(1, 4, 8, 8), T([[0.0, 6, 6, 2, 2]]), 3, sampling_ratio=s, aligned=True).any()


def a014(b):
    with raises(ValueError, "output_size"):
        ops.roi_align(X(1, 4, 8, 8), T([[0.0, 0, 0, 4, 4]]), (0, 3))


def a015(b):
    for op in (ops.roi_pool, ops.roi_align):
        with raises(ValueError, "output_size: expected an int or 2 ints, got 3"):
            op(X(1, 4, 8, 8), T([[0.0, 0, 0, 4, 4]]), (2, 2, 2))


def a016(b):
    for scale in (0.0, -1.0, inf, nan):
        for op in (ops.roi_pool, ops.roi_align):
            with raises(ValueError, "spatial_scale"):
                op(X(1, 4, 8, 8), T([[0.0, 0, 0, 4, 4]]), 3, spatial_scale=scale)


def a017(b):
    for shape in ((1, 4, 8, 0), (1, 4, 0, 8)):
        for op in (ops.roi_pool, ops.roi_align):
            with raises(ValueError, "input", "height", "width"):
                op(torch.zeros(shape), T([[0.0, 0, 0, 4, 4]]), 3)
            assert op(torch.zeros(shape), torch.zeros(0, 5), 3).shape == (0, 4, 3, 3)


def a018(b):
    index_error(b, lambda: ops.roi_pool(torch.zeros(0, 4, 8, 8), T([[0.0, 0, 0, 4, 4]]), 3), "roi_pool", 0)
    index_error(b, lambda: ops.roi_align(torch.zeros(0, 4, 8, 8), T([[0.0, 0, 0, 4, 4]]), 3), "roi_align", 0)


def a019(b):
    for op in (ops.roi_align, ops.roi_pool):
        x = X(2, 4, 8, 8, requires_grad=True)
        y = op(x, torch.zeros(0, 5), 3)
        y.sum().backward()
        assert y.shape == (0, 4, 3, 3)
        assert not x.grad.any()


def a020(b):
    for op in (ops.roi_align, ops.roi_pool):
        x = torch.zeros(1, 0, 8, 8, requires_grad=True)
        op(x, T([[0.0, 0, 0, 4, 4]]), 3).sum().backward()
        assert x.grad.shape == (1, 0, 8, 8)


def a021(b):
    for op in (ops.roi_align, ops.roi_pool):
        with raises(ValueError, "boxes", "2", "5"):
            op(X(2, 4, 8, 8), [T([[0.0, 0, 4, 4]])] * 5, 3)


def a022(b):
    with raises(ValueError, "boxes", "2", "0"):
        ops.roi_align(X(2, 4, 8, 8), [], 3)
    assert ops.roi_align(torch.zeros(0, 4, 8, 8), [], 3).shape == (0, 4, 3, 3)


def a023(b):
    for op in (ops.roi_align, ops.roi_pool):
        with raises(TypeError, "float32", "float64"):
            op(X(1, 4, 8, 8), T([[0.0, 0, 0, 4, 4]]).double(), 3)
        with raises(TypeError, "int64", ".float()"):
            op(X(1, 4, 8, 8), T([[0, 0, 0, 4, 4]]), 3)


def a024(b):
    x, rois = X(1, 4, 8, 8).bfloat16(), T([[0.0, 0.5, 0.5, 4, 4]])
    y = ops.roi_align(x, rois, 3)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), ops.roi_align(x.double(), rois.double(), 3), rtol=1.6e-2, atol=1.6e-2)


def a025(b):
    x = torch.arange(2050.0).view(-1, 1, 1, 1).expand(2050, 1, 4, 4)
    assert ops.roi_align(x.half(), T([[2049.0, 0, 0, 3, 3]]), 1).item() == 2048
    assert ops.roi_align(x, T([[2049.0, 0, 0, 3, 3]]), 1).item() == 2049


def a026(b):
    for op in (ops.roi_align, ops.roi_pool):
        with raises(ValueError, "input", "(1, 4, 8, 8, 8)"):
            op(X(1, 4, 8, 8, 8), T([[0.0, 0, 0, 4, 4]]), 3)


def a027(b):
    for op in (ops.roi_align, ops.roi_pool):
        y = op(torch.zeros(2, 4, 8, 8, device="meta"), torch.zeros(6, 5, device="meta"), (2, 3))
        assert y.shape == (6, 4, 2, 3)
        assert y.device.type == "meta"


def a028(b):
    x = X(2, 8, 9, 8).to(memory_format=torch.channels_last)[:, ::2].requires_grad_()
    r = (X(6, 10)[:, ::2] * 4).contiguous()
    r[:, 0] = 1
    wide = torch.zeros(6, 10)
    wide[:, ::2] = r
    for op in (ops.roi_align, ops.roi_pool):
        copy = x.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        y, z = op(x, wide[:, ::2], 3), op(copy, r, 3)
        assert torch.equal(y, z) if op is ops.roi_pool else torch.allclose(y, z, rtol=0, atol=1e-6)
        (gy,), (gz,) = torch.autograd.grad(y.sum(), x), torch.autograd.grad(z.sum(), copy)
        torch.testing.assert_close(gy, gz, rtol=1e-6, atol=1e-6)


def a029(b):
    flat = X(2 * 6 * 7 * 5 + 1).half()
    x, rois = flat[1:].view(2, 6, 7, 5), T([[0.0, 0, 0, 4, 4], [1.0, 1, 1, 3, 5]])
    for op in (ops.roi_align, ops.roi_pool):
        assert torch.equal(op(x, rois, 3), op(x.clone(), rois, 3))


def a030(b):
    args = T([[0.0, 0, 0, 4, 4]]), 1.0, 2, False, 2, 8, 8, False
    with raises(RuntimeError, "grad"):
        b.ops.roi_align_backward(X(3, 1, 2, 2), *args)
    with raises(RuntimeError, "argmax"):
        argmax = torch.full((1, 1, 7, 7), 5, dtype=torch.int32)
        b.ops.roi_pool_backward(X(1, 1, 2, 2), args[0], argmax, 1.0, 2, 8, 8, False)
    corrupt = torch.full((1, 1, 2, 2), 2**31 - 1, dtype=torch.int32)
    assert not b.ops.roi_pool_backward(X(1, 1, 2, 2), args[0], corrupt, 1.0, 2, 8, 8, False).any()


def a031(b):
    assert ops.roi_pool(torch.full((1, 1, 4, 4), -inf), T([[0.0, 0, 0, 3, 3]]), 1).item() == -inf


def a033(b):
    with raises((torch.OutOfMemoryError, RuntimeError), "bytes"):
        ops.roi_align(X(1, 4, 8, 8), T([[0.0, 0, 0, 4, 4]]), (100000, 100000))
    with raises(ValueError, "2**63"):
        ops.roi_align(X(1, 4, 8, 8), T([[0.0, 0, 0, 4, 4]]), (2**31, 2**31))
    assert ops.roi_align(X(1, 4, 8, 8), T([[0.0, 0, 0, 4, 4]]), 3).shape == (1, 4, 3, 3)
