"""What algorithm="auto" of the convolutions takes."""

from functools import partial

import pytest
import torch
from fastvision import nn, ops
from fastvision.ops import _dispatch
from fastvision.ops._dispatch import own_is_faster
from support import FORMATS


@pytest.fixture(autouse=True)
def vectors_of_16_bits(monkeypatch):
    """On every processor the choices of one that multiplies them."""
    for dtype in (torch.bfloat16, torch.float16):
        monkeypatch.setitem(_dispatch._PRODUCT, dtype, 0.5)


@pytest.mark.parametrize("format", FORMATS)
def test_each_gradient_is_chosen_by_itself(format):
    """auto where result and gradients come from both: equal to torch, twice differentiable."""
    g = torch.Generator().manual_seed(7)
    x, w = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((1, 2, 3, 3), (2, 2, 3, 3)))
    up = torch.randn(2, 1, 9, 8, generator=g, dtype=torch.float64)
    x = x.to(memory_format=format).requires_grad_()
    for weight, stride, groups in ((w, 3, 1), (up, 8, 2)):
        weight.requires_grad_()
        f = partial(ops.conv_transpose2d, stride=stride, groups=groups)
        torch.autograd.gradcheck(f, (x, weight))
        torch.autograd.gradgradcheck(f, (x, weight))
    far = (torch.randn(2, 1, 2, 2, generator=g, dtype=torch.float64)).requires_grad_()
    torch.autograd.gradgradcheck(lambda *t: ops.conv2d(*t, None, 1, 8, 8, 2), (x, far))
    torch.autograd.gradgradcheck(lambda *t: ops.conv2d(*t, None, 3), (x, w))


DENSE_CHOICES = [  # which, channels of the weight, size, padding and dilation, dtype, taken in NCHW, and channels_last
    ("gather", (256, 2048), (33, 33), (12, 12), torch.float32, True, True),
    ("gather", (256, 1024), (33, 33), (12, 12), torch.float32, True, False),
    ("gather", (256, 2048), (37, 37), (12, 12), torch.float32, True, False),
    ("gather", (256, 2048), (33, 33), (7, 7), torch.float32, False, True),
    ("gather", (256, 2048), (33, 33), (7, 12), torch.float32, False, True),
    ("gather", (256, 1024), (28, 28), (12, 12), torch.float32, False, False),
    ("gather", (127, 2048), (33, 33), (12, 12), torch.float32, False, False),
    ("gather", (256, 63), (33, 33), (12, 12), torch.float32, False, False),
    ("scatter", (256, 2048), (33, 33), (18, 18), torch.float32, False, True),
    ("product", (256, 2048), (33, 33), (18, 18), torch.float32, True, True),
    ("product", (256, 512), (33, 33), (17, 17), torch.float32, True, True),
    ("product", (256, 512), (33, 33), (16, 16), torch.float32, False, False),
    ("product", (256, 512), (65, 65), (29, 29), torch.float32, True, True),
    ("product", (256, 512), (33, 65), (18, 18), torch.float32, True, True),
    ("product", (256, 512), (65, 33), (18, 18), torch.float32, False, False),
    ("product", (256, 512), (14, 14), (8, 8), torch.float32, False, True),
    ("product", (256, 31), (33, 33), (18, 18), torch.float32, False, False),
    ("product", (512, 1024), (33, 33), (8, 8), torch.float32, False, True),
    ("product", (512, 1024), (33, 33), (7, 7), torch.float32, False, False),
    ("product", (512, 1024), (67, 67), (8, 8), torch.float32, False, False),
    ("product", (256, 512), (65, 65), (28, 28), torch.float32, False, False),
    ("product", (256, 512), (33, 33), (18, 17), torch.float32, False, False),
    ("gather", (256, 2048), (33, 33), (11, 12), torch.float32, False, False),
    ("gather", (256, 2048), (20, 4096), (12, 12), torch.float32, True, False),
    ("gather", (256, 2048), (20, 4097), (12, 12), torch.float32, False, False),
    ("product", (256, 2048), (33, 33), (18, 18), torch.bfloat16, False, False),
    ("gather", (64, 64), (56, 56), (1, 1), torch.float64, True, True),
    ("gather", (63, 64), (56, 56), (1, 1), torch.float64, False, False),
    ("gather", (256, 256), (28, 28), (1, 1), torch.float64, False, False),
    ("gather", (256, 256), (33, 33), (6, 6), torch.float64, True, True),
    ("gather", (256, 256), (33, 33), (5, 5), torch.float64, False, False),
    ("gather", (64, 64), (56, 56), (0, 1), torch.float64, False, False),
    ("gather", (64, 64), (1, 8000), (1, 1), torch.float64, False, False),
    ("scatter", (16, 16), (112, 112), (1, 1), torch.float64, True, True),
    ("scatter", (15, 16), (112, 112), (1, 1), torch.float64, False, False),
    ("gather", (256, 256), (33, 33), (12, 12), torch.float64, True, True),
    ("scatter", (256, 256), (28, 28), (1, 1), torch.float64, True, True),
    ("scatter", (16, 16), (20, 20), (1, 1), torch.float64, False, False),
    ("product", (256, 256), (33, 33), (12, 12), torch.float64, True, True),
    ("product", (256, 256), (56, 56), (1, 1), torch.float64, False, False),
]


