"""Cases A060 to A071, A086 and A098: losses."""

from math import inf, nan

import torch
from cases_regions import T, X, raises
from fastvision import nn, ops


def a060(b):
    for loss in (ops.generalized_box_iou_loss, ops.distance_box_iou_loss, ops.complete_box_iou_loss):
        boxes = T([[1.0, 1, 1, 1]], requires_grad=True)
        value = loss(boxes, T([[2.0, 2, 2, 2]]), reduction="sum")
        value.backward()
        assert value.isfinite()
        assert boxes.grad.isfinite().all()


def a061(b):
    for loss in (ops.generalized_box_iou_loss, ops.distance_box_iou_loss, ops.complete_box_iou_loss):
        with raises(ValueError, "reduction", "none", "mean", "sum", "avg"):
            loss(X(3, 4), X(3, 4), reduction="avg")
        for eps in (-1.0, nan, inf):
            with raises(ValueError, "eps"):
                loss(X(3, 4), X(3, 4), eps=eps)
        with raises(ValueError, "boxes2", "(3, 4)", "(4,)"):
            loss(X(3, 4), X(4))
        with raises(ValueError, "boxes1", "(3, 5)"):
            loss(X(3, 5), X(3, 5))
        with raises(TypeError, "float32", "float64"):
            loss(X(3, 4), X(3, 4).double())
        assert loss(X(0, 4), X(0, 4), "mean").item() == 0


def a062(b):
    x = T([1e4, -1e4, 100.0, -100.0], requires_grad=True)
    loss = ops.sigmoid_focal_loss(x, T([0.0, 1, 1, 0]), reduction="sum")
    loss.backward()
    assert abs(loss.item() / 10000 - 1) < 1e-5
    assert torch.allclose(x.grad, T([0.75, -0.25, 0, 0]), rtol=0, atol=1e-12)


def a063(b):
    x = T([200.0, -200.0], requires_grad=True)
    loss = ops.sigmoid_focal_loss(x, T([1.0, 0.0]), gamma=0.5, reduction="sum")
    loss.backward()
    assert loss.item() == 0
    assert x.grad.tolist() == [0, 0]


def a064(b):
    for gamma in (nan, inf, -1.0):
        with raises(ValueError, "gamma"):
            ops.softmax_focal_loss(X(2, 3), T([0, 1]), gamma=gamma)
        with raises(ValueError, "gamma"):
            ops.sigmoid_focal_loss(X(2, 3), X(2, 3), gamma=gamma)


def a065(b):
    for alpha in (3.0, -0.5, nan):
        with raises(ValueError, "alpha", "[0, 1] or -1"):
            ops.sigmoid_focal_loss(T([3.0]), T([1.0]), alpha=alpha)
        if alpha != 3:
            with raises(ValueError, "alpha"):
                ops.softmax_focal_loss(X(2, 3), T([0, 1]), alpha=alpha)


def a066(b):
    x = T([inf, -inf], requires_grad=True)
    loss = ops.sigmoid_focal_loss(x, T([0.0, 1]), reduction="sum")
    loss.backward()
    assert loss.item() == inf
    assert x.grad.tolist() == [0.75, -0.25]


def a067(b):
    wanted = ops.sigmoid_focal_loss(T([3.0]), T([1.0]))
    for targets in (T([1]), T([True]), T([1], dtype=torch.uint8)):
        assert torch.equal(ops.sigmoid_focal_loss(T([3.0]), targets), wanted)


def a068(b):
    x = X(4, 3, requires_grad=True)
    for label in (-1, 3, 2**40, -(2**62)):
        labels = T([0, label, -100, 2])
        if b.name == "cpu":
            with raises(ValueError, "row 1", "0..2", str(label)):
                ops.softmax_focal_loss(x, labels, ignore_index=-100, reduction="mean")
            continue
        loss = ops.softmax_focal_loss(x, labels, ignore_index=-100, reduction="mean")
        assert ops.device_errors(b.device) == (1, ("softmax_focal_loss", 1))
        assert torch.equal(loss, ops.softmax_focal_loss(x, T([0, -100, -100, 2])))
        (gradient,) = torch.autograd.grad(loss, x)
        assert not gradient[1:3].any()
    for label in (-1, 4, 2**40):
        labels = T([0, label, -100, 3])
        if b.name == "cpu":
            with raises(ValueError, "row 1", "0..3", str(label)):
                ops.sigmoid_focal_loss(x, labels, ignore_index=-100)
            continue
        losses = ops.sigmoid_focal_loss(x, labels, ignore_index=-100)
        assert ops.device_errors(b.device) == (1, ("sigmoid_focal_loss", 1))
        assert torch.equal(losses, ops.sigmoid_focal_loss(x, T([0, -100, -100, 3]), ignore_index=-100))


def a069(b):
    with raises(ValueError, "targets", "(3, 4)", "(4,)"):
        ops.sigmoid_focal_loss(X(3, 4), X(4))
    with raises(ValueError, "targets", "(3,)", "(4,)"):
        ops.sigmoid_focal_loss(X(3, 4), T([0, 1, 2, 3]))
    with raises(ValueError, "labels", "(3,)", "(4,)"):
        ops.softmax_focal_loss(X(3, 4), T([0, 1, 2, 3]))
    with raises(TypeError, "labels", "float32"):
        ops.softmax_focal_loss(X(3, 4), X(3))
    with raises(ValueError, "weight", "(4,)", "(3,)"):
        ops.softmax_focal_loss(X(3, 4), T([0, 1, 2]), weight=X(3))
    with raises(TypeError, "inputs", "int64"):
        ops.sigmoid_focal_loss(T([1]), T([1]))


def a070(b):
    x = X(2, 3, requires_grad=True)
    loss = ops.softmax_focal_loss(x, T([-100, -100]), ignore_index=-100, reduction="mean")
    loss.backward()
    assert loss.item() == 0
    assert not x.grad.any()
    for shape in ((0, 3), (3, 0)):
        assert ops.sigmoid_focal_loss(torch.zeros(shape), torch.zeros(shape), reduction="mean").item() == 0
    assert ops.softmax_focal_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).item() == 0
    assert ops.sigmoid_focal_loss(X(2, 3), T([7, 7]), reduction="mean", ignore_index=7).item() == 0


def a071(b):
    x, t = torch.full((2**20,), 0.5).bfloat16(), torch.zeros(2**20).bfloat16()
    wanted = ops.sigmoid_focal_loss(x.double(), t.double(), reduction="mean")
    loss = ops.sigmoid_focal_loss(x, t, reduction="mean")
    assert loss.dtype == torch.float32
    assert abs(loss.item() / wanted.item() - 1) < 1e-5


def a086(b):
    x, t = torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.rand(3, 4, dtype=torch.float64)
    with raises(RuntimeError, "sigmoid_focal_loss"):
        torch.autograd.gradgradcheck(lambda z: ops.sigmoid_focal_loss(z, t, gamma=2.0), (x,))


def a098(b):
    loss = nn.SoftmaxFocalLoss(weight=T([1.0, 2.0, 3.0]))
    assert list(loss.state_dict()) == ["weight"]
    other = nn.SoftmaxFocalLoss(weight=torch.zeros(3))
    other.load_state_dict(loss.state_dict(), strict=True)
    x, labels = X(5, 3), T([0, 1, 2, 2, 0])
    assert torch.equal(other(x, labels), ops.softmax_focal_loss(x, labels, weight=loss.weight))
    assert loss.to(torch.float64).weight.dtype == torch.float64
    assert nn.SigmoidFocalLoss()(x, labels).shape == nn.DiceLoss()(x, x).shape == ()
