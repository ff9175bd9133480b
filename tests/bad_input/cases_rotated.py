"""The contract's rules for rotated boxes and regions, which the numbered cases leave out."""

import time
from math import inf, nan

import torch
from cases_regions import T, X, index_error, raises
from fastvision import ops

BOX = T([[4.0, 4, 4, 2, 30]])


def rotated_r1_numbers_at_the_end_of_float(b):
    extremes = T([0.0, -0.0, 1e-45, -1e-45, 1e-38, 1.0, 3e38, -3e38, inf, -inf, nan])
    boxes = torch.cartesian_prod(extremes, extremes[3:], extremes, extremes[2:8], extremes[::2])
    boxes = boxes[torch.randperm(len(boxes), generator=torch.Generator().manual_seed(0))[:300]].requires_grad_()
    iou = ops.box_iou_rotated(boxes, boxes)
    assert ((iou >= 0) & (iou <= 1)).all()
    finite = boxes.isfinite().all(1)
    assert not iou[~finite].any()
    for grad in torch.autograd.grad(ops.box_iou_rotated(boxes, boxes.flip(0), aligned=True).sum(), boxes):
        assert grad[finite.nonzero().flatten()].isfinite().all()
    keep = ops.nms_rotated(boxes.detach(), X(300), 0.5)
    assert finite[keep].all()
    rois = torch.cat([torch.zeros(300, 1), boxes.detach()], 1)
    x = X(1, 4, 8, 8, requires_grad=True)
    out = ops.roi_align_rotated(x, rois, 2, sampling_ratio=2)
    out.sum().backward()
    assert out.isfinite().all()
    assert not out[~finite].any()
    assert x.grad.isfinite().all()


def rotated_r2_shapes(b):
    with raises(ValueError, "box_iou_rotated: boxes2", "(2, 4)"):
        ops.box_iou_rotated(X(2, 5), X(2, 4))
    with raises(ValueError, "boxes1", "(5,)"):
        ops.box_iou_rotated(X(5), X(5))
    with raises(ValueError, "boxes2", "aligned=True"):
        ops.box_iou_rotated(X(2, 5), X(3, 5), aligned=True)
    with raises(ValueError, "nms_rotated: boxes", "(3, 4)"):
        ops.nms_rotated(X(3, 4), X(3), 0.5)
    with raises(ValueError, "scores", "(2,)", "(3, 5)"):
        ops.nms_rotated(X(3, 5), X(2), 0.5)
    with raises(ValueError, "idxs", "(2,)", "(3, 5)"):
        ops.batched_nms_rotated(X(3, 5), X(3), T([0, 1]), 0.5)
    with raises(ValueError, "rois", "6)", "(2, 5)"):
        ops.roi_align_rotated(X(1, 2, 4, 4), X(2, 5), 2)
    with raises(ValueError, "rois"):
        ops.roi_align_rotated(X(2, 2, 4, 4), [X(2, 5)], 2)


def rotated_r2_raw(b):
    with raises(RuntimeError, "boxes1", "(2, 4)"):
        b.ops.box_iou_rotated(X(2, 4), X(2, 5), False, True, False)
    with raises(RuntimeError, "sampling_ratio"):
        b.ops.roi_align_rotated(X(1, 2, 4, 4), X(1, 6), 1.0, 2, 2, 257, True, True, False)
    with raises(RuntimeError):
        b.ops.roi_align_rotated_backward(X(1, 2, 2, 2), X(1, 6), 1.0, 2, True, True, False, 1, -4, 4, False)


def rotated_r3_image_index(b):
    for bad in (-1.0, 2.0, 0.5, 3e9, nan, inf):
        rois = torch.cat([T([[0.0], [bad], [1.0]]), BOX.expand(3, 5)], 1)
        index_error(b, lambda rois=rois: ops.roi_align_rotated(X(2, 4, 8, 8), rois, 3), "roi_align_rotated", 1)


def rotated_r4_not_finite(b):
    for column in range(5):
        for bad in (nan, inf, -inf):
            boxes = BOX.repeat(3, 1)
            boxes[1, column] = bad
            assert ops.box_iou_rotated(boxes, boxes)[1].tolist() == [0, 0, 0]
            assert ops.nms_rotated(boxes, T([0.5, 0.9, 0.6]), 0.5).tolist() == [2]
            x = X(1, 4, 8, 8, requires_grad=True)
            out = ops.roi_align_rotated(x, torch.cat([torch.zeros(3, 1), boxes], 1), 2)
            out[1].sum().backward()
            assert not out[1].any()
            assert not x.grad.any()
    assert ops.nms_rotated(BOX.repeat(3, 1), T([inf, nan, -inf]), 1.0).tolist() == [0, 2]


