"""What accelerate() changes in torchvision, and what it leaves alone."""

import inspect
import sys
import threading
from types import ModuleType

import pytest
import torch
from fastvision import ops
from fastvision.interop import torchvision as interop
from operator_calls import counted

ROIS = torch.tensor([[0.0, 1.0, 1.0, 9.0, 9.0], [0.0, 2.0, 3.0, 5.5, 11.0]])


@pytest.fixture(autouse=True)
def restored():
    yield
    interop.restore()


def bindings(torchvision):
    """Every name in torchvision's modules, and which of ours its operators call."""
    modules = [m for name, m in sys.modules.items() if name.split(".")[0] == "torchvision"]
    names = {(m.__name__, name): id(value) for m in modules for name, value in vars(m).items()}
    x = torch.rand(1, 4, 12, 12, requires_grad=True)

    def call_operators():
        torch.ops.torchvision.nms(ROIS[:, 1:], torch.rand(2), 0.5)
        torch.ops.torchvision.roi_align(x, ROIS, 0.5, 3, 3, 2, False).sum().backward()
        torch.ops.torchvision.ps_roi_pool(x.detach(), ROIS, 0.5, 2, 2)

    return names, {name for name in counted(call_operators)[1] if name.startswith("fastvision::")}


def test_restoring_is_exact_and_calls_nest(torchvision):
    user = ModuleType("user_of_torchvision")
    user.suppress, user.unrelated = torchvision.ops.nms, len
    sys.modules[user.__name__] = user
    before, nms = bindings(torchvision), torchvision.ops.nms
    interop.restore()
    first = interop.accelerate()
    changed = bindings(torchvision)
    assert changed[0] != before[0]
    assert before[1] == set()
    assert {"fastvision::nms", "fastvision::roi_align_backward", "fastvision::ps_roi_pool"} <= changed[1]
    assert user.suppress is torchvision.ops.nms is torchvision.ops.boxes.nms is not nms
    assert interop.accelerate().names == first.names
    with interop.accelerate():
        pass
    assert bindings(torchvision) == changed
    user.late = torchvision.ops.nms
    interop.restore()
    interop.restore()
    assert bindings(torchvision) == before
    assert user.suppress is user.late is nms
    with pytest.raises(KeyError), interop.accelerate():
        raise KeyError
    assert bindings(torchvision) == before
    del sys.modules[user.__name__]


def test_threads_may_switch_while_others_compute(torchvision):
    before = bindings(torchvision)
    interop.accelerate()  # the first time is for one thread
    interop.restore()
    boxes = torch.rand(50, 4) * 8
    boxes[:, 2:] += boxes[:, :2]
    scores = torch.rand(50)
    expected, errors = torchvision.ops.nms(boxes, scores, 0.4), []

    def work(switches):
        try:
            for _ in range(10):
                if switches:
                    interop.accelerate()
                    interop.restore()
                else:
                    for _ in range(20):
                        assert torch.equal(torchvision.ops.nms(boxes, scores, 0.4), expected)
                        assert torch.equal(torch.ops.torchvision.nms(boxes, scores, 0.4), expected)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    interop.restore()
    assert not errors
    assert bindings(torchvision) == before


def test_operators_reach_us_in_every_mode(torchvision):
    x = torch.rand(1, 2, 12, 12, dtype=torch.float64, requires_grad=True)
    rois = ROIS.double()

    def plain(x):
        return torch.ops.torchvision.roi_align(x, rois, 0.5, 3, 2, 2, True)

    scripted = torch.jit.script(torchvision.ops.RoIAlign((3, 2), 0.5, 2, True))
    expected = plain(x)
    gradient = torch.autograd.grad(expected.square().sum(), x)[0]
    with interop.accelerate():
        late = torch.jit.script(torchvision.ops.RoIAlign((3, 2), 0.5, 2, True))
        for run in (plain, lambda x: scripted(x, rois), lambda x: late(x, rois)):
            out, calls = counted(lambda run=run: run(x))
            assert calls["fastvision::roi_align"] == 1
            torch.testing.assert_close(out, expected)
            torch.testing.assert_close(torch.autograd.grad(out.square().sum(), x)[0], gradient)
        with torch.inference_mode():
            assert counted(lambda: plain(x))[1]["fastvision::roi_align"] == 1
        compiled = torch.compile(plain, backend="aot_eager", fullgraph=True)
        compiled(x)
        out, calls = counted(lambda: compiled(x))
        assert calls["fastvision::roi_align"] == 1
        torch.testing.assert_close(torch.autograd.grad(out.square().sum(), x)[0], gradient)
        assert torch.autograd.gradgradcheck(lambda x: torchvision.ops.roi_align(x, rois, 2), x)
        pooled, argmax = torch.ops.torchvision.roi_pool(x, rois, 1.0, 2, 2)
    for ours, theirs in zip((pooled, argmax), torch.ops.torchvision.roi_pool(x, rois, 1.0, 2, 2)):
        assert torch.equal(ours, theirs)


