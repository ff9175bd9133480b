"""Dense ops against torch on the CPU: python benchmarks/ops/dense.py [--only unpool] [--rounds 9] [--threads 1]

Contestants run in turns in one process on the same inputs, after a check that they agree; the table has medians of
process CPU time in milliseconds and the quotient.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from fastvision import ops
from torch import Tensor
from torch.nn import functional as F

Row = tuple[str, Callable[[], Any], Callable[[], Any]]


def with_gradient(f: Callable[..., Tensor], *tensors: Tensor) -> Callable[[], Any]:
    """Forward and backward of the sum, with the gradients of all tensors that want one."""
    inputs = [t for t in tensors if t.requires_grad]
    return lambda: torch.autograd.grad(f(*tensors).sum(), inputs)


def total_variation() -> Iterator[Row]:
    def plain(x: Tensor) -> Tensor:
        return (x[..., 1:, :] - x[..., :-1, :]).abs().sum() + (x[..., 1:] - x[..., :-1]).abs().sum()

    x = torch.rand(1, 256, 128, 128)
    for name, image in (("NCHW", x), ("channels_last", x.to(memory_format=torch.channels_last))):
        yield f"total_variation 256x128x128 {name}", lambda i=image: ops.total_variation(i), lambda i=image: plain(i)
        i = image.clone().requires_grad_()
        yield (
            f"total_variation 256x128x128 {name} + gradient",
            with_gradient(ops.total_variation, i),
            with_gradient(plain, i),
        )


def max_unpool2d() -> Iterator[Row]:
    """SegNet's last decoder step."""
    for name, format in (("NCHW", torch.contiguous_format), ("channels_last", torch.channels_last)):
        full = torch.rand(4, 64, 360, 480).to(memory_format=format)
        x, index = F.max_pool2d(full, 2, return_indices=True)
        taps = ops.max_pool2d(full, 2, return_indices=True, compact_indices=True)[1]
        label = f"4x64x180x240 -> 360x480 {name}"
        yield f"max_pool2d {label}", lambda f=full: ops.max_pool2d(f, 2), lambda f=full: F.max_pool2d(f, 2)
        theirs = lambda x=x, i=index: F.max_unpool2d(x, i, 2)  # noqa: E731
        yield f"max_unpool2d {label}, int64", lambda x=x, i=index: ops.max_unpool2d(x, i, 2), theirs
        yield f"max_unpool2d {label}, uint8", lambda x=x, i=taps: ops.max_unpool2d(x, i, 2), theirs
        grad, x = torch.rand_like(full), x.clone().requires_grad_()
        ours, theirs, compact = (
            f(x, i, 2) for f, i in ((ops.max_unpool2d, index), (F.max_unpool2d, index), (ops.max_unpool2d, taps))
        )
        backward = [lambda o=o, x=x, g=grad: torch.autograd.grad(o, x, g, True) for o in (ours, theirs, compact)]
        yield f"max_unpool2d {label}, int64 gradient", backward[0], backward[1]
        yield f"max_unpool2d {label}, uint8 gradient", backward[2], backward[1]


def gram_matrix() -> Iterator[Row]:
    """VGG-16's relu1_1 to relu5_1 for an image of 512 x 512."""
    for channels, size in ((64, 512), (128, 256), (256, 128), (512, 64), (512, 32)):
        x = torch.randn(1, channels, size, size)
        plain = lambda x=x: torch.bmm(x.flatten(2), x.flatten(2).mT)  # noqa: E731
        label = f"gram_matrix {channels}x{size}x{size}"
        yield f"{label} NCHW", lambda x=x: ops.gram_matrix(x), plain
        last = x.to(memory_format=torch.channels_last)
        yield f"{label} channels_last (torch: NCHW)", lambda x=last: ops.gram_matrix(x), plain


def conv_transpose2d() -> Iterator[Row]:
    """FCN's upsampling (FCN-32s, FCN-8s) and U-Net's (2 x 2, stride 2)."""
    for channels, size, stride in ((21, 16, 32), (21, 70, 8)):
        x, w = torch.randn(1, channels, size, size), ops.upsample_bilinear_kernel(channels, stride)
        for name, image in (("NCHW", x), ("channels_last", x.to(memory_format=torch.channels_last))):
            yield (
                f"conv_transpose2d bilinear {channels}x{size}x{size}, stride {stride} {name}",
                lambda i=image, w=w, s=stride: ops.conv_transpose2d(i, w, None, s, groups=w.shape[0]),
                lambda i=image, w=w, s=stride: F.conv_transpose2d(i, w, None, s, groups=w.shape[0]),
            )
    for channels, size in ((256, 128), (128, 256), (64, 256)):
        x, w = torch.randn(1, channels, size, size), torch.randn(channels, channels // 2, 2, 2)
        yield (
            f"conv_transpose2d 2x2 {channels}x{size}x{size} -> {channels // 2} NCHW",
            lambda x=x, w=w: ops.conv_transpose2d(x, w, None, 2),
            lambda x=x, w=w: F.conv_transpose2d(x, w, None, 2),
        )


def conv2d() -> Iterator[Row]:
    """Atrous depthwise convolutions of DeepLab v3+."""
    for channels, dilation in ((2048, 12), (1024, 18)):
        x, w = torch.randn(1, channels, 33, 33), torch.randn(channels, 1, 3, 3).requires_grad_()
        for name, format in (("NCHW", torch.contiguous_format), ("channels_last", torch.channels_last)):
            image = x.to(memory_format=format).requires_grad_()
            options = (None, 1, dilation, dilation, channels)
            ours = lambda i, w, o=options: ops.conv2d(i, w, *o)  # noqa: E731
            theirs = lambda i, w, o=options: F.conv2d(i, w, *o)  # noqa: E731
            label = f"conv2d depthwise 3x3, dilation {dilation}, {channels}x33x33 {name}"
            plain, kernel = image.detach(), w.detach()
            yield label, lambda f=ours, i=plain, k=kernel: f(i, k), lambda f=theirs, i=plain, k=kernel: f(i, k)
            yield f"{label} + gradients", with_gradient(ours, image, w), with_gradient(theirs, image, w)


GROUPS = [total_variation, max_unpool2d, gram_matrix, conv_transpose2d, conv2d]


def agree(ours: Any, theirs: Any) -> None:
    for a, b in zip(*(v if isinstance(v, tuple) else (v,) for v in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * max(1.0, float(b.abs().max())))


def medians(contestants: list[Callable[[], Any]], rounds: int) -> list[float]:
    times: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for f, taken in zip(contestants, times):
            start = time.process_time()
            f()
            taken.append((time.process_time() - start) * 1e3)
    return [statistics.median(taken) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {arguments.threads} thread(s)")
    print(f"{'workload':64} {'ours':>9} {'torch':>9} {'factor':>7}")
    for group in GROUPS:
        if arguments.only in group.__name__:
            for name, ours, theirs in group():
                agree(ours(), theirs())
                a, b = medians([ours, theirs], arguments.rounds)
                print(f"{name:64} {a:9.2f} {b:9.2f} {b / a:7.2f}", flush=True)


if __name__ == "__main__":
    main()
