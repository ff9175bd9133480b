"""Cases A072 to A079, A093, A098 and those of newer convolutions. A function per case, called with the backend."""

import itertools

import torch
from cases_regions import X, raises
from fastvision import nn, ops

ALGORITHMS = ("auto", "fastvision", "torch")


def transposed_raises(b, x, w, *texts, **options):
    for algorithm in ALGORITHMS:
        with raises(ValueError, "conv_transpose2d", *texts):
            ops.conv_transpose2d(x.to(b.device), w.to(b.device), algorithm=algorithm, **options)


def a072(b):
    transposed_raises(b, X(1, 2, 4, 4), X(2, 3, 3, 3), "stride", ">= 1", "got 0", stride=0)


def a073(b):
    x, w = X(1, 2, 4, 4), X(2, 3, 3, 3)
    transposed_raises(b, x, w, "output_padding", "max(stride, dilation) = 2", stride=2, output_padding=2)
    transposed_raises(b, x, w, "output_padding", output_padding=-1)


def a074(b):
    transposed_raises(b, X(1, 2, 4, 4), X(2, 3, 3, 3), "padding", ">= 0", "got -1", padding=-1)
    transposed_raises(b, X(1, 2, 4, 4), X(2, 3, 3, 3), "dilation", ">= 1", "got 0", dilation=0)
    transposed_raises(b, X(1, 2, 1, 1), X(2, 3, 3, 3), "padding", "at least 1x1", padding=3)


def a075(b):
    transposed_raises(b, X(1, 3, 4, 4), X(3, 3, 3, 3), "groups=2", groups=2)
    transposed_raises(b, X(1, 3, 4, 4), X(3, 3, 3, 3), "groups", ">= 1", groups=0)
    transposed_raises(b, X(1, 2, 4, 4), X(3, 3, 3, 3), "input", "3 channels", "(1, 2, 4, 4)")


def a076(b):
    for algorithm in ALGORITHMS:
        x = torch.zeros(0, 2, 4, 4, device=b.device)
        w = X(2, 3, 3, 3).to(b.device).requires_grad_()
        y = ops.conv_transpose2d(x, w, algorithm=algorithm)
        y.sum().backward()
        assert y.shape == (0, 3, 6, 6)
        assert torch.equal(w.grad, torch.zeros_like(w))
        w = X(3, 2, 3, 3).to(b.device).requires_grad_()
        y = ops.conv2d(x, w, algorithm=algorithm)
        y.sum().backward()
        assert y.shape == (0, 3, 2, 2)
        assert torch.equal(w.grad, torch.zeros_like(w))


def huge_steps(b):
    x, w, depthwise = (t.to(b.device) for t in (X(1, 2, 4, 4), X(2, 2, 3, 3), X(2, 1, 3, 3)))
    calls = {
        "conv2d": (
            lambda **n: ops.conv2d(x, w[:0], **n, algorithm="fastvision"),
            ("stride", "padding", "dilation", "groups"),
        ),
        "conv_transpose2d": (
            lambda **n: ops.conv_transpose2d(x[:, :0], w[:0], **n),
            ("stride", "padding", "dilation", "groups"),
        ),
        "separable_conv2d": (
            lambda **n: ops.separable_conv2d(x, depthwise, w[:, :, :1, :1], **n),
            ("padding", "dilation"),
        ),
    }
    for op, (call, names) in calls.items():
        for name in names:
            for number in (2**31, 2**63 - 1):
                with raises(ValueError, op, name, "expected an integer < 2**31", str(number)):
                    call(**{name: number})


