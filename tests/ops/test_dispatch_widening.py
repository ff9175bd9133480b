"""What algorithm="auto" of the convolutions takes in 16 bits that the processor cannot multiply."""

import itertools

import pytest
import torch
from fastvision import nn, ops
from fastvision.ops import _dispatch
from fastvision.ops._dispatch import choose
from support import FORMATS

ALL = "gather", "scatter", "product"
SLOW = [  # maps, input, weight, groups, stride, what float16 takes
    (("gather",), (1, 8, 15, 17), (8, 8, 1, 1), 1, 1, "torch"),  # 16,320 products
    (("gather",), (1, 8, 16, 16), (8, 8, 1, 1), 1, 1, "own"),
    (("gather",), (1, 16, 11, 12), (16, 8, 5, 5), 2, 2, "own"),
    (("gather",), (1, 64, 11, 11), (64, 64, 1, 1), 1, 1, "own"),
    (("gather",), (1, 64, 8, 16), (64, 64, 1, 1), 1, 1, "float32"),  # 2^19
    (("gather",), (1, 64, 14, 14), (64, 64, 3, 3), 1, 2, "float32"),
    (("gather", "scatter"), (1, 64, 28, 28), (64, 16, 3, 3), 4, 1, "float32"),
    (("gather",), (1, 64, 28, 28), (64, 16, 2, 2), 4, 2, "float32"),
    (("product",), (1, 64, 28, 28), (64, 64, 3, 3), 1, 1, "own"),
    (ALL, (1, 64, 28, 28), (64, 64, 2, 2), 1, 2, "own"),
    (ALL, (1, 96, 56, 56), (96, 1, 7, 7), 96, 1, "own"),
    (("product",), (1, 96, 56, 56), (96, 1, 3, 3), 96, 1, "own"),
    (ALL, (1, 96, 56, 56), (96, 1, 3, 3), 96, 2, "own"),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("maps", "input", "weight", "groups", "stride", "taken"), SLOW)
def test_auto_of_16_bits_that_the_processor_widens(monkeypatch, maps, input, weight, groups, stride, taken, dtype):
    """torch is quicker for bfloat16 in NCHW with one channel per group and strides, slower for few pixels."""
    monkeypatch.setitem(_dispatch._PRODUCT, dtype, 3.0)
    x, weight = torch.empty(input, dtype=dtype), torch.empty(weight, dtype=dtype)
    if dtype == torch.bfloat16:
        taken = taken.replace("torch", "own")
    for which, format in itertools.product(maps, FORMATS):
        left = dtype == torch.bfloat16 and groups == 96 and stride == 2 and format == torch.contiguous_format
        problem = (x.to(memory_format=format), weight, [stride, stride, 0, 0, 1, 1], groups)
        assert choose(which, "auto", *problem) == ("torch" if left else taken)


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
    assert choose("gather", "auto", *problem) == "float32"


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


def test_widened_modules(monkeypatch):
    module, x = nn.Conv2d(40, 40, 3, stride=2).half(), torch.rand(1, 40, 9, 9).half()
    monkeypatch.setitem(_dispatch._PRODUCT, torch.float16, 5.0)
    assert torch.equal(module(x), ops.conv2d(x.float(), module.weight.float(), module.bias.float(), 2).half())
    with pytest.raises(RuntimeError, match="type"):
        module(torch.ones(1, 40, 9, 9, dtype=torch.uint8))
