"""torch.func.grad, vjp and vmap of every differentiable op, against torch.autograd."""

import pytest
import torch
from fastvision import ops
from public_calls import public_calls
from torch.func import grad, jacrev, vjp, vmap

DIFFERENTIABLE = [
    (name, f, args)
    for name, f, args in public_calls()
    if args[0].is_floating_point() and "nms" not in name and name not in ("match_boxes", "paste_masks_in_image")
]
IDS = [name for name, _, _ in DIFFERENTIABLE]


def first(result):
    return result[0] if isinstance(result, tuple) else result


def of(f, rest):
    """A scalar function of the first tensor; the sine makes the gradient of each result another."""
    return lambda x: first(f(x, *rest)).double().sin().sum()


def expected_gradient(f, x, rest):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(of(f, rest)(x), x)[0]


@pytest.mark.parametrize(("name", "f", "args"), DIFFERENTIABLE, ids=IDS)
def test_grad_and_vjp(backend, name, f, args):
    x, *rest = (a.to(backend.device) for a in args)
    expected = expected_gradient(f, x, rest)
    torch.testing.assert_close(grad(of(f, rest))(x), expected)
    value, pull = vjp(of(f, rest), x)
    torch.testing.assert_close(value, of(f, rest)(x))
    torch.testing.assert_close(pull(torch.ones_like(value))[0], expected)


@pytest.mark.parametrize(("name", "f", "args"), DIFFERENTIABLE, ids=IDS)
def test_vmap_of_grad_and_grad_of_vmap(backend, name, f, args):
    x, *rest = (a.to(backend.device) for a in args)
    batch = torch.stack([x, x * 0.5, x * 0.75])
    expected = torch.stack([expected_gradient(f, one, rest) for one in batch])
    torch.testing.assert_close(vmap(grad(of(f, rest)))(batch), expected)
    torch.testing.assert_close(grad(lambda t: vmap(of(f, rest))(t).sum())(batch), expected)


def test_second_derivatives_where_there_are_any(backend):
    """roi_align is linear in its input: the gradient of a square has a Hessian, by reverse mode alone."""
    x = torch.rand(1, 1, 3, 3, dtype=torch.float64, device=backend.device)
    rois = torch.tensor([[0.0, 0.5, 0.2, 2.5, 2.8]], dtype=torch.float64, device=backend.device)

    def energy(t):
        return ops.roi_align(t, rois, 2, sampling_ratio=2).square().sum()

    expected = torch.autograd.functional.hessian(energy, x)
    torch.testing.assert_close(jacrev(jacrev(energy))(x), expected)


def test_gradients_that_do_not_exist_are_errors(backend):
    x = torch.rand(3, 4, device=backend.device)
    with pytest.raises(RuntimeError, match="box_iou_backward: this op has no gradient"):
        grad(lambda t: grad(lambda u: ops.box_iou(u, x).sum())(t).sum())(x + 1)
    with pytest.raises(RuntimeError, match="boxes: no gradient"):
        grad(lambda t: ops.roi_align(x[None, None], t, 2).sum())(torch.zeros(1, 5, device=backend.device))


IN_DIMS = [(0, None, None), (None, 0, None), (None, None, 0), (1, None, 0), (0, 1, None), (2, 0, 0)]


def mapped_arguments(shapes, in_dims, device):
    """Random tensors of these shapes, the mapped ones with 3 of them along their mapped dimension."""
    generator = torch.Generator().manual_seed(0)
    sizes = [list(s) if d is None else [*s[:d], 3, *s[d:]] for s, d in zip(shapes, in_dims)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(device) for s in sizes]


def check_against_loop(f, arguments, in_dims):
    picked = [[a if d is None else a.select(d, i) for a, d in zip(arguments, in_dims)] for i in range(3)]
    torch.testing.assert_close(vmap(f, in_dims)(*arguments), torch.stack([f(*one) for one in picked]))


@pytest.mark.parametrize("in_dims", IN_DIMS, ids=str)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("op", [ops.conv2d, ops.conv_transpose2d])
def test_vmap_of_convolutions_over_any_argument(backend, op, groups, in_dims):
    channels = (4, 6 // groups) if op is ops.conv_transpose2d else (6, 4 // groups)
    arguments = mapped_arguments([(2, 4, 5, 6), (*channels, 3, 2), (6,)], in_dims, backend.device)

    def f(x, w, b):
        return op(x, w, b, 2, 1, groups=groups, algorithm="fastvision")

    def gradient_by_weight(x, w, b):
        return grad(lambda t: f(x, t, b).sin().sum())(w)

    check_against_loop(f, arguments, in_dims)
    check_against_loop(gradient_by_weight, arguments, in_dims)


@pytest.mark.parametrize("in_dims", [(0, None, None, 1), (None, 0, None, None), (None, None, 0, 0)], ids=str)
def test_vmap_of_deform_conv2d_over_any_argument(backend, in_dims):
    shapes = [(2, 3, 4, 5), (2, 8, 4, 5), (4, 3, 2, 2), (2, 4, 4, 5)]
    arguments = mapped_arguments(shapes, in_dims, backend.device)

    def f(x, offset, w, mask):
        return ops.deform_conv2d(x, offset, w, padding=(1, 1), dilation=2, mask=mask)

    check_against_loop(f, arguments, in_dims)


@pytest.mark.parametrize("in_dims", [(0, None, None), (1, 0, None)], ids=str)
def test_vmap_of_separable_conv2d(backend, in_dims):
    arguments = mapped_arguments([(2, 3, 4, 5), (3, 1, 3, 3), (4, 3, 1, 1)], in_dims, backend.device)
    check_against_loop(lambda *a: ops.separable_conv2d(*a, algorithm="fastvision"), arguments, in_dims)