def taps_far_outside_of_the_maps(b):
    """Nothing may be as large as the dilation: only the middle taps meet the map."""
    formats = (torch.contiguous_format, torch.channels_last)
    for far, groups, format, unread in itertools.product((20_000, 2**31 - 8), (1, 2), formats, (1.0, torch.nan)):
        x, w = X(1, 2, 9, 8), X(2, 2 // groups, 3, 3)
        w[0, 0, 0, 0] = unread
        for op, stride in itertools.product((ops.conv2d, ops.conv_transpose2d), (1, 2)):
            options = {"padding": far, "dilation": far, "stride": stride, "groups": groups, "algorithm": "fastvision"}
            ours = [t.to(b.device).requires_grad_() for t in (x.to(memory_format=format), w)]
            out = op(*ours, **options)
            theirs = [t.clone().requires_grad_() for t in (x, w)]
            expected = op(theirs[0], theirs[1][..., 1:2, 1:2], stride=stride, groups=groups, algorithm="torch")
            torch.testing.assert_close(out.cpu(), expected)
            gradients = (torch.autograd.grad(o.sum(), t) for o, t in ((out, ours), (expected, theirs)))
            for found, right in zip(*gradients, strict=True):
                torch.testing.assert_close(found.cpu(), right)


def no_channels_and_no_pixels(b):
    for algorithm in ALGORITHMS:
        bias = X(3).to(b.device)
        out = ops.conv2d(X(1, 0, 4, 4).to(b.device), X(3, 0, 2, 2).to(b.device), bias, algorithm=algorithm)
        assert torch.equal(out, bias[:, None, None].expand(1, 3, 3, 3))
        for size in ((1, 2, 0, 4), (1, 2, 4, 0)):
            with raises(ValueError, "input", "at least one pixel"):
                ops.conv2d(X(*size).to(b.device), X(3, 2, 1, 1).to(b.device), padding=1, algorithm=algorithm)
            with raises(ValueError, "input", "at least one pixel"):
                ops.conv_transpose2d(X(*size).to(b.device), X(2, 3, 2, 2).to(b.device), algorithm=algorithm)


def a077(b):
    for algorithm in ALGORITHMS:
        with raises(ValueError, "conv2d", "8x8", "201x201"):
            ops.conv2d(X(1, 2, 8, 8).to(b.device), X(3, 2, 3, 3).to(b.device), dilation=100, algorithm=algorithm)


def a078(b):
    for algorithm in ALGORITHMS:
        x, w = X(1, 1, 9, 9).to(b.device), X(1, 1, 3, 3).to(b.device) + 0.1
        clean = ops.conv2d(x, w, dilation=2, padding=2, algorithm=algorithm)
        x[0, 0, 4, 4] = torch.nan
        out = ops.conv2d(x, w, dilation=2, padding=2, algorithm=algorithm)
        assert out.isnan().sum() == 9
        torch.testing.assert_close(out[~out.isnan()], clean[~out.isnan()])


def a079(b):
    m = nn.ConvTranspose2d(2, 3, 3, stride=2).to(b.device)
    with raises(ValueError, "[9, 9]", "[10, 10]"):
        m(X(1, 2, 4, 4).to(b.device), output_size=(40, 40))


def a080(b):
    x, w = torch.rand(7000, 1, 3, 3, device=b.device), torch.rand(10, 1, 1, 1, device=b.device)
    out = ops.conv2d(x, w, algorithm="fastvision")
    torch.testing.assert_close(out, torch.nn.functional.conv2d(x, w))


def wrong_types(b):
    x, w = X(1, 2, 4, 4).to(b.device), X(3, 2, 3, 3).to(b.device)
    for algorithm in ALGORITHMS:
        with raises(TypeError, "weight: expected dtype float32 as input, got float64"):
            ops.conv2d(x, w.double(), algorithm=algorithm)
        with raises(TypeError, "input: expected dtype float16"):
            ops.conv2d(x.int(), w.int(), algorithm=algorithm)
        with raises(TypeError, "stride: expected an int or 2 ints"):
            ops.conv2d(x, w, stride=1.5, algorithm=algorithm)
        with raises(ValueError, "bias: expected shape (3,), got (2,)"):
            ops.conv2d(x, w, torch.zeros(2, device=b.device), algorithm=algorithm)
        with raises(ValueError, "padding", "'full'"):
            ops.conv2d(x, w, padding="full", algorithm=algorithm)
        with raises(ValueError, "padding", "stride"):
            ops.conv2d(x, w, padding="same", stride=2, algorithm=algorithm)
        with raises(ValueError, "input: expected shape", "(4, 4)"):
            ops.conv2d(x[0, 0], w, algorithm=algorithm)


def memory_bombs(b):
    with raises(RuntimeError, "conv2d", "bytes"):
        ops.conv2d(X(1, 1, 2, 2).to(b.device), X(1, 1, 1, 1).to(b.device), padding=2**20, algorithm="fastvision")
    with raises(RuntimeError, "conv_transpose2d", "bytes"):
        x, w = X(1, 1, 2, 2).to(b.device), X(1, 1, 1, 1).to(b.device)
        ops.conv_transpose2d(x, w, stride=2**20, algorithm="fastvision")


def a093(b):
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(2, 5, 9, 9, generator=g), torch.randn(5, 4, 3, 3, generator=g)
    x, w = x.to(b.device), w.to(b.device).requires_grad_()
    results = []
    for _ in range(20):
        out = ops.conv_transpose2d(x, w, stride=2, algorithm="fastvision")
        results.append(torch.autograd.grad(out.square().sum(), w)[0])
    assert all(torch.equal(r, results[0]) for r in results)


def windows_outside_the_map(b):
    """torch 2.13 crashes on these in channels_last."""
    for size, kernel, padding, dilation in (((3, 1), (2, 1), (0, 3), (1, 4)), ((2, 1), (3, 2), (1, 5), (1, 3))):
        x = X(2, 2, *size).to(b.device).to(memory_format=torch.channels_last)
        w, bias = X(4, 1, *kernel).to(b.device), X(4).to(b.device)
        out = [ops.conv2d(x, w, bias, 1, padding, dilation, 2, algorithm=algorithm) for algorithm in ALGORITHMS]
        torch.testing.assert_close(out[0], out[1])
        torch.testing.assert_close(out[2], out[1])


def deformable(b, channels=2, taps=9):
    x, w = X(1, channels, 5, 6).to(b.device), X(3, channels, 3, 3).to(b.device)
    return x, torch.zeros(1, 2 * taps, 5, 6, device=b.device), w


def deformable_numbers(b):
    x, offset, w = deformable(b)
    for name, value, text in (("stride", 0, ">= 1"), ("dilation", 0, ">= 1"), ("padding", -1, ">= 0")):
        with raises(ValueError, "deform_conv2d", name, text, f"got {value}"):
            ops.deform_conv2d(x, offset, w, **{name: value})
    for name in ("stride", "padding", "dilation"):
        with raises(ValueError, "deform_conv2d", name, "2**31"):
            ops.deform_conv2d(x, offset, w, **{name: 2**62})
    with raises(TypeError, "stride: expected an int or 2 ints"):
        ops.deform_conv2d(x, offset, w, stride=1.5)


def deformable_shapes(b):
    x, offset, w = deformable(b)
    for bad in (offset[:, :, :3], offset[:, :17], offset[:0], offset[0], torch.cat([offset] * 3, 1)):
        with raises(ValueError, "deform_conv2d", "offset"):
            ops.deform_conv2d(x, bad, w, padding=1)
    for bad in (offset, offset[:, :8], offset[:, :9, 1:]):
        with raises(ValueError, "deform_conv2d", "mask"):
            ops.deform_conv2d(x, offset, w, padding=1, mask=bad)
    with raises(ValueError, "deform_conv2d", "input", "at least one pixel"):
        ops.deform_conv2d(x[:, :, :0], offset, w, padding=1)
    with raises(RuntimeError, "deform_conv2d_input_gradient", "grad", "(1, 3, 5, 6)", "(1, 3, 2, 2)"):
        grad = X(1, 3, 2, 2).to(b.device)
        b.ops.deform_conv2d_input_gradient(grad, x, offset, w, None, [1, 1, 1, 1, 1, 1])


def deformable_offsets_to_anywhere(b):
    x, offset, w = deformable(b)
    zero = torch.zeros(1, 3, 5, 6, device=b.device)
    for value in (torch.nan, torch.inf, -torch.inf, 3e38, -3e38, 2.0**31, -(2.0**63)):
        moved, leaf = (offset + value).requires_grad_(), x.clone().requires_grad_()
        out = ops.deform_conv2d(leaf, moved, w, padding=1)
        out.sum().backward()
        assert torch.equal(out, zero)
        assert not moved.grad.any()
        assert not leaf.grad.any()


def deformable_without_channels_or_images(b):
    bias = X(3).to(b.device)
    _, offset, _ = deformable(b)
    out = ops.deform_conv2d(X(1, 0, 5, 6).to(b.device), offset, X(3, 0, 3, 3).to(b.device), bias, padding=1)
    assert torch.equal(out, bias[:, None, None].expand(1, 3, 5, 6))
    x, offset, w = (t.requires_grad_() for t in deformable(b))
    out = ops.deform_conv2d(x[:0], offset[:0], w, bias, padding=1)
    out.sum().backward()
    assert out.shape == (0, 3, 5, 6)
    assert not w.grad.any()
    x, offset, w = (t.requires_grad_() for t in deformable(b))
    out = ops.deform_conv2d(x, offset, w[:0], padding=1)
    out.sum().backward()
    assert out.shape == (1, 0, 5, 6)
    assert not x.grad.any()
    assert not offset.grad.any()


def separable_arguments(b):
    x, d, p = X(1, 2, 4, 4).to(b.device), X(2, 1, 3, 3).to(b.device), X(3, 2, 1, 1).to(b.device)
    for algorithm in ALGORITHMS:
        for bad in (X(2, 2, 3, 3), X(3, 1, 3, 3), X(2, 1, 3)):
            with raises(ValueError, "separable_conv2d", "depthwise_weight"):
                ops.separable_conv2d(x, bad.to(b.device), p, algorithm=algorithm)
        for bad in (X(3, 2, 3, 3), X(3, 1, 1, 1), X(3, 2)):
            with raises(ValueError, "separable_conv2d", "pointwise_weight"):
                ops.separable_conv2d(x, d, bad.to(b.device), algorithm=algorithm)
        for name, value, text in (("padding", -1, ">= 0"), ("dilation", 0, ">= 1")):
            with raises(ValueError, "separable_conv2d", name, text, f"got {value}"):
                ops.separable_conv2d(x, d, p, algorithm=algorithm, **{name: value})
        with raises(ValueError, "separable_conv2d", "input", "3x3", "got 2x2"):
            ops.separable_conv2d(x[:, :, :2, :2], d, p, algorithm=algorithm)
        with raises(ValueError, "separable_conv2d", "at least one pixel"):
            ops.separable_conv2d(x[:, :, :0], d, p, padding=2, algorithm=algorithm)
        with raises(TypeError, "separable_conv2d", "pointwise_weight", "float64"):
            ops.separable_conv2d(x, d, p.double(), algorithm=algorithm)
        with raises(ValueError, "separable_conv2d", "scale_shift", "(3,)"):
            ops.separable_conv2d(x, d, p, scale_shift=(X(2).to(b.device), X(3).to(b.device)), algorithm=algorithm)
        out = ops.separable_conv2d(x[:0], d, p, algorithm=algorithm)
        assert out.shape == (0, 3, 2, 2)
    with raises(ValueError, "separable_conv2d", "activation", "'tanh'"):
        ops.separable_conv2d(x, d, p, activation="tanh")


def pyramid_pooling_arguments(b):
    x, one, three = X(1, 2, 4, 4).to(b.device), X(3, 2, 1, 1).to(b.device), X(3, 2, 3, 3).to(b.device)
    last = X(5, 9, 1, 1).to(b.device)
    assert ops.aspp(x, one, [three], one, last, (2,)).shape == (1, 5, 4, 4)
    for rates, text in (((0,), ">= 1"), ((-3,), ">= 1"), ((1, 2), "expected 2")):
        with raises(ValueError, "aspp", text):
            ops.aspp(x, one, [three], one, last, rates)
    with raises(TypeError, "aspp", "rates", "1.5"):
        ops.aspp(x, one, [three], one, last, (1.5,))
    with raises(ValueError, "aspp", "atrous_weights", "(3, 2, 3, 3)"):
        ops.aspp(x, one, [one], one, last, (2,))
    with raises(ValueError, "aspp", "projection_weight", "9"):
        ops.aspp(x, one, [three], one, last[:, :8], (2,))
    with raises(ValueError, "aspp", "biases", "expected 3"):
        ops.aspp(x, one, [three], one, last, (2,), biases=[None])
    with raises(ValueError, "aspp", "at least one pixel"):
        ops.aspp(x[:, :, :0], one, [three], one, last, (2,))
    assert ops.aspp(x[:0], one, [three], one, last, (2,)).shape == (0, 5, 4, 4)
