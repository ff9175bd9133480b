"""What tests of convolutions share: inputs of a problem, and the comparison of results and gradients."""

import itertools

import torch
from fastvision import ops
from support import assert_close, lay_out
from torch.nn import functional


def tensors(backend, p, transposed):
    """Multiples of 1/8 that are small: sums are exact in every dtype but for the last rounding."""
    g = backend.vary(p["seed"])
    small, large = (p["groups"] * n for n in p["channels"])

    def draw(*shape):
        return (torch.randint(-8, 9, shape, generator=g) / 8).to(p["dtype"])

    x = draw(p["batch"], small if transposed else large, *p["size"]).to(memory_format=p["format"])
    weight = draw(small, p["channels"][1], *p["kernel"])
    bias = draw(large if transposed else small) if p["bias"] else None
    return [None if t is None else lay_out(t, p["layout"]).to(backend.device) for t in (x, weight, bias)]


def compare(ours, theirs, inputs, p):
    """Results and all gradients of two functions of the same tensors."""
    inputs = [t for t in inputs if t is not None]
    a, b = (
        [t.requires_grad_() for t in inputs],
        [t.detach().cpu().double().contiguous().requires_grad_() for t in inputs],
    )
    out, expected = ours(*a), theirs(*b)
    assert_close(out, expected)
    assert out.dtype == p["dtype"]
    if p["layout"] == "contiguous" and inputs[0].numel() > 0 and out.shape[1] > 1 and inputs[0].shape[1] > 1:
        assert out.is_contiguous(memory_format=p["format"])
    g = torch.Generator().manual_seed(p["seed"])
    grad = (torch.randint(-8, 9, expected.shape, generator=g) / 8).to(expected)
    for x, y in zip(torch.autograd.grad(out, a, grad.to(out)), torch.autograd.grad(expected, b, grad), strict=True):
        assert x.dtype == p["dtype"]
        assert_close(x, y)


def own(*arguments):
    return ops.conv2d(*arguments, algorithm="fastvision")


def by_definition(x, weight, padding, dilation):
    """A convolution in float64, with only the taps that are inside the map."""
    size = weight.shape[2:]

    def patches(x):  # (N, pixels, C, taps) of a padded map
        return functional.unfold(x, size, dilation, padding).unflatten(1, (-1, size.numel())).permute(0, 3, 1, 2)

    inside = patches(torch.ones_like(x, dtype=torch.float64)) > 0
    terms = patches(x.double())[:, :, None] * weight.double().flatten(2)
    out = [n + 2 * padding - dilation * (k - 1) for n, k in zip(x.shape[2:], size)]
    return torch.where(inside[:, :, None], terms, 0.0).sum((3, 4)).mT.unflatten(2, out)


def weight_gradient_by_definition(x, grad, padding, dilation):
    """Of a 3 x 3 convolution with stride 1, in float64, with only the pixels that taps meet."""

    def met(tap, axis):  # of the result and of the input
        offset = tap * dilation - padding
        first, last = max(-offset, 0), min(x.shape[axis] - offset, grad.shape[axis])
        return slice(first, max(first, last)), slice(first + offset, max(first, last) + offset)

    x, grad, out = x.double(), grad.double(), []
    for (of_grad_y, y), (of_grad_x, z) in itertools.product(*([met(tap, axis) for tap in range(3)] for axis in (2, 3))):
        left, right = (
            grad[:, :, of_grad_y, of_grad_x].transpose(0, 1).flatten(1),
            x[:, :, y, z].transpose(0, 1).flatten(1),
        )
        out.append((left[:, None] * right).sum(2))
    return torch.stack(out, 2).unflatten(2, (3, 3))
