"""When algorithm="auto" takes the CPU kernel that saves products for 3 x 3 convolutions, and what it returns."""

import pytest
import torch
from fastvision import nn, ops
from fastvision.ops import _dispatch
from fastvision.ops._dispatch import own_is_faster
from support import FORMATS
from torch.nn import functional

HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dilation", [1, 2])
def test_auto_agrees_with_torch_and_has_its_gradients(format, dilation):
    g = torch.Generator().manual_seed(8)
    x = torch.randn(1, 64, 28, 29, generator=g).to(memory_format=format)
    weight, bias = torch.randn(64, 64, 3, 3, generator=g) / 24, torch.randn(64, generator=g)
    assert own_is_faster("gather", x, weight, [1, 1, 1, 1, 1, 1], 1)
    inputs = [t.requires_grad_() for t in (x, weight, bias)]
    results = []
    for algorithm in ("auto", "torch"):
        out = ops.conv2d(*inputs, 1, dilation, dilation, algorithm=algorithm)
        results.append((out, *torch.autograd.grad(out.sin().sum(), inputs)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_auto_leaves_to_torch_what_is_not_dense():
    x, weight = torch.rand(1, 64, 40, 40), torch.rand(64, 64, 3, 3)
    plain = [1, 1, 1, 1, 1, 1]
    assert own_is_faster("gather", x, weight, plain, 1)
    for problem in (
        (x.double(), weight.double(), plain, 1),
        (x, weight, [2, 2, 1, 1, 1, 1], 1),
        (x, weight[..., :1], [1, 1, 1, 0, 1, 1], 1),
        (x, weight[:, :16], plain, 4),
        (x[:, :8], weight[:, :8], plain, 1),
        (x[..., :2, :2], weight, plain, 1),
        (x[..., :2], weight, [1, 1, 1, 0, 1, 1], 1),
        (x[:0], weight, plain, 1),
        (x, weight[:0], plain, 1),
        (x, weight, [1, 1, 9, 9, 9, 9], 1),
        (x, weight, [1, 1, 0, 0, 9, 9], 1),
    ):
        assert not own_is_faster("gather", *problem)
        assert not own_is_faster("product", *problem)
    assert own_is_faster("product", x, weight, plain, 1)
    assert not own_is_faster("product", x[:, :48], weight[:, :48], plain, 1)


def test_auto_takes_what_saves_products():
    x, weight = torch.rand(1, 64, 40, 40), torch.rand(64, 64, 3, 3)
    last = x.to(memory_format=torch.channels_last)
    for problem in (
        (x, weight, [1, 1, 1, 1, 1, 1], 1),
        (x, weight, [1, 1, 0, 0, 1, 1], 1),
        (x[:, :48], weight[:48, :48], [1, 1, 1, 1, 1, 1], 1),
        (last, weight, [1, 1, 2, 2, 2, 2], 1),
    ):
        for which in ("gather", "scatter"):
            assert own_is_faster(which, *problem)
        narrow = problem[1].shape[0] < 64
        assert own_is_faster("product", *problem) == (not narrow)


@pytest.mark.parametrize("dtype", HALVES)
def test_auto_takes_16_bits_by_what_the_processor_multiplies(monkeypatch, dtype):
    """Vectors of 16-bit products make torch fast, matrices out of reach."""
    wide = torch.rand(1, 256, 50, 50, dtype=dtype), torch.rand(256, 256, 3, 3).to(dtype)
    narrow = torch.rand(1, 24, 20, 20, dtype=dtype), torch.rand(24, 24, 3, 3).to(dtype)
    for product, expected in ((3.0, (True, True)), (0.5, (True, False)), (0.0, (False, False))):
        monkeypatch.setitem(_dispatch._PRODUCT, dtype, product)
        for problem, taken in zip((wide, narrow), expected):
            assert own_is_faster("gather", *problem, [1, 1, 1, 1, 1, 1], 1) == taken
            assert own_is_faster("scatter", *problem, [1, 1, 1, 1, 1, 1], 1) == taken


def test_modules_under_autocast_agree_with_torchs():
    ours, theirs = nn.Conv2d(64, 64, 3, padding=1), torch.nn.Conv2d(64, 64, 3, padding=1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(1, 64, 20, 20)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x), theirs(x))


def test_auto_has_tangents():
    g = torch.Generator().manual_seed(9)
    x, weight = torch.randn(1, 64, 28, 28, generator=g), torch.randn(64, 64, 3, 3, generator=g) / 24
    _, tangent = torch.func.jvp(lambda x: ops.conv2d(x, weight), (x,), (x,))
    torch.testing.assert_close(tangent, functional.conv2d(x, weight), atol=1e-5, rtol=1e-5)
    one = torch.func.vmap(lambda x: ops.conv2d(x, weight))(x[:, None])
    torch.testing.assert_close(one[:, 0], functional.conv2d(x, weight), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 64])
def test_exported_programs_have_torchs_convolution(groups):
    module = nn.Conv2d(64, 64, 3, padding=1, groups=groups)
    x = torch.randn(1, 64, 28, 28)
    assert own_is_faster("gather", x, module.weight, (1, 1, 1, 1, 1, 1), groups)
    height = torch.export.Dim("height", min=8)
    program = torch.export.export(module, (x,), dynamic_shapes=({2: height},))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {name for name in called if not name.startswith("aten.sym_size")} == {"aten.conv2d.default"}