def test_deformable_convolutions_reach_us(torchvision):
    module = torchvision.ops.DeformConv2d(2, 3, 3, padding=1)
    x, offset, mask = torch.rand(1, 2, 5, 6), torch.randn(1, 18, 5, 6), torch.rand(1, 9, 5, 6)
    scripted = torch.jit.script(module)
    for arguments in ((x, offset, mask), (x, offset)):
        expected = module(*arguments)
        gradient = torch.autograd.grad(expected.square().sum(), module.weight)[0]
        with interop.accelerate():
            for run in (module, scripted):
                out, calls = counted(lambda run=run, arguments=arguments: run(*arguments))
                assert calls["fastvision::deform_conv2d"] == 1
                torch.testing.assert_close(out, expected)
                found = torch.autograd.grad(out.square().sum(), module.weight)[0]
                torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-4)


def test_every_common_op_is_replaced(torchvision):
    common = {name for name in ops.__all__ if inspect.isfunction(getattr(torchvision.ops, name, None))}
    assert {f"torchvision.ops.{name}" for name in common} <= set(interop.accelerate().names)


def test_autocast(torchvision):
    x, boxes = torch.rand(1, 2, 12, 12).bfloat16(), [ROIS[:, 1:]]
    with torch.autocast("cpu", torch.bfloat16):
        expected = torchvision.ops.roi_align(x, boxes, 3, 0.5, 2)
        with interop.accelerate():
            out = torchvision.ops.roi_align(x, boxes, 3, 0.5, 2)
            raw = torch.ops.torchvision.roi_align(x, ROIS, 0.5, 3, 3, 2, False)
    for found in (out, raw):
        assert found.dtype == expected.dtype
        assert (found.float() - expected.float()).abs().max() < 1.6e-2


def test_operators_on_cuda_are_replaced_where_we_have_kernels(torchvision, monkeypatch):
    interop.accelerate()
    interop.restore()
    for devices in (("cpu",), ("cpu", "cuda")):
        monkeypatch.setattr(interop, "_devices", lambda devices=devices: devices)
        monkeypatch.setattr(interop, "_libraries", {})  # as in a new process
        interop.accelerate()
        wanted = {f"{level}{device.upper()}" for level in ("", "Autograd") for device in devices}
        registered = {tuple(key.split("/")[1:]) for key in interop._libraries["switches"]._op_impls}
        assert registered == {(name, key) for name in interop._OPERATORS for key in wanted}
        interop.restore()


def test_an_operator_without_a_kernel_says_so(torchvision):
    kernel = interop._switch("nms", "HPU", ops.nms)
    with pytest.raises(NotImplementedError, match="torchvision::nms: this torchvision has no kernel for HPU"):
        kernel(None, ROIS[:, 1:], torch.rand(2), 0.5)


def test_exported_and_rotated_stay_with_torchvision(torchvision):
    class Suppress(torch.nn.Module):
        def forward(self, boxes, scores):
            groups = torch.zeros_like(scores, dtype=torch.int64)
            return torchvision.ops.batched_nms(boxes, scores, groups, 0.5)

    def rotated_overlap():
        rotated = torch.tensor([[5.0, 5.0, 4.0, 2.0, 30.0]])
        try:
            return torchvision.ops.box_iou(rotated, rotated, fmt="cxcywhr")
        except ValueError as error:  # a torchvision without rotated boxes
            return str(error)

    boxes, scores = torch.rand(5, 4), torch.rand(5)
    expected = rotated_overlap()
    with interop.accelerate():
        traced = torch.jit.trace(Suppress(), (boxes, scores))
        assert "torchvision::nms" in str(traced.inlined_graph)
        exported = torch.export.export(Suppress(), (boxes, scores))
        assert "fastvision" not in str(exported.graph)
        assert "torchvision.nms" in str(exported.graph)
        assert rotated_overlap() == expected


def test_promotes_as_torchvision_does(torchvision):
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 3.0, 6.0]])
    for a, b in ((boxes.half(), boxes.half()), (boxes.bfloat16(), boxes), (boxes, boxes.double()), (boxes.int(),) * 2):
        expected = torchvision.ops.box_iou(a, b)
        with interop.accelerate():
            out = torchvision.ops.box_iou(a, b)
        torch.testing.assert_close(out, expected)
    scores = torch.tensor([0.3, 0.8])
    expected = torchvision.ops.batched_nms(boxes, scores, torch.tensor([1.0, 1.0]), 0.1)
    with interop.accelerate():
        assert torch.equal(torchvision.ops.batched_nms(boxes, scores, torch.tensor([1.0, 1.0]), 0.1), expected)
