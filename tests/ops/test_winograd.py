"""3 x 3 convolutions of many channels by the CPU kernel that saves products, against torch in float64."""

import itertools
from typing import NamedTuple

import pytest
import torch
from convolutions import by_definition
from fastvision import _lib, nn, ops
from fastvision.ops import _dispatch
from fastvision.ops._dispatch import own_is_faster
from hypothesis import given
from hypothesis import strategies as st
from support import FORMATS, LAYOUTS, Backend, lay_out, seeds
from torch.nn import functional

HALVES = [torch.bfloat16, torch.float16]

sizes = st.sampled_from([1, 2, 3, 4, 5, 8, 11, 18])
channels = st.sampled_from([8, 9, 16, 33, 70])


@pytest.fixture
def cpu():
    with Backend("cpu") as backend:
        yield backend


def own(*arguments):
    return ops.conv2d(*arguments, algorithm="fastvision")


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
        return x, weight, draw(self.width[1]) if self.with_bias else None


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
    exact = x.detach().double().requires_grad_()
    out = own(x, weight, bias, 1, p.padding, p.dilation)
    wide_bias = None if bias is None else bias.double()
    expected = functional.conv2d(exact, weight.double(), wide_bias, 1, p.padding, p.dilation)
    assert torch.equal(out.double(), expected)
    grad = draw(*out.shape).to(memory_format=p.format)
    (ours,), (theirs,) = torch.autograd.grad(out, x, grad), torch.autograd.grad(expected, exact, grad.double())
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
    (by_x,) = torch.autograd.grad(out, x, grad)

    def check(found, exact, magnitude):
        assert found.dtype == dtype
        rounding = torch.finfo(dtype).eps / 2 * exact.abs() + torch.finfo(dtype).smallest_normal
        assert ((found.double() - exact).abs() <= 1.001 * rounding + 1e-5 * magnitude.max()).all()

    def exactly(x, weight, bias, grad):
        x = x.detach().double().requires_grad_()
        out = functional.conv2d(x, weight.double(), bias, 1, p.padding, p.dilation)
        return out.detach(), torch.autograd.grad(out, x, grad.double())[0]

    sums = exactly(x, weight, None if bias is None else bias.double(), grad)
    magnitudes = exactly(x.abs(), weight.abs(), None, grad.abs())
    check(out, sums[0], magnitudes[0])
    check(by_x, sums[1], magnitudes[1])


@pytest.mark.parametrize("format", FORMATS)
def test_many_weights_for_many_tiles(cpu, format):
    """So many that they lie in huge pages, in several panels; eighths are exact."""
    g = torch.Generator().manual_seed(4)
    x = (torch.randint(-8, 9, (1, 256, 33, 32), generator=g) / 8).to(memory_format=format)
    weight = torch.randint(-8, 9, (260, 256, 3, 3), generator=g) / 8
    assert torch.equal(own(x, weight, None, 1, 1), functional.conv2d(x.double(), weight.double(), None, 1, 1).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(41, 37), (16, 15)])  # an image of many tiles; of so few that weights come by panels
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dilation", [1, 3])
def test_threads_blocks_panels_and_vectors_give_equal_bits(format, dilation, size, dtype):
    g = torch.Generator().manual_seed(dilation)
    images = 3 if min(size) > 16 else 9

    def draw(*shape):
        return torch.randn(shape, generator=g).to(dtype)

    x, weight, bias = draw(images, 140, *size).to(memory_format=format), draw(100, 140, 3, 3), draw(100)
    grad = draw(images, 100, *size).to(memory_format=format)

    def both(images):
        part = x[images].detach().requires_grad_()
        out = own(part, weight, bias, 1, dilation, dilation)
        return out, torch.autograd.grad(out, part, grad[images])[0]

    expected = both(slice(None))
    best = _lib.build_info()["cpu_isa_best"]
    try:
        for threads, isa in itertools.product((1, 2, 4), {best, "avx2"} if best == "avx512" else {best}):
            torch.set_num_threads(threads)
            torch.ops.fastvision.set_cpu_isa(isa)
            for images in (slice(None), slice(1, 2)):
                for ours, want in zip(both(images), expected):
                    assert torch.equal(ours, want[images])
    finally:
        torch.set_num_threads(2)
        torch.ops.fastvision.set_cpu_isa(best)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("values", [(torch.nan,), (torch.inf,), (torch.inf, -torch.inf)])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("images", [2, 9])  # few tiles and many
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_not_finite_values_reach_what_depends_on_them(cpu, format, dilation, values, which, images, dtype):
    g = cpu.vary(dilation)
    x, weight = torch.rand(images, 16, 9, 14, generator=g) + 0.1, torch.rand(17, 16, 3, 3, generator=g) + 0.1
    x, weight = x.to(dtype), weight.to(dtype)
    tolerance = {"atol": 1e-5, "rtol": max(1e-5, torch.finfo(dtype).eps)}
    for value, place in zip(values, ((1, 3, 2, 2), (1, 4, 1, 0))):
        (x, weight)[which][place] = value
    x = x.to(memory_format=format)
    for padding in (0, 1, 2):
        out = own(x, weight, None, 1, padding, dilation)
        expected = by_definition(x, weight, padding, dilation)
        torch.testing.assert_close(out.double(), expected, equal_nan=True, **tolerance)
        # The gradient by the input of a convolution with turned weights is the same.
        large = torch.zeros(expected.shape, dtype=dtype).to(memory_format=format).requires_grad_()
        turned = weight.transpose(0, 1).flip(2, 3)
        (gradient,) = torch.autograd.grad(own(large, turned, None, 1, 2 * dilation - padding, dilation), large, x)
        torch.testing.assert_close(gradient.double(), expected, equal_nan=True, **tolerance)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_overflows_that_direct_summation_can_hold(cpu, format, dtype):
    """Copies of the largest numbers: differences of neighbours, and sums of weights, are infinite."""
    g = cpu.vary(1)
    largest = torch.finfo(dtype).max
    x = (torch.randint(0, 2, (1, 16, 8, 23), generator=g) * 2.0 - 1).to(dtype)
    identity = torch.zeros(16, 16, 3, 3, dtype=dtype)
    identity[range(16), range(16), 1, 1] = 1
    big = (largest * x).to(memory_format=format)
    assert torch.equal(own(big, identity, None, 1, 1), big)
    big[..., 5:] = 1  # tiles without large values too
    assert torch.equal(own(big, identity, None, 1, 1), big)
    heavy = torch.full((16, 16, 3, 3), largest, dtype=dtype)
    x = torch.zeros(1, 16, 8, 23, dtype=dtype).to(memory_format=format)
    x[0, 3, 4, 5] = 1
    assert torch.equal(own(x, heavy, None, 1, 1), functional.conv2d(x, heavy, None, 1, 1))


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
        assert not own_is_faster("product", x, weight, plain, 1)


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
