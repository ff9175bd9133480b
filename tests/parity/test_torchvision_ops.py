"""Every op that torchvision.ops has too: the same values and gradients on ordinary inputs.

Where the two differ on purpose is in test_differences.py. Needs torchvision's compiled library, or a C compiler with
which torchvision_loader.py makes it load:

    FASTVISION_REQUIRE_TORCHVISION=1 pytest tests/parity/test_torchvision_ops.py
"""

import inspect
import itertools

import pytest
import torch
from fastvision import nn, ops
from hypothesis import given, settings
from hypothesis import strategies as st
from support import LAYOUTS, assert_close, lay_out, seeds

SIZE = 20.0


def boxes(g, *shape):
    corner = torch.rand(*shape, 2, generator=g, dtype=torch.float64) * SIZE
    sides = 0.5 + torch.rand(*shape, 2, generator=g, dtype=torch.float64) * SIZE / 2
    return torch.cat([corner, corner + sides], -1)


def size(g, most):
    return int(torch.randint(most + 1, (), generator=g))


def suppression(g):
    n = size(g, 40)
    return boxes(g, n), torch.rand(n, generator=g, dtype=torch.float64), 0.1 + 0.8 * size(g, 10) / 10


def grouped_suppression(g):
    found, scores, threshold = suppression(g)
    return found, scores, torch.randint(3, scores.shape, generator=g), threshold


def two_sets(g):
    leading = (2,) * size(g, 1)
    return boxes(g, *leading, size(g, 8)), boxes(g, *leading, size(g, 8))


def conversion(g):
    formats = ("xyxy", "xywh", "cxcywh")
    return boxes(g, size(g, 8)), formats[size(g, 2)], formats[size(g, 2)]


def rotated_conversion(g):
    formats, count = ("xywhr", "cxcywhr", "xyxyxyxy"), size(g, 8)
    angles = 340 * torch.rand(count, 1, generator=g, dtype=torch.float64) - 170
    start = torch.cat([boxes(g, count), angles], 1)
    source = formats[size(g, 2)]
    return ops.box_convert(start, "xywhr", source), source, formats[size(g, 2)]


def regions(g):
    count = size(g, 6)
    image = torch.randint(2, (count, 1), generator=g).double()
    features = torch.randn(2, 1 + size(g, 4), 9, 7, generator=g, dtype=torch.float64)
    return features, torch.cat([image, boxes(g, count) - 2], 1), (1 + size(g, 4), 1 + size(g, 4)), 0.3 + size(g, 3) / 3


def sampled_regions(g):
    return *regions(g), size(g, 3), bool(size(g, 1))


def sensitive_regions(g):
    """Position-sensitive, and away from the border, which torchvision's ps_roi_pool forgets."""
    _, rois, bins, _ = regions(g)
    rois[:, 1:] += 2
    return torch.randn(2, bins[0] * bins[1] * (1 + size(g, 2)), 36, 35, generator=g, dtype=torch.float64), rois, bins


def sensitive_sampled_regions(g):
    return *sensitive_regions(g), 0.3 + size(g, 3) / 3, size(g, 3)


def aligned_pairs(g):
    n = size(g, 8)
    return boxes(g, n), boxes(g, n), ("none", "mean", "sum")[size(g, 2)]


def focal(g):
    shape = 1 + size(g, 4), 3
    logits, targets = torch.randn(shape, generator=g).double() * 3, (torch.rand(shape, generator=g) < 0.3).double()
    return logits, targets, (-1, 0.25)[size(g, 1)], (0.0, 1.0, 2.0)[size(g, 2)], ("none", "mean", "sum")[size(g, 2)]