@pytest.mark.parametrize(("which", "channels", "size", "geometry", "dtype", "planes", "last"), DENSE_CHOICES)
def test_dense_choices(which, channels, size, geometry, dtype, planes, last):
    x = torch.empty(1, channels[1], *size, dtype=dtype)
    weight = torch.empty(*channels, 3, 3, dtype=dtype)
    problem = (weight, [1, 1, *(n for n in geometry for _ in (0, 1))], 1)
    assert own_is_faster(which, x, *problem) == planes
    assert own_is_faster(which, x.to(memory_format=torch.channels_last), *problem) == last


def test_dense_choices_look_at_the_format_of_weights():
    x, weight = torch.empty(1, 2048, 33, 33), torch.empty(256, 2048, 3, 3)
    x, last = (t.to(memory_format=torch.channels_last) for t in (x, weight))
    geometry = [1, 1, 12, 12, 12, 12]
    assert own_is_faster("gather", x, weight, geometry, 1)
    assert not own_is_faster("gather", x, last, geometry, 1)
    assert own_is_faster("product", x, last, geometry, 1)


@pytest.mark.parametrize("format", FORMATS)
def test_the_result_is_own_for_the_sake_of_the_gradient_by_the_weight(format):
    g = torch.Generator().manual_seed(3)
    x = torch.randn(1, 32, 20, 20, generator=g).to(memory_format=format)
    weight = torch.randn(16, 32, 3, 3, generator=g, requires_grad=True)
    results = []
    for algorithm in ("auto", "torch"):
        out = ops.conv2d(x, weight, None, 1, 12, 12, algorithm=algorithm)
        results.append((out.grad_fn.name(), out, *torch.autograd.grad(out.sin().sum(), weight)))
    assert results[0][0] == "conv2d_functionBackward" != results[1][0]
    frozen = ops.conv2d(x.requires_grad_(), weight.detach(), None, 1, 12, 12)
    assert frozen.grad_fn.name() == results[1][0]
    for ours, theirs in zip(*(r[1:] for r in results), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


SIDE_BY_SIDE_CHOICES = [  # which, channels of the weight, groups, kernel, size, dtype, taken, also in channels_last
    ("scatter", (64, 256), 1, (2, 2), (16, 32), torch.float32, True, False),
    ("scatter", (64, 257), 1, (2, 2), (16, 32), torch.float32, False, False),
    ("scatter", (64, 256), 1, (2, 2), (7, 73), torch.float32, False, False),
    ("scatter", (64, 256), 1, (3, 3), (7, 73), torch.float32, True, False),
    ("scatter", (64, 64), 1, (2, 2), (15, 32), torch.float64, True, False),
    ("scatter", (64, 65), 1, (2, 2), (15, 32), torch.float64, False, False),
    ("scatter", (64, 64), 1, (3, 3), (15, 32), torch.float64, False, False),
    ("scatter", (64, 128), 1, (2, 2), (128, 256), torch.float64, True, True),
    ("scatter", (64, 129), 1, (2, 2), (128, 256), torch.float64, False, False),
    ("gather", (64, 128), 1, (2, 2), (128, 256), torch.float64, True, True),
    ("gather", (64, 64), 2, (2, 2), (128, 256), torch.float64, True, False),
    ("scatter", (64, 128), 1, (2, 2), (16, 32), torch.bfloat16, False, False),
    ("gather", (64, 32), 1, (2, 2), (128, 256), torch.float32, True, False),
    ("product", (64, 32), 1, (2, 2), (128, 256), torch.float64, True, True),
    ("product", (64, 65), 1, (2, 2), (128, 256), torch.float64, False, False),
    ("product", (32, 128), 1, (2, 2), (128, 256), torch.float32, True, True),
    ("product", (64, 129), 1, (2, 2), (128, 256), torch.float32, False, True),
    ("product", (64, 256), 1, (2, 2), (64, 64), torch.float32, False, True),
    ("product", (64, 257), 1, (2, 2), (64, 64), torch.float32, False, False),
    ("product", (64, 256), 1, (2, 2), (63, 65), torch.float32, False, False),
    ("product", (64, 31), 1, (2, 2), (128, 256), torch.float32, False, False),
    ("product", (31, 64), 1, (2, 2), (128, 256), torch.float32, False, False),
    ("product", (64, 32), 1, (2, 2), (127, 256), torch.float64, False, False),
    ("product", (64, 32), 4, (2, 2), (128, 256), torch.float32, False, False),
    ("product", (128, 32), 2, (2, 2), (128, 256), torch.float32, True, False),
    ("gather", (64, 32), 1, (2, 1), (128, 256), torch.float32, False, False),
    ("gather", (64, 32), 1, (3, 3), (128, 256), torch.float32, False, False),
    ("gather", (64, 32), 1, (2, 2), (128, 256), torch.bfloat16, False, False),
]


@pytest.mark.parametrize("choice", SIDE_BY_SIDE_CHOICES)
def test_auto_of_windows_side_by_side(choice):
    which, channels, groups, kernel, size, dtype, taken, also_channels_last = choice
    x = torch.empty(1, 128, *size, dtype=dtype)
    last = x.to(memory_format=torch.channels_last)
    weight = torch.empty(*channels, *kernel, dtype=dtype)
    assert own_is_faster(which, x, weight, (*kernel, 0, 0, 1, 1), groups) == taken
    assert own_is_faster(which, last, weight, (*kernel, 0, 0, 1, 1), groups) == also_channels_last
    assert not own_is_faster(which, x, weight, (*kernel, 0, 0, 2, 2), groups)
    assert which == "scatter" or not own_is_faster(which, x[:, :127], weight, (*kernel, 0, 0, 1, 1), groups)


def test_auto_of_small_maps_with_many_channels():
    weight = torch.empty(64, 128, 2, 2)
    for size, taken in ((127, False), (128, True)):
        assert own_is_faster("gather", torch.empty(1, 512, size, 129), weight, (2, 2, 0, 0, 1, 1), 1) == taken


@pytest.mark.parametrize(("images", "taken"), [(15, False), (16, True)])
def test_auto_of_many_small_maps(images, taken):
    """The boxes of a mask head: 14 x 14 pixels each."""
    x, weight = torch.empty(images, 256, 14, 14), torch.empty(256, 256, 2, 2)
    assert own_is_faster("scatter", x, weight, (2, 2, 0, 0, 1, 1), 1) == taken


def test_modules_choose_as_the_ops_do():
    """Also for the sake of a gradient that the own kernel is faster for."""
    x = torch.rand(1, 3, 16, 16)
    for needs_gradient in (False, True):
        out = nn.Conv2d(3, 8, 4, 4)(x.clone().requires_grad_(needs_gradient))
        expected = ops.conv2d(
            x.clone().requires_grad_(needs_gradient), torch.rand(8, 3, 4, 4, requires_grad=True), None, 4
        )
        assert type(out.grad_fn) is type(expected.grad_fn)
        assert ("Convolution" in type(out.grad_fn).__name__) == (not needs_gradient)


DEPTHWISE_CHOICES = [  # which, format, kernel, size, stride, dilation, dtype, taken
    ("gather", torch.contiguous_format, 3, 14, 1, 1, torch.float32, True),
    ("scatter", torch.contiguous_format, 3, 14, 1, 1, torch.bfloat16, True),
    ("gather", torch.contiguous_format, 3, 13, 1, 1, torch.float32, False),
    ("gather", torch.channels_last, 3, 14, 1, 1, torch.float32, False),
    ("product", torch.contiguous_format, 3, 14, 1, 1, torch.float32, False),
    ("gather", torch.contiguous_format, 5, 28, 1, 1, torch.float32, True),
    ("gather", torch.contiguous_format, 5, 27, 1, 1, torch.float32, False),
    ("gather", torch.contiguous_format, 7, 56, 1, 1, torch.float32, False),
    ("product", torch.contiguous_format, 5, 14, 1, 1, torch.float32, True),
    ("product", torch.channels_last, 7, 14, 2, 1, torch.float32, True),
    ("product", torch.contiguous_format, 3, 14, 2, 1, torch.float32, False),
    ("scatter", torch.channels_last, 3, 14, 2, 1, torch.bfloat16, True),
    ("scatter", torch.channels_last, 3, 14, 2, 1, torch.float32, False),
    ("gather", torch.contiguous_format, 3, 14, 1, 2, torch.float32, True),
    ("gather", torch.channels_last, 3, 14, 1, 2, torch.float32, False),
    ("gather", torch.contiguous_format, 3, 14, 2, 2, torch.float32, False),
    ("scatter", torch.channels_last, 8, 14, 4, 1, torch.float32, True),
    ("scatter", torch.channels_last, 4, 14, 2, 1, torch.float32, False),
    ("scatter", torch.channels_last, 9, 14, 4, 1, torch.float32, False),
    ("scatter", torch.contiguous_format, 9, 14, 4, 1, torch.float32, True),
    ("gather", torch.channels_last, 8, 14, 4, 1, torch.float32, False),
    ("gather", torch.channels_last, 3, 14, 1, 1, torch.float64, True),
    ("product", torch.contiguous_format, 3, 14, 2, 1, torch.float64, True),
    ("scatter", torch.channels_last, 3, 14, 1, 1, torch.float16, True),
    ("product", torch.contiguous_format, 3, 14, 2, 1, torch.float16, True),
    ("gather", torch.channels_last, 3, 14, 1, 1, torch.float16, False),
]


@pytest.mark.parametrize("choice", DEPTHWISE_CHOICES)
def test_auto_of_one_channel_per_group(choice):
    which, format, kernel, size, stride, dilation, dtype, taken = choice
    x = torch.empty(1, 8, size, size + 1, dtype=dtype).to(memory_format=format)
    weight = torch.empty(8, 1, kernel, kernel, dtype=dtype)
    padding = dilation * (kernel // 2)
    assert own_is_faster(which, x, weight, (stride, stride, padding, padding, dilation, dilation), 8) == taken


HALF_CHOICES = [  # which, channels of the weight, groups, kernel, size, taken
    ("product", (8, 8), 1, (3, 3), (5, 5), True),
    ("product", (8, 4), 2, (1, 1), (5, 5), True),
    ("scatter", (8, 4), 2, (3, 3), (5, 5), True),
    ("gather", (8, 4), 2, (2, 2), (16, 32), False),
    ("scatter", (8, 8), 1, (4, 4), (8, 16), True),
    ("scatter", (8, 8), 1, (4, 4), (7, 18), False),
    ("gather", (8, 8), 1, (2, 2), (16, 32), True),
    ("gather", (8, 8), 1, (2, 2), (7, 73), False),
    ("gather", (8, 8), 1, (4, 4), (16, 32), False),
    ("gather", (8, 3), 1, (2, 2), (16, 32), False),
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("choice", HALF_CHOICES)
def test_auto_in_float16(choice, format):
    which, channels, groups, kernel, size, taken = choice
    x = torch.empty(2, 8, *size, dtype=torch.float16).to(memory_format=format)
    weight = torch.empty(*channels, *kernel, dtype=torch.float16)
    assert own_is_faster(which, x, weight, (*kernel, 0, 0, 1, 1), groups) == taken
    always = which == "product" or (which == "scatter" and groups > 1)
    assert own_is_faster(which, x, weight, (1, 1, 0, 0, 1, 1), groups) == always


def test_gradients_of_weights_in_float16():
    """torch's take hundreds of times as long: for their sake the result is also an own one, if it is not widened."""
    x, weight = (torch.rand(*shape, dtype=torch.float16) for shape in ((1, 16, 20, 20), (16, 16, 3, 3)))
    assert "Convolution" in type(ops.conv2d(x.clone().requires_grad_(), weight).grad_fn).__name__
    weight.requires_grad_()
    out = ops.conv2d(x, weight)
    assert "Convolution" not in type(out.grad_fn).__name__
    (grad,) = torch.autograd.grad(out.sum(), weight)
    wide = weight.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(torch.conv2d(x.double(), wide).sum(), wide)
    torch.testing.assert_close(grad, expected.half())


WIDENED = [
    (lambda x, w, b, a: ops.conv2d(x, w, b, 2, 1, algorithm=a), (16, 24, 3, 3)),
    (lambda x, w, b, a: ops.conv2d(x, w, b, groups=2, algorithm=a), (16, 12, 3, 3)),
    (lambda x, w, b, a: ops.conv_transpose2d(x, w, b, 2, 1, 1, algorithm=a), (24, 16, 3, 3)),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("call", "shape"), WIDENED)
def test_auto_widens_what_the_processor_cannot_multiply(monkeypatch, call, shape, dtype):
    """The result and the gradients are those of float32, rounded once."""
    g = torch.Generator().manual_seed(1)
    inputs = [torch.randn(s, generator=g).to(dtype).requires_grad_() for s in ((4, 24, 9, 11), shape, (16,))]
    results = []
    for product in (0.0, 5.0):
        monkeypatch.setitem(_dispatch._PRODUCT, dtype, product)
        out = call(*inputs, "auto")
        results.append((out, *torch.autograd.grad(out, inputs, torch.ones_like(out))))
    assert "ToCopy" in type(out.grad_fn).__name__
    assert out.dtype == dtype
    wide = [t.detach().float().requires_grad_() for t in inputs]
    out = call(*wide, "auto")
    exact = (out, *torch.autograd.grad(out, wide, torch.ones_like(out)))
    for torchs, ours, expected in zip(*results, exact, strict=True):
        assert torch.equal(ours, expected.to(dtype))
        torch.testing.assert_close(torchs, ours, atol=0.1, rtol=0.02)
    assert type(call(*inputs, "torch").grad_fn).__name__ == "ConvolutionBackward0"
    with torch.autocast("cpu", dtype):
        assert torch.equal(call(*wide, "auto"), results[1][0])
    x, *others = (t.detach() for t in inputs)
    _, tangent = torch.func.jvp(lambda x: call(x, *others, "auto"), (x,), (x,))
    _, expected = torch.func.jvp(lambda x: call(x, *(t.float() for t in others), "auto"), (x.float(),), (x.float(),))
    assert torch.equal(tangent, expected.to(dtype))
    stacked = torch.func.vmap(lambda x: call(x, *others, "auto"))(torch.stack([x, 2 * x]))
    torch.testing.assert_close(stacked[0], results[1][0].detach(), atol=0.1, rtol=0.02)
    compiled = torch.compile(lambda *t: call(*t, "auto"), fullgraph=True, backend="aot_eager")
    taken_for_exported = torch.compile(lambda t: t + torch.compiler.is_exporting(), backend="eager")(torch.zeros(()))
    expected = call(x, *others, "torch") if taken_for_exported else results[1][0]  # the former in torch 2.11
    assert torch.equal(compiled(x, *others), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_exported_programs_have_torchs_convolution_in_16_bits(monkeypatch, dtype):
    """They may run on another processor."""
    monkeypatch.setitem(_dispatch._PRODUCT, dtype, 5.0)
    inputs = torch.rand(1, 64, 28, 28, dtype=dtype), torch.rand(64, 64, 3, 3).to(dtype)

    class Model(torch.nn.Module):
        def forward(self, x, weight):
            return ops.conv2d(x, weight, None, 2), ops.conv2d(x, weight, None, 1, 1)

    nodes = torch.export.export(Model(), inputs).graph.nodes
    called = [node.target for node in nodes if node.op == "call_function"]
    assert called == [torch.ops.aten.conv2d.default] * 2


SLOW = [  # which, input, weight, groups, stride, what float16 takes in NCHW, and channels_last
    ("gather", (1, 8, 15, 17), (8, 8, 1, 1), 1, 1, "torch", "torch"),  # 16,320 products
    ("gather", (1, 8, 16, 16), (8, 8, 1, 1), 1, 1, "own", "own"),
    ("gather", (1, 16, 11, 12), (16, 8, 5, 5), 2, 2, "own", "own"),
    ("gather", (1, 64, 11, 11), (64, 64, 1, 1), 1, 1, "own", "own"),
    ("gather", (1, 64, 8, 16), (64, 64, 1, 1), 1, 1, "float32", "float32"),  # 2^19
    ("gather", (1, 64, 14, 14), (64, 64, 3, 3), 1, 2, "float32", "float32"),
    ("gather", (1, 64, 28, 28), (64, 16, 3, 3), 4, 1, "float32", "float32"),
    ("scatter", (1, 64, 28, 28), (64, 16, 3, 3), 4, 1, "float32", "float32"),
    ("gather", (1, 64, 28, 28), (64, 64, 2, 2), 1, 2, "own", "own"),
    ("scatter", (1, 64, 28, 28), (64, 64, 2, 2), 1, 2, "own", "own"),
    ("product", (1, 64, 28, 28), (64, 64, 2, 2), 1, 2, "own", "own"),
    ("product", (1, 64, 28, 28), (64, 64, 3, 3), 1, 1, "own", "own"),
    ("gather", (1, 64, 28, 28), (64, 16, 2, 2), 4, 2, "float32", "float32"),
    ("gather", (1, 96, 56, 56), (96, 1, 7, 7), 96, 1, "own", "own"),
    ("scatter", (1, 96, 56, 56), (96, 1, 7, 7), 96, 1, "own", "own"),
    ("product", (1, 96, 56, 56), (96, 1, 3, 3), 96, 1, "own", "own"),
    ("gather", (1, 96, 56, 56), (96, 1, 3, 3), 96, 2, "own", "own"),
    ("scatter", (1, 96, 56, 56), (96, 1, 3, 3), 96, 2, "own", "own"),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("which", "input", "weight", "groups", "stride", "planes", "last"), SLOW)
def test_auto_of_16_bits_that_the_processor_widens(
    monkeypatch, which, input, weight, groups, stride, planes, last, dtype
):
    """torch is quicker for bfloat16 in NCHW with one channel per group and strides, slower for few pixels."""
    monkeypatch.setitem(_dispatch._PRODUCT, dtype, 3.0)
    x, weight = torch.empty(input, dtype=dtype), torch.empty(weight, dtype=dtype)
    if dtype == torch.bfloat16:
        planes = "torch" if groups == 96 and stride == 2 else planes.replace("torch", "own")
        last = last.replace("torch", "own")
    for format, expected in zip(FORMATS, (planes, last), strict=True):
        problem = (x.to(memory_format=format), weight)
        own = own_is_faster(which, *problem, [stride, stride, 0, 0, 1, 1], groups)
        taken = "own" if own else "float32" if _dispatch._is_faster_widened(*problem, groups) else "torch"
        assert taken == expected


TILES_THAT_SAVE_NOTHING = [  # input, channels of the result, padding and dilation
    ((1, 2048, 33, 33), 256, 18),
    ((1, 2048, 33, 33), 256, 14),
    ((64, 256, 2, 2), 256, 1),
    ((8, 256, 1, 128), 256, 1),
    ((1, 256, 14, 14), 256, 6),
    ((1, 3, 112, 112), 64, 1),
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("shape", "out", "dilation"), TILES_THAT_SAVE_NOTHING)
def test_own_kernels_without_tiles_are_not_taken(monkeypatch, shape, out, dilation, dtype, format):
    """They sum 16 bits directly, which takes up to 18 times as long as float32."""
    monkeypatch.setitem(_dispatch._PRODUCT, dtype, 5.0)
    x = torch.empty(shape, dtype=dtype).to(memory_format=format)
    problem = (x, torch.empty(out, shape[1], 3, 3, dtype=dtype), [1, 1, *[dilation] * 4], 1)
    assert _dispatch.choose("gather", "auto", *problem) == "float32"


def test_remembered_choices_follow_what_they_depend_on(monkeypatch):
    x, weight = torch.empty(1, 64, 28, 28, dtype=torch.float16), torch.empty(64, 64, 3, 3, dtype=torch.float16)
    problem = (weight, [1, 1, 1, 1, 1, 1], 1)
    for _ in range(2):
        for product, taken in ((5.0, True), (0.0, False)):
            monkeypatch.setitem(_dispatch._PRODUCT, torch.float16, product)
            assert own_is_faster("gather", x, *problem) == taken
            assert own_is_faster("product", x, *problem)
            assert own_is_faster("gather", x[:, :, :3, :3], *problem) == (product > 1)


def test_widened_modules(monkeypatch):
    module, x = nn.Conv2d(40, 40, 3, stride=2).half(), torch.rand(1, 40, 9, 9).half()
    monkeypatch.setitem(_dispatch._PRODUCT, torch.float16, 5.0)
    assert torch.equal(module(x), ops.conv2d(x.float(), module.weight.float(), module.bias.float(), 2).half())
    with pytest.raises(RuntimeError, match="type"):
        module(torch.ones(1, 40, 9, 9, dtype=torch.uint8))
