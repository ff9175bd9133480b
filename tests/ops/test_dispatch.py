"""What algorithm="auto" of the convolutions takes: of results, gradients and modules."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from fastvision import nn, ops
from fastvision.ops import _dispatch
from fastvision.ops._dispatch import own_is_faster
from support import FORMATS

pytestmark = pytest.mark.usefixtures("vectors_of_16_bits")


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


def test_remembered_choices_follow_what_they_depend_on(monkeypatch):
    x, weight = torch.empty(1, 64, 28, 28, dtype=torch.float16), torch.empty(64, 64, 3, 3, dtype=torch.float16)
    problem = (weight, [1, 1, 1, 1, 1, 1], 1)
    for _ in range(2):
        for product, taken in ((5.0, True), (0.0, False)):
            monkeypatch.setitem(_dispatch._PRODUCT, torch.float16, product)
            assert own_is_faster("gather", x, *problem) == taken
            assert own_is_faster("product", x, *problem)
            assert own_is_faster("gather", x[:, :, :3, :3], *problem) == (product > 1)


def test_choices_on_several_threads_are_those_of_one():
    def choices(_):
        out = []
        for channels, size in itertools.product((8, 48, 64, 256), range(5, 60, 3)):
            x, weight = torch.empty(1, channels, size, size), torch.empty(channels, channels, 3, 3)
            out += [own_is_faster(which, x, weight, [1] * 6, 1) for which in ("gather", "scatter", "product")]
        return out

    expected = choices(0)
    assert len(set(expected)) == 2
    _dispatch._remembered.cache_clear()
    with ThreadPoolExecutor(4) as threads:
        assert all(found == expected for found in threads.map(choices, range(8)))


def test_compiled_for_sizes_that_are_symbols():
    """Some of these sizes are own kernels', some torch's, when they are called as they are."""
    torch.compiler.reset()
    g = torch.Generator().manual_seed(1)
    weight = torch.randn(64, 64, 3, 3, generator=g).requires_grad_()
    compiled = torch.compile(lambda x, weight: ops.conv2d(x, weight, None, 1, 1), backend="aot_eager", dynamic=True)
    taken = set()
    for height, width in ((3, 4), (28, 30), (41, 29)):
        x = torch.randn(2, 64, height, width, generator=g)
        taken.add(own_is_faster("gather", x, weight, [1] * 6, 1))
        results = [
            (out, *torch.autograd.grad(out.sum(), weight))
            for out in (compiled(x, weight), ops.conv2d(x, weight, None, 1, 1))
        ]
        for ours, expected in zip(*results, strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-4)
    assert taken == {False, True}
