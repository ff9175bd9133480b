"""Cases A034 to A060 and A087 to A095: boxes, suppression, overlap, torch, threads and memory."""

import resource
from math import exp, inf, nan

import torch
from cases_regions import T, X, raises
from fastvision import ops


def a034(b):
    with raises(ValueError, "idxs", "(2,)", "(3, 4)"):
        ops.batched_nms(T([[0.0, 0, 1, 1]] * 3), X(3), T([0, 1]), 0.5)


def a035(b):
    with raises(ValueError, "boxes", "4)", "(3, 5)"):
        ops.nms(X(3, 5), X(3), 0.5)


def a036(b):
    boxes = T([[0.0, 0, 1, 1], [0, 0, 1, 1], [9, 9, 10, 10]])
    keep, scores = ops.soft_nms(boxes, T([nan, 0.6, 0.5]), sigma=0.5)
    alone = ops.soft_nms(boxes[1:], T([0.6, 0.5]), sigma=0.5)
    assert keep.tolist() == [1, 2]
    assert torch.equal(keep, alone[0] + 1)
    assert torch.equal(scores, alone[1])


def a037(b):
    assert ops.nms(T([[0.0, 0, 1, 1], [nan, 0, 1, 1], [0, 0, 1, 1]]), T([0.5, 0.9, 0.6]), 0.5).tolist() == [2]


def a038(b):
    boxes = T([[0.0, 0, inf, 1], [0, 0, 1, 1], [0, 0, 1, 1.1]])
    assert ops.batched_nms(boxes, T([0.9, 0.6, 0.7]), T([0, 1, 1]), 0.5).tolist() == [2]


def a039(b):
    assert ops.nms(T([[1.0, 1, 1, 1], [1, 1, 1, 1]]), T([0.5, 0.9]), 0.0).tolist() == [1, 0]


def a040(b):
    assert ops.nms(T([[5.0, 5, 1, 1], [5, 5, 1, 1]]), T([0.5, 0.9]), 0.5).tolist() == [1, 0]


def a041(b):
    for t in (-0.1, 1.5, nan):
        with raises(ValueError, "iou_threshold"):
            ops.batched_nms(X(2, 4), X(2), T([0, 0]), t)


def a042(b):
    boxes = T([[0.0, 0, 900, 900], [0, 0, 900, 899], [0, 0, 10, 900]]).bfloat16()
    assert ops.batched_nms(boxes, T([0.5, 0.6, 0.7]).bfloat16(), T([90, 90, 0]), 0.5).tolist() == [2, 1]


def a043(b):
    with raises(TypeError, "boxes", "int64", ".float()"):
        ops.nms(T([[0, 0, 3, 3], [0, 0, 3, 2]]), T([0.5, 0.9]), 0.5)


def a044(b):
    for _ in range(100):
        keep = ops.batched_nms(T([[0.0, 0, 1, 1]] * 5), torch.full((5,), 0.5), T([0, 1, 0, 1, 2]), 0.5)
        assert keep.tolist() == [0, 1, 4]


def a045(b):
    boxes = T([[0.0, 0, 2e19, 2e19], [0, 0, 2e19, 1e19]])
    keep, scores = ops.soft_nms(boxes, T([0.9, 0.8]), sigma=0.5)
    assert keep.tolist() == [0, 1]
    assert abs(scores[1].item() - 0.8 * exp(-(0.5**2) / 0.5)) < 1e-5


