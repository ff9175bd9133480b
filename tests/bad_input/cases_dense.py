"""Cases A081 to A085: Gram matrices and unpooling. A function per case, called with the backend, in its own process."""

import torch
from cases_regions import X, raises
from fastvision import ops


def a084(b):
    x, index = X(1, 1, 2, 2), torch.full((1, 1, 2, 2), 999)
    if b.name == "cpu":
        with raises(ValueError, "indices", "999", "0..15", "row 0"):
            ops.max_unpool2d(x, index, 2)
        return
    assert not ops.max_unpool2d(x, index, 2).any()
    errors = ops.device_errors(b.device)
    assert errors.count == 4
    assert errors.first[0] == "max_unpool2d"


def a084_compact_and_negative(b):
    index = torch.tensor([[[[0, 1], [-1, 3]]]])
    for bad in (index, index.byte()):
        index_error_in_row_2(b, bad)


def extreme_index(b):
    for bad in (-(2**63), 2**63 - 1):
        index = torch.arange(4).view(1, 1, 2, 2)
        index[0, 0, 1, 0] = bad
        index_error_in_row_2(b, index)


def huge_windows(b):
    x = X(1, 1, 4, 4).to(b.device)
    for name in ("kernel_size", "stride", "padding", "dilation"):
        for number in (2**31, 2**63 - 1):
            numbers = {"kernel_size": 2, name: number}
            with raises(ValueError, "max_pool2d", name, "expected an integer < 2**31", str(number)):
                ops.max_pool2d(x, **numbers)


def index_error_in_row_2(b, index):
    x = X(1, 1, 2, 2)
    if b.name == "cpu":
        with raises(ValueError, "indices", "row 2"):
            ops.max_unpool2d(x, index, 2)
        return
    out = ops.max_unpool2d(x, index, 2)
    assert (out != 0).sum() == 3
    assert ops.device_errors(b.device) == (1, ("max_unpool2d", 2))


def a085(b):
    with raises(TypeError, "indices: expected dtype int64", "int32"):
        ops.max_unpool2d(X(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.int32), 2)
    with raises(ValueError, "(1, 1, 2, 3)", "(1, 1, 2, 2)"):
        ops.max_unpool2d(X(1, 1, 2, 2), torch.zeros(1, 1, 2, 3, dtype=torch.long), 2)


def a029_gram(b):
    x = torch.rand(2 * 6 * 7 * 5 + 1, device=b.device).half()[1:].view(2, 6, 7, 5)  # 2-byte aligned only
    assert torch.equal(ops.gram_matrix(x), ops.gram_matrix(x.clone()))


def a081(b):
    out = ops.gram_matrix(torch.zeros(2, 3, 0, 4, device=b.device), normalize=False)
    assert torch.equal(out, torch.zeros(2, 3, 3, device=b.device))
    assert torch.equal(ops.gram_matrix(torch.zeros(2, 3, 0, 4, device=b.device), normalize=True), out)
    assert ops.gram_matrix(torch.zeros(0, 3, 4, 4, device=b.device)).shape == (0, 3, 3)


def a082(b):
    side = 512 if b.name == "emulated" else 1024  # bfloat16 sums would stall at 256, and the emulator is slow
    assert ops.gram_matrix(torch.ones(1, 1, side, side, device=b.device).bfloat16()).item() == side * side


def a083(b):
    x = torch.randn(2, 33, 17, 19).to(b.device)
    g = ops.gram_matrix(x)
    assert torch.equal(g, g.transpose(1, 2))
    assert (g.diagonal(dim1=1, dim2=2) >= 0).all()
    exact = torch.einsum("nchw,ndhw->ncd", x.double(), x.double())
    assert (g.double() - exact).abs().max() <= 1e-5 * exact.abs().max()


def gram_loss_of_nothing(b):
    for shape in ((0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)):
        x = torch.zeros(shape, device=b.device, requires_grad=True)
        loss = ops.gram_loss(x, torch.zeros(1, shape[1], shape[1], device=b.device))
        assert loss == 0
        assert torch.autograd.grad(loss, x)[0].shape == shape


def gram_loss_of_foreign_targets(b):
    x = torch.zeros(2, 3, 4, 4, device=b.device)
    for shape in ((3, 3), (3, 3, 3), (1, 3, 2), (1, 2**20, 2**20)):
        with raises(ValueError, "gram_loss", "target", "expected shape"):
            ops.gram_loss(x, torch.zeros(1, device=b.device).expand(shape))
    with raises(TypeError, "gram_loss", "target", "int64"):
        ops.gram_loss(x, torch.zeros(1, 3, 3, dtype=torch.int64, device=b.device))


def gram_of_a_memory_bomb(b):
    with raises(RuntimeError, "gram_matrix", "bytes"):
        ops.gram_matrix(torch.zeros(1, device=b.device).expand(1, 2**20, 1, 1))
    assert ops.gram_matrix(X(1, 2, 3, 3)).shape == (1, 2, 2)
