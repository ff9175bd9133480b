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