def a046(b):
    """The size of A046 where the machine is fast enough; what counts is that memory is linear."""
    n = 300_000 if b.name == "cuda" else 20_000 if b.name == "cpu" else 9_000
    corner = torch.stack([torch.arange(n) % 600, torch.arange(n) // 600], 1).float() * 2
    scores = torch.rand(n)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    keep = ops.nms(torch.cat([corner, corner + 1], 1), scores, 0.5)
    assert torch.equal(keep, scores.argsort(descending=True, stable=True))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def a047(b):
    boxes = T([[-10.0, -10, -5, -5]] * 3)
    assert ops.batched_nms(boxes, T([0.5, 0.6, 0.7]), T([-3, -3, 7]), 0.5).tolist() == [2, 1]


def a048(b):
    with raises(ValueError, "max_output"):
        ops.nms(X(3, 4), X(3), 0.5, max_output=-1)
    with raises(ValueError, "max_output"):
        ops.nms_padded(X(3, 4), X(3), 0.5, -1)


def a049(b):
    with raises(ValueError, "method", "gaussian", "linear", "naive", "foo"):
        ops.soft_nms(X(2, 4), X(2), method="foo")
    for threshold in (nan, inf):
        with raises(ValueError, "score_threshold"):
            ops.soft_nms(X(2, 4), X(2), score_threshold=threshold)


def a050(b):
    boxes = torch.cat([X(64, 2), X(64, 2) + 1], 1)
    s, idxs, before = torch.full((1,), 0.5).expand(64), torch.arange(128)[::2] % 3, boxes.clone()
    keep = ops.batched_nms(boxes, s, idxs, 0.5)
    assert torch.equal(keep, ops.batched_nms(boxes.clone(), s.clone(), idxs.clone(), 0.5))
    assert torch.equal(boxes, before)


def a051(b):
    assert ops.batched_nms(T([[0.0, 0, 1, 1]] * 3), T([-inf, 0.0, inf]), T([0, 0, 1]), 0.5).tolist() == [2, 1]


def a052(b):
    scores = torch.rand(5, dtype=torch.float64, requires_grad=True)
    _, kept = ops.soft_nms(X(5, 4).double(), scores, sigma=0.5)
    with raises(RuntimeError, "soft_nms", "no gradient"):
        kept.sum().backward()


def a053(b):
    for f in (ops.box_iou, ops.generalized_box_iou, ops.distance_box_iou, ops.complete_box_iou):
        box = T([[1.0, 1, 1, 1]])
        assert f(box, box).item() == 0


def a054(b):
    box = T([[5.0, 5, 1, 1]])
    for f in (ops.generalized_box_iou, ops.distance_box_iou, ops.complete_box_iou):
        assert -1 <= f(box, box).item() <= 1


def a055(b):
    boxes = T([[0.0, 0, inf, 5], [0, 0, 2, 2]])
    assert ops.box_iou(boxes, boxes).tolist() == [[0, 0], [0, 1]]


def a056(b):
    first, second = ([T([row], dtype=torch.uint8)] for row in ([0, 0, 200, 200], [100, 0, 250, 200]))
    iou = ops.box_iou(first[0], second[0])
    assert iou.dtype == torch.float32
    assert abs(iou.item() - 0.4) < 1e-7


def a057(b):
    boxes = torch.zeros(0, 4, requires_grad=True)
    y = ops.box_iou(boxes, X(3, 4))
    y.sum().backward()
    assert y.shape == (0, 3)
    assert boxes.grad.shape == (0, 4)


def a058(b):
    with raises(ValueError, "boxes1", "(2, 5)"):
        ops.box_iou(X(2, 5), X(3, 4))


def a087(b):
    x, y = X(7, 3, 4), X(7, 5, 4) + 0.1
    assert torch.equal(torch.func.vmap(ops.box_iou)(x, y), torch.stack([ops.box_iou(p, q) for p, q in zip(x, y)]))


def a089(b):
    x = X(1, 4, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = ops.roi_align(x, T([[0.0, 0.5, 0.5, 4, 4]]), 3)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, ops.roi_align(x, T([[0.0, 0.5, 0.5, 4, 4]]), 3))


def soft_suppression(b):
    """Not in the list: R4, R6, R7 and R15 for soft and matrix NMS."""
    boxes = T([[0.0, 0, inf, 1], [0, 0, 1, 1], [0, 0, 1, 1], [5, 5, 1, 1]])
    for method in ("gaussian", "linear", "naive"):
        keep, scores = ops.soft_nms(boxes, T([0.9, inf, 0.7, -inf]), method=method)
        assert keep[0] == 1
        assert scores[0] == inf
        assert not set(keep.tolist()) & {0, 3}
        empty = ops.soft_nms(X(0, 4), X(0), method=method)
        assert [t.shape for t in empty] == [(0,), (0,)]
    assert [t.tolist() for t in ops.soft_nms_padded(X(0, 4), X(0), max_output=2)] == [[-1, -1], [0, 0], 0]
    with raises(ValueError, "idxs", "(2,)", "(3, 4)"):
        ops.soft_nms(X(3, 4), X(3), idxs=T([0, 1]))
    with raises(ValueError, "valid", "(3, 4)"):
        ops.soft_nms_padded(X(3, 4), X(3), valid=T([True]))
    s, before = torch.full((1,), 0.5).expand(4), boxes.clone()
    assert torch.equal(ops.soft_nms(boxes, s)[1], ops.soft_nms(boxes.clone(), s.clone())[1])
    assert torch.equal(boxes, before)
    left = ops.matrix_nms(boxes, T([nan, inf, 0.7, -inf]))
    assert left[[0, 1, 3]].tolist() == [0, inf, -inf]
    assert 0 < left[2] < 0.7
    assert ops.matrix_nms(X(0, 4), X(0)).shape == (0,)
    with raises(ValueError, "scores", "(4,)", "(3, 4)"):
        ops.matrix_nms(X(3, 4), X(4))
    with raises(RuntimeError, "soft_nms", "boxes", "(3, 5)"):
        b.ops.soft_nms(X(3, 5), X(3), None, 0, 0.3, 0.5, 0.0, None)
    with raises(RuntimeError, "method"):
        b.ops.soft_nms(X(3, 4), X(3), None, 7, 0.3, 0.5, 0.0, None)


def masks(b):
    """Not in the list: R2, R6, R7 and R9 for masks."""
    few = X(3, 5, 9) > 0.5
    assert ops.mask_iou(few[:0], few).shape == (0, 3)
    assert ops.mask_iou(few[:, :0], few[:, :0]).tolist() == [[0.0] * 3] * 3
    every_other = (X(3, 5, 18) > 0.5)[..., ::2]
    assert torch.equal(ops.mask_iou(every_other, few), ops.mask_iou(every_other.contiguous(), few))
    with raises(ValueError, "masks2", "(3, 5, 9)", "(3, 5, 8)"):
        ops.mask_iou(few, few[..., 1:])
    with raises(TypeError, "masks1", "float32"):
        ops.mask_iou(X(3, 5, 9), few)
    with raises(ValueError, "2**32 pixels"):
        ops.mask_iou(*[torch.ones(1, 1, 1, dtype=torch.bool).expand(1, 2**31, 2**31)] * 2)
    with raises(torch.OutOfMemoryError, "bytes"):
        ops.mask_iou(*[torch.ones(1, 1, 1, dtype=torch.bool).expand(2**20, 1, 1)] * 2)
    assert ops.mask_iou(few, few).diagonal().tolist() == [1, 1, 1]
    with raises(ValueError, "scores", "(2,)", "(3, 5, 9)"):
        ops.matrix_nms(few, X(2))


def a095(b):
    """Memory after many failing and many good calls."""
    x, good, bad = X(1, 2, 4, 4), T([[0.0, 0, 0, 3, 3]]), T([[0.0, 0, 0, 3]])

    def calls(n):
        for _ in range(n):
            for f in (
                lambda: ops.roi_align(x, bad, 2),
                lambda: ops.nms(X(3, 5), X(3), 0.5),
                lambda: ops.box_iou(X(2, 4), X(2, 4).double()),
                lambda: ops.roi_pool(x, T([[0.0, 0, 0, 3, 3]]), 0),
            ):
                with raises((TypeError, ValueError)):
                    f()
            ops.roi_align(x, good, 2)
            ops.nms(X(3, 4), X(3), 0.5)

    calls(200)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    calls(2500)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024


def model_arguments(b):
    """Not in the list: what a detector is given."""
    from fastvision.models.detection import mask_rcnn_tiny

    model = mask_rcnn_tiny(3).eval()
    for images in ([torch.rand(3, 1, 1)], [torch.rand(3, 1, 3000)], [torch.rand(3, 90, 40), torch.rand(3, 30, 200)]):
        results = model(images)
        assert [r.masks.shape[1:] for r in results] == [i.shape[1:] for i in images]
    with raises(ValueError, "images"):
        model([])
    with raises(ValueError, "(1, 8, 8)"):
        model([torch.rand(1, 8, 8)])
    with raises(TypeError, "uint8"):
        model([torch.zeros(3, 8, 8, dtype=torch.uint8)])
    image = [torch.rand(3, 80, 80)]
    mask = torch.zeros(1, 80, 80, dtype=torch.bool)
    with raises(ValueError, "positive width"):
        model.loss(image, [{"boxes": T([[4.0, 4, 4, 8]]), "labels": T([1]), "masks": mask}])
    with raises(ValueError, "masks"):
        model.loss(image, [{"boxes": T([[4.0, 4, 6, 8]]), "labels": T([1])}])
    with raises(ValueError, "targets"):
        model.loss(image, [])


def box_functions(b):
    """Not in the list: functions that are not always kernels obey the rules too."""
    boxes = T([[0.0, 0, nan, 5], [0, 0, inf, 5], [3, 3, 1, 1], [-3e38, -3e38, 3e38, 3e38]])
    assert ops.box_area(boxes).tolist()[1:] == [inf, 0, inf]
    assert ops.remove_small_boxes(boxes, 0.0).tolist() == [1, 3]
    assert ops.clip_boxes_to_image(boxes, (4, 4))[1:].isfinite().all()
    assert ops.box_area(torch.full((1, 4), 255, dtype=torch.uint8)).item() == 0
    assert ops.box_area(T([[-(2**31), -(2**31), 2**31 - 1, 2**31 - 1]], dtype=torch.int32)).item() == 2**63 - 1
    for call in (ops.box_area, lambda t: ops.remove_small_boxes(t, 1), lambda t: ops.clip_boxes_to_image(t, (4, 4))):
        assert call(torch.zeros(0, 4)).shape[0] == 0
        with raises(ValueError, "boxes", "(2, 5)"):
            call(X(2, 5))
        with raises(ValueError, "boxes", "()"):
            call(T(1.0))
    assert ops.masks_to_boxes(torch.zeros(0, 3, 3)).shape == (0, 4)
    assert not ops.masks_to_boxes(torch.zeros(2, 0, 3)).any()
    with raises(ValueError, "masks", "(3, 4)"):
        ops.masks_to_boxes(X(3, 4))
    with raises(ValueError, "size"):
        ops.clip_boxes_to_image(boxes, (4, nan))
    with raises(ValueError, "fmt", "cxcywh"):
        ops.box_area(boxes, fmt="wh")