def rotated_r5_no_area(b):
    boxes = T([[1.0, 1, 0, 2, 10], [1, 1, -2, 2, 10], [1, 1, 0, 0, 10], [1, 1, 2, 2, 10]])
    assert ops.box_iou_rotated(boxes, boxes).tolist() == torch.diag(T([0.0, 0, 0, 1])).tolist()
    assert ops.nms_rotated(boxes, T([0.4, 0.3, 0.2, 0.1]), 0.0).tolist() == [0, 1, 2, 3]
    rois = T([[0.0, 4, 4, -1, 2, 10]])
    assert not ops.roi_align_rotated(X(1, 2, 8, 8), rois, 2).any()
    assert ops.roi_align_rotated(X(1, 2, 8, 8), rois, 2, aligned=False).all()


def rotated_r6_empty(b):
    assert ops.box_iou_rotated(X(0, 5), X(3, 5)).shape == (0, 3)
    assert ops.nms_rotated(X(0, 5), X(0), 0.5).tolist() == []
    assert ops.batched_nms_rotated(X(0, 5), X(0), T([], dtype=torch.int64), 0.5).tolist() == []
    x = X(2, 3, 4, 4, requires_grad=True)
    out = ops.roi_align_rotated(x, X(0, 6), (2, 3))
    out.sum().backward()
    assert out.shape == (0, 3, 2, 3)
    assert not x.grad.any()
    assert ops.roi_align_rotated(X(0, 3, 4, 4), X(0, 6), 2).shape == (0, 3, 2, 2)
    with raises(ValueError, "input"):
        ops.roi_align_rotated(X(1, 3, 0, 4), torch.zeros(1, 6), 2)


def rotated_r8_dtypes(b):
    with raises(TypeError, "boxes", "int64"):
        ops.nms_rotated(torch.ones(2, 5, dtype=torch.int64), X(2), 0.5)
    with raises(TypeError, "boxes2", "float64"):
        ops.box_iou_rotated(BOX, BOX.double())
    with raises(TypeError, "rois"):
        ops.roi_align_rotated(X(1, 2, 4, 4), X(1, 6).double(), 2)
    with raises(TypeError, "rois"):
        ops.roi_align_rotated(X(1, 2, 4, 4), torch.zeros(1, 6, dtype=torch.int64), 2)
    big = T([[2**30, 2**30, 2**30, 2**30, 0], [2**30, 2**30, 2**30, 2**30, 90]])
    assert ops.box_iou_rotated(big, big).tolist() == [[1, 1], [1, 1]]


def rotated_r9_too_large(b):
    one = BOX.expand(2**20, 5)
    with raises((RuntimeError, MemoryError)):
        ops.box_iou_rotated(one, one)
    with raises((ValueError, RuntimeError, MemoryError)):
        ops.roi_align_rotated(X(1, 2, 4, 4), torch.zeros(1, 6), (2**40, 2**40))
    assert ops.box_iou_rotated(BOX, BOX).item() == 1


def rotated_r10_time_does_not_grow_with_coordinates(b):
    started = time.monotonic()
    x = X(1, 4, 8, 8, requires_grad=True)
    rois = T([[0.0, 1e30, -1e30, 3e38, 3e38, 77], [0, 4, 4, 1e9, 1e-9, 45], [0, 4, 4, 1e9, 1e9, 45]])
    ops.roi_align_rotated(x, rois, 3).sum().backward()
    assert time.monotonic() - started < 10


def rotated_r14_devices(b):
    with raises(ValueError, "boxes2", "meta", "cpu"):
        ops.box_iou_rotated(BOX, BOX.to("meta"))
    assert ops.box_iou_rotated(BOX.to("meta"), BOX.to("meta")).device.type == "meta"


def rotated_r15_numbers(b):
    for t in (-0.1, 1.5, nan):
        with raises(ValueError, "iou_threshold"):
            ops.batched_nms_rotated(X(2, 5), X(2), T([0, 0]), t)
    with raises(ValueError, "max_output"):
        ops.nms_rotated(X(2, 5), X(2), 0.5, max_output=-1)
    x, rois = X(1, 2, 4, 4), torch.zeros(1, 6)
    for scale in (0.0, -1.0, inf, nan):
        with raises(ValueError, "spatial_scale"):
            ops.roi_align_rotated(x, rois, 2, scale)
    for ratio in (-2, 257):
        with raises(ValueError, "sampling_ratio"):
            ops.roi_align_rotated(x, rois, 2, 1.0, ratio)
    for size in (0, -1, (2, 0)):
        with raises(ValueError, "output_size"):
            ops.roi_align_rotated(x, rois, size)
    for f in (
        lambda: ops.box_iou_rotated(BOX, BOX, angle="grad"),
        lambda: ops.nms_rotated(BOX, T([1.0]), 0.5, angle="grad"),
        lambda: ops.roi_align_rotated(x, rois, 2, angle="grad"),
    ):
        with raises(ValueError, "angle", "'deg'", "'grad'"):
            f()