def deformable(g):
    kernel, groups = (1 + size(g, 2), 1 + size(g, 2)), 1 + size(g, 1)
    stride, padding, dilation = ((1 + size(g, 1), 1 + size(g, 1)) for _ in range(3))
    offset_groups, images = 1 + size(g, 1), 1 + size(g, 1)
    found = [(s + 2 * p - d * (k - 1) - 1) // t + 1 for s, p, d, k, t in zip((9, 7), padding, dilation, kernel, stride)]
    made = [
        torch.randn(shape, generator=g, dtype=torch.float64)
        for shape in (
            (images, 4, 9, 7),
            (images, 2 * offset_groups * kernel[0] * kernel[1], *found),
            (6, 4 // groups, *kernel),
            (6,),
            (images, offset_groups * kernel[0] * kernel[1], *found),
        )
    ]
    return *made[:4], stride, padding, dilation, made[4]


def is_float(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


# Of each op: its inputs, and which of them have a gradient.
PROBLEMS = {
    "batched_nms": (grouped_suppression, ()),
    "box_area": (lambda g: (boxes(g, size(g, 8)), ("xyxy", "xywh", "cxcywh")[size(g, 2)]), (0,)),
    "box_convert": (lambda g: (conversion, rotated_conversion)[size(g, 1)](g), (0,)),
    "box_iou": (two_sets, (0, 1)),
    "clip_boxes_to_image": (lambda g: (boxes(g, size(g, 3), 4) - 5, (9, 12)), (0,)),
    "complete_box_iou": (two_sets, (0, 1)),
    "complete_box_iou_loss": (aligned_pairs, (0, 1)),
    "deform_conv2d": (deformable, (0, 1, 2, 3, 7)),
    "distance_box_iou": (two_sets, (0, 1)),
    "distance_box_iou_loss": (aligned_pairs, (0, 1)),
    "generalized_box_iou": (two_sets, (0, 1)),
    "generalized_box_iou_loss": (aligned_pairs, (0, 1)),
    "masks_to_boxes": (lambda g: ((torch.rand(size(g, 9), 6, 7, generator=g) < 0.1).double(),), ()),
    "nms": (suppression, ()),
    "ps_roi_align": (sensitive_sampled_regions, (0,)),
    "ps_roi_pool": (sensitive_regions, (0,)),
    "remove_small_boxes": (lambda g: (boxes(g, size(g, 20)), 1.0 + size(g, 8)), ()),
    "roi_align": (sampled_regions, (0,)),
    "roi_pool": (regions, (0,)),
    "sigmoid_focal_loss": (focal, (0,)),
}


def test_every_common_op_is_compared_and_takes_the_same_arguments(torchvision):
    common = {name for name in ops.__all__ if inspect.isfunction(getattr(torchvision.ops, name, None))}
    assert common == PROBLEMS.keys()
    for name in common:
        ours, theirs = (list(inspect.signature(getattr(o, name)).parameters.values()) for o in (ops, torchvision.ops))
        same = [(p.name, p.default, p.kind) for p in theirs]
        assert [(p.name, p.default, p.kind) for p in ours[: len(same)]] == same, name
        assert all(p.default is not p.empty for p in ours[len(same) :]), name


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("DeformConv2d", (4, 6, 3, 2, 1, 2, 2, False)),
        ("DeformConv2d", (4, 6, (3, 1))),
        ("MultiScaleRoIAlign", (["a"], 7, 2)),
        ("PSRoIAlign", ((2, 3), 0.5, 2)),
        ("PSRoIPool", (2, 0.5)),
        ("RoIAlign", ((2, 3), 0.5, -1, True)),
        ("RoIPool", (2, 0.25)),
    ],
)
def test_modules_are_made_and_shown_alike(torchvision, name, arguments):
    ours, theirs = getattr(ops, name), getattr(torchvision.ops, name)
    assert repr(ours(*arguments)) == repr(theirs(*arguments))
    mine, other = (list(inspect.signature(module).parameters.values()) for module in (ours, theirs))
    same = [(p.name, p.default, p.kind) for p in other]
    assert [(p.name, p.default, p.kind) for p in mine[: len(same)]] == same
    assert all(p.default is not p.empty for p in mine[len(same) :])


@pytest.mark.parametrize("name", PROBLEMS)
@settings(max_examples=20)
@given(seed=seeds, dtype=st.sampled_from([torch.float32, torch.float64]), layout=st.sampled_from(LAYOUTS))
def test_same_values_and_gradients(torchvision, backend, name, seed, dtype, layout):
    problem, differentiable = PROBLEMS[name]
    g = backend.vary(seed)
    arguments = [lay_out(a.to(dtype), layout) if is_float(a) else a for a in problem(g)]
    results = []
    for function, device in ((getattr(ops, name), backend.device), (getattr(torchvision.ops, name), "cpu")):
        placed = [a.to(device).detach() if isinstance(a, torch.Tensor) else a for a in arguments]
        inputs = [placed[i].requires_grad_() for i in differentiable]
        out = function(*placed)
        weights = torch.arange(out.numel(), dtype=torch.float64).cos().view(out.shape).to(out)
        results.append((out, torch.autograd.grad((out * weights).sum(), inputs) if inputs else ()))
    (ours, our_gradients), (theirs, their_gradients) = results
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if not differentiable:
        assert torch.equal(ours.cpu(), theirs)
        return
    assert_close(ours.detach(), theirs.detach(), 10)
    for mine, other in zip(our_gradients, their_gradients):
        assert_close(mine, other, 100)


@settings(max_examples=20)
@given(seed=seeds, dtype=st.sampled_from([torch.int16, torch.int32, torch.int64]))
def test_integer_boxes(torchvision, backend, seed, dtype):
    g, far = backend.vary(seed), torch.tensor([0, 0, 1, 1])
    a, b = ((boxes(g, 5) + far).round().to(dtype) for _ in range(2))
    ours = ops.box_iou(a.to(backend.device), b.to(backend.device))
    assert ours.dtype == torch.float32
    assert_close(ours, torchvision.ops.box_iou(a, b))
    for source, target in itertools.permutations(("xyxy", "xywh", "cxcywh"), 2):
        mine, other = (f(a, source, target) for f in (ops.box_convert, torchvision.ops.box_convert))
        assert torch.equal(mine, other)
        assert mine.dtype == other.dtype


@settings(max_examples=20)
@given(seed=seeds, ratio=st.integers(-1, 3), names=st.sampled_from([["a", "b", "c"], ["b", "c"], ["c"]]))
def test_pyramid_pooling(torchvision, backend, seed, ratio, names):
    g = backend.vary(seed)
    maps = {name: torch.randn(2, 3, 64 >> k, 48 >> k, generator=g) for k, name in enumerate("abc")}
    found = [boxes(g, n).float() * 8 for n in (size(g, 5), 1 + size(g, 5))]
    images = [(250, 190), (256, 170)]
    arguments = names, (3, 2), ratio
    ours = nn.MultiScaleRoIAlign(*arguments)(
        {k: m.to(backend.device) for k, m in maps.items()}, [b.to(backend.device) for b in found], images
    )
    assert_close(ours, torchvision.ops.MultiScaleRoIAlign(*arguments)(maps, found, images), 10)


def test_deformable_modules_share_their_state(torchvision, backend):
    ours, theirs = (o.DeformConv2d(4, 6, 3, padding=1, groups=2) for o in (ops, torchvision.ops))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    g = backend.vary(1)
    x, offset, mask = (torch.randn(2, c, 5, 6, generator=g) for c in (4, 18, 9))
    out = ours.to(backend.device)(*(t.to(backend.device) for t in (x, offset, mask)))
    assert_close(out.detach(), theirs(x, offset, mask).detach(), 10)
