"""What every op owes, whatever it computes."""

import inspect

import fastvision
import pytest
import torch
from fastvision import _lib, ops
from native_calls import native_calls
from public_calls import public_calls
from torch.utils._python_dispatch import TorchDispatchMode

NATIVE = native_calls()
PUBLIC = public_calls()


def move(value, device):
    if isinstance(value, torch.Tensor):
        return value.detach().to(device).requires_grad_(value.requires_grad)
    return [move(v, device) for v in value] if isinstance(value, list) else value


def same(a, b):
    for x, y in zip(*(v if isinstance(v, tuple) else (v,) for v in (a, b)), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize(("name", "args"), NATIVE, ids=[f"{name}-{i}" for i, (name, _) in enumerate(NATIVE)])
def test_opcheck(backend, name, args):
    """Schema, fake kernel, autograd registration and AOT dispatch with dynamic shapes (torch.library.opcheck)."""
    overload = getattr(backend.ops, name).default
    torch.library.opcheck(overload, tuple(move(a, backend.device) for a in args))


def test_every_native_op_has_a_sample():
    listed = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("fastvision::")}
    assert listed - {"build_info", "set_cpu_isa"} == {name for name, _ in NATIVE}


class MadeZeros(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if "zero" in func.__name__:
            self.shapes.append(tuple(out.shape))
        return out


def test_results_without_a_gradient_bring_no_zeros(backend):
    """Autograd would make zeros as large as the argmax of a pooling for a gradient that nobody reads."""
    tried = set()
    for name, args in NATIVE:
        args = [move(a, backend.device) for a in args]
        out = next(op for op in _lib.Op._all if op.name == name)(*args)
        if not isinstance(out, tuple) or not any(o.requires_grad for o in out):
            continue
        tried.add(name)
        first = next(o for o in out if o.requires_grad)
        leaves = [a for a in args if isinstance(a, torch.Tensor) and a.requires_grad]
        with MadeZeros() as made:
            torch.autograd.grad(first, leaves, torch.ones_like(first), allow_unused=True)
        assert made.shapes == [], name
    assert tried >= {"max_pool2d", "roi_pool", "roi_align_max", "dice_loss", "box_iou_loss", "gram_loss"}
    assert tried >= {"sigmoid_focal_loss", "softmax_focal_loss"}


class Forgets(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return None


def test_no_gradient_of_the_result_is_none_of_the_arguments(backend):
    x = torch.rand(1, 2, 4, 4, device=backend.device, requires_grad=True)
    out, _ = ops.max_pool2d(x, 2, return_indices=True)
    (Forgets.apply(out).sum() + 2 * x.sum()).backward()
    assert torch.equal(x.grad, torch.full_like(x, 2))


@pytest.mark.parametrize(("name", "f", "args"), PUBLIC, ids=[name for name, _, _ in PUBLIC])
def test_compiles_without_graph_break(backend, name, f, args):
    args = [move(a, backend.device) for a in args]
    torch._dynamo.reset()
    same(torch.compile(f, fullgraph=True, backend="aot_eager")(*args), f(*args))


@pytest.mark.parametrize(("name", "f", "args"), PUBLIC, ids=[name for name, _, _ in PUBLIC])
def test_leaves_inputs_alone(backend, name, f, args):
    args = [move(a, backend.device) for a in args]
    before = [a.clone() for a in args]
    f(*args)
    same(tuple(args), tuple(before))


@pytest.mark.parametrize(("name", "f", "args"), PUBLIC, ids=[name for name, _, _ in PUBLIC])
def test_meta_tensors_give_meta_results(name, f, args):
    if name in ("nms", "batched_nms", "nms_rotated", "batched_nms_rotated", "soft_nms"):
        with pytest.raises((RuntimeError, NotImplementedError)):  # the result's size depends on the data
            f(*(a.to("meta") for a in args))
        return
    out, expected = f(*(a.to("meta") for a in args)), f(*args)
    for x, y in zip(*(v if isinstance(v, tuple) else (v,) for v in (out, expected)), strict=True):
        assert x.device.type == "meta"
        assert x.shape == y.shape
        assert x.dtype == y.dtype


@pytest.mark.parametrize(("name", "f", "args"), PUBLIC, ids=[name for name, _, _ in PUBLIC])
def test_mixed_devices_are_an_error(name, f, args):
    if len(args) < 2:
        return
    with pytest.raises((ValueError, RuntimeError), match=r"expected .*device|device"):
        f(args[0], *(a.to("meta") for a in args[1:]))


def test_every_public_function_is_documented_and_typed():
    for name in ops.__all__:
        function = getattr(ops, name)
        assert inspect.getdoc(function), name
        if inspect.isfunction(function):
            signature = inspect.signature(function)
            assert all(p.annotation is not p.empty for p in signature.parameters.values()), name
            assert signature.return_annotation is not signature.empty, name


def test_forward_mode_is_refused_not_dropped(backend):
    x = torch.rand(1, 2, 4, 4, device=backend.device)
    rois = torch.tensor([[0.0, 0, 0, 3, 3]], device=backend.device)
    with pytest.raises(RuntimeError, match="forward-mode AD is not supported"):
        torch.func.jvp(lambda x: ops.roi_align(x, rois, 2), (x,), (torch.ones_like(x),))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward-mode AD"):
        ops.roi_align(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)), rois, 2)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_instruction_sets_agree(isa):
    """Decisions (which box is kept) are the same; sums differ by rounding only."""
    best = fastvision.build_info()["cpu_isa_best"]
    order = ["baseline", "avx2", "avx512"]
    if order.index(isa) > order.index(best):
        with pytest.raises(RuntimeError, match="instruction set"):
            torch.ops.fastvision.set_cpu_isa(isa)
        return
    expected = [f(*args) for _, f, args in PUBLIC]
    torch.ops.fastvision.set_cpu_isa(isa)
    try:
        for (_, f, args), want in zip(PUBLIC, expected):
            same(f(*args), want)
    finally:
        torch.ops.fastvision.set_cpu_isa(best)
