"""A few calls of every op, for the checks that all ops have in common."""

import torch
from fastvision import ops
from support import random_boxes


def _generator():
    return torch.Generator().manual_seed(0)


def _boxes(*shape, dtype=torch.float32):
    corner = torch.rand(*shape, 2, generator=_generator()) * 8
    return torch.cat([corner, corner + 1 + torch.rand(*shape, 2, generator=_generator()) * 8], -1).to(dtype)


def _rois(n, images, dtype=torch.float32):
    return torch.cat([torch.arange(n)[:, None] % images, _boxes(n)], 1).to(dtype)


def _features(*shape, dtype=torch.float32, channels_last=False):
    x = torch.rand(shape, generator=_generator()).to(dtype)
    return x.to(memory_format=torch.channels_last) if channels_last else x


def _rotated(*shape, dtype=torch.float32):
    return torch.cat([_boxes(*shape), torch.rand(*shape, 1, generator=_generator()) * 360], -1).to(dtype)


def _masks(*shape):
    return torch.rand(shape, generator=_generator()) > 0.5


def native_calls():
    """(name of the raw op, its arguments) with tensors that require gradients where they may."""
    x, rois = _features(2, 3, 9, 8).requires_grad_(), _rois(4, 2)
    last = _features(2, 8, 9, 8, channels_last=True).requires_grad_()
    sensitive = _features(2, 12, 9, 8).requires_grad_()
    maps = [_features(2, 3, 16, 16).requires_grad_(), _features(2, 3, 8, 8).requires_grad_()]
    a, b = _boxes(5).requires_grad_(), _boxes(5).flip(0).requires_grad_()
    batch = _boxes(2, 4, dtype=torch.float64).requires_grad_()
    scores, groups = torch.rand(5, generator=_generator()), torch.tensor([0, 1, 0, 1, 2])
    weights = [10.0, 10.0, 5.0, 5.0]
    out = torch.rand(4, 3, 2, 3, generator=_generator()).requires_grad_()
    argmax = torch.randint(-1, 72, (4, 3, 2, 3), generator=_generator(), dtype=torch.int32)
    places = torch.randint(0, 18 * 16, x.shape, generator=_generator())
    pair = torch.rand(5, 5, generator=_generator())
    turned, more_turned = _rotated(5).requires_grad_(), _rotated(5).flip(0).requires_grad_()
    turned_batch = _rotated(2, 4, dtype=torch.float64).requires_grad_()
    turned_rois = torch.cat([torch.tensor([[0.0], [1], [1], [0]]), _rotated(4)], 1)
    plain_a, plain_b = a.detach(), b.detach()
    kernel, depthwise, bias = (_features(*size).requires_grad_() for size in ((8, 3, 3, 3), (8, 1, 3, 3), (8,)))
    return [
        *[("box_iou", (a, b, kind, aligned, 1e-7)) for kind in range(4) for aligned in (False, True)],
        ("box_iou", (batch, batch.detach(), 0, False, 0.0)),
        ("box_iou_backward", (pair, plain_a, plain_b, 1, False, 0.0)),
        ("nms", (plain_a, scores, None, 0.5, float("-inf"), None)),
        ("nms", (plain_a, scores, groups, 0.5, 0.1, 2)),
        ("nms_padded", (plain_a, scores, groups, scores > 0.2, 0.5, 0.1, 7)),
        ("box_convert", (plain_a, 2, 1)),
        ("top_scores", (pair, 3, 0.2)),
        ("sample_labels", (torch.tensor([[1, 0, 0, -1, 2], [0, 1, 1, 1, 0]]), torch.tensor(7), 2, 3)),
        ("top_scores", (pair.double(), 5, float("-inf"))),
        ("box_iou_rotated", (turned, more_turned, False, True, False)),
        ("box_iou_rotated", (turned, more_turned, True, False, True)),
        ("box_iou_rotated", (turned_batch, turned_batch.detach(), False, True, False)),
        ("box_iou_rotated_backward", (pair, turned.detach(), more_turned.detach(), False, True, False)),
        ("nms_rotated", (turned.detach(), scores, None, 0.5, True, False, None)),
        ("nms_rotated", (turned.detach(), scores, groups, 0.1, False, True, 2)),
        *[("soft_nms", (plain_a, scores, groups, method, 0.3, 0.5, 0.01, 3 - method)) for method in range(3)],
        ("soft_nms", (plain_a, scores, None, 0, 0.3, 0.5, 0.01, None)),
        ("soft_nms_padded", (plain_a, scores, groups, scores > 0.2, 1, 0.3, 0.5, 0.01, 7)),
        ("matrix_nms", (plain_a, scores, groups, 0, 2.0)),
        ("matrix_nms", (_masks(2, 3, 4, 9), torch.rand(2, 3, generator=_generator()), None, 1, 2.0)),
        ("mask_iou", (_masks(2, 3, 4, 9), _masks(2, 5, 4, 9), None)),
        ("mask_iou", (_masks(3, 4, 9), torch.full((2, 4, 2), 5, dtype=torch.uint8), torch.tensor([True, False]))),
        ("roi_align", (x, rois, 0.5, 2, 3, 2, True)),
        ("roi_align", (last, rois, 1.0, 2, 2, -1, False)),
        ("roi_align_backward", (out, rois, 0.5, 2, True, 2, 9, 8, True)),
        ("roi_align_max", (x, rois, 0.5, 2, 3, 2, True)),
        ("roi_align_max_backward", (out.detach(), rois, argmax.long() % 4, 0.5, 2, True, 2, 9, 8, True)),
        ("roi_align_rotated", (x, turned_rois, 0.5, 2, 3, 2, True, True, False)),
        ("roi_align_rotated", (last, turned_rois, 1.0, 2, 2, -1, False, False, True)),
        ("roi_align_rotated_backward", (out, turned_rois, 0.5, 2, True, True, False, 2, 9, 8, True)),
        ("multiscale_roi_align", (maps, rois, None, [0.25, 0.125], 224.0, 4, 2, 2, 2, False)),
        ("multiscale_roi_align", (maps, rois, torch.tensor([0, 1, 1, 0]), [0.25, 0.125], 224.0, 4, 2, 3, 0, True)),
        (
            "multiscale_roi_align_backward",
            (out, rois, None, [0.25, 0.125], 224.0, 4, 2, False, 2, [16, 8], [16, 8], False),
        ),
        ("roi_pool", (x, rois, 0.5, 2, 3)),
        ("roi_pool", (last, rois, 1.0, 2, 2)),
        ("roi_pool_backward", (out.detach(), rois, argmax, 0.5, 2, 9, 8, False)),
        ("ps_roi_align", (sensitive, rois, 0.5, 2, 3, 2)),
        ("ps_roi_align_backward", (out, rois, 0.5, -1, 2, 9, 8, True)),
        ("ps_roi_pool", (sensitive.contiguous(memory_format=torch.channels_last), rois, 1.0, 3, 2, False)),
        ("ps_roi_pool_backward", (out, rois, 0.5, True, 2, 9, 8, False)),
        ("encode_boxes", (a, b, weights)),
        ("encode_boxes_backward", (plain_a, plain_a, plain_b, weights)),
        ("decode_boxes", (a, b, weights, 4.0, None)),
        ("decode_boxes", (a, b, weights, 4.0, [20.0, 30.0])),
        ("decode_boxes_backward", (plain_a, plain_a, plain_b, weights, 4.0, [20.0, 30.0])),
        ("grid_anchors", (torch.empty(0), [2, 3, 8, 8, 1, 2, 1, 1, 16, 15, 1, 1], [8.0, 16.0], [0.5, 1.0, 1.0], 0.5)),
        ("match_boxes", (plain_a, plain_b, None, 0.7, 0.3, True)),
        ("match_boxes", (batch.detach(), batch.detach().flip(1), torch.rand(2, 4) > 0.5, 0.5, 0.5, False)),
        ("paste_masks", (torch.rand(5, 4, 4), plain_a, 12, 17, 0.5, 1, False)),
        ("paste_masks", (torch.rand(5, 4, 4), plain_a, 12, 17, 0.5, 1, True)),
        *_native_losses(),
        *[("total_variation", (image, penalty, 1.5)) for image in (x, last) for penalty in range(4)],
        *[("total_variation_backward", (out.detach()[:2, :, 0, 0], x, penalty, 1.5)) for penalty in range(4)],
        ("max_pool2d", (x, [2, 3, 2, 1, 1, 1, 1, 2], True, True)),
        ("max_pool2d", (last, [3, 2, 2, 2, 0, 0, 1, 1], False, False)),
        ("max_pool2d_backward", (x, places.byte() % 4, [2, 2, 2, 2, 0, 0, 1, 1], 18, 16, True)),
        ("max_unpool2d", (x, places, [2, 2, 2, 2, 0, 0, 1, 1], 18, 16)),
        ("max_unpool2d", (x, places.byte() % 4, [2, 2, 2, 2, 0, 0, 1, 1], 18, 16)),
        ("max_unpool2d_backward", (_features(2, 3, 18, 16).requires_grad_(), places, [2, 2, 2, 2, 0, 0, 1, 1], True)),
        ("gram_matrix", (x, None, True, False)),
        ("gram_matrix", (last, _features(2, 3, 9, 8).requires_grad_(), False, False)),
        ("gram_loss", (x, _features(1, 3, 3, 1)[..., 0], True, False)),
        ("gram_loss", (last, _features(2, 8, 8, 1)[..., 0], False, False)),
        ("conv2d", (x, kernel, bias, [2, 1, 1, 0, 1, 2], 1, 5, 4, False, False)),
        ("conv2d", (last, depthwise, None, [1, 1, 2, 2, 2, 2], 8, 9, 8, True, False)),
        ("conv_transpose2d", (x, kernel[:3], bias[:3], [2, 3, 1, 0, 1, 2], 1, 18, 27, False, False)),
        ("conv_transpose2d", (last, depthwise, bias, [2, 2, 1, 1, 1, 1], 8, 18, 16, True, False)),
        ("conv2d_weight_gradient", (x, last, [1, 1, 1, 1, 1, 1], 1, 3, 3, False)),
        ("conv2d_weight_gradient", (last, last.detach().sin().requires_grad_(), [1, 1, 2, 2, 2, 2], 8, 3, 3, False)),
        *_native_deformable(x, last),
        *_native_separable(x.detach(), last.detach()),
        ("device_errors", (torch.empty(0),)),
    ]


def _native_deformable(x, last):
    geometry = [2, 1, 1, 0, 1, 2]
    offset, mask = _features(2, 18, 5, 4).requires_grad_(), _features(2, 9, 5, 4).requires_grad_()
    two, weight = _features(2, 36, 5, 4).requires_grad_(), _features(4, 3, 3, 3).requires_grad_()
    grouped, grad = _features(6, 4, 3, 3).requires_grad_(), _features(2, 4, 5, 4)
    bias = _features(6).requires_grad_()
    plain = (x.detach(), offset.detach(), weight.detach())
    return [
        ("deform_conv2d", (x, offset, weight, None, mask, geometry)),
        ("deform_conv2d", (last, two, grouped, bias, None, geometry)),
        ("deform_conv2d_input_gradient", (grad, *plain, mask.detach(), geometry)),
        ("deform_conv2d_input_gradient", (grad, *plain, None, geometry)),
        ("deform_conv2d_weight_gradient", (grad, *plain, mask.detach(), geometry)),
    ]


def _native_separable(x, last):
    depthwise, pointwise, vector = _features(8, 1, 3, 3), _features(5, 8, 1, 1), _features(5)
    flags = [True, True, 9, 6, False]
    return [
        ("separable_conv2d", (x, depthwise[:3], pointwise[:, :3], None, *[vector] * 3, [2, 0, 2, 1], *flags)),
        (
            "separable_conv2d",
            (last, depthwise, pointwise, depthwise[:, 0, 0, 0], *[None] * 3, [1] * 4, False, False, 9, 8, False),
        ),
    ]


def _native_losses():
    g = _generator()
    logits = torch.randn(5, 3, generator=g).requires_grad_()
    maps = torch.randn(2, 3, 4, 5, generator=g).requires_grad_()
    last = torch.randn(2, 3, 4, 5, generator=g).to(memory_format=torch.channels_last).requires_grad_()
    dense, map_labels = torch.rand(2, 3, 4, 5, generator=g), torch.randint(0, 3, (2, 4, 5), generator=g)
    labels, weight, one = torch.tensor([0, 3, 2, -7, 1]), torch.rand(3, generator=g), torch.tensor(1.0)
    pixels = torch.tensor([0, 2, 2, -7, 1])
    plain, a, b = logits.detach(), _boxes(5).requires_grad_(), _boxes(5).flip(0).requires_grad_()
    return [
        ("sigmoid_focal_loss", (maps, dense, None, 0.25, 2.0, None, 0, False)),
        ("sigmoid_focal_loss", (last, dense, None, -1.0, 0.5, None, 1, True)),
        ("sigmoid_focal_loss", (logits, labels, weight, 0.25, 1.5, -7, 2, False)),
        ("sigmoid_focal_loss_backward", (one, one, plain, labels, weight, 0.25, 1.5, -7, 1)),
        ("sigmoid_focal_loss_backward", (dense, one, last.detach(), dense, None, 0.25, 2.0, None, 0)),
        ("softmax_focal_loss", (logits, pixels, weight, 1.0, 2.0, -7, 1, True)),
        ("softmax_focal_loss", (last, map_labels, None, 0.5, 0.5, -100, 0, True)),
        ("softmax_focal_loss_backward", (one, one, torch.rand(3, 5, generator=g), plain, pixels, -7, 1)),
        *[("box_iou_loss", (a, b, kind, 1e-7, kind - 1, kind > 1, kind > 2)) for kind in (1, 2, 3)],
        ("box_iou_loss_backward", (one, a.detach(), b.detach(), 3, 1e-7, 2, True, False)),
        ("dice_loss", (maps, dense, False, 1.0, None)),
        ("dice_loss", (last, map_labels, True, 0.0, 1)),
        (
            "dice_loss_backward",
            (dense[:, :, 0, 0], torch.rand(2, 2, 3), torch.rand(2, 40), last.detach(), map_labels, True, 1.0, None),
        ),
    ]


def public_calls():
    """(name, function of tensors, tensors): the functions as users call them."""
    x, rois = _features(2, 3, 9, 8), _rois(4, 2)
    a, b, scores = _boxes(5), _boxes(5).flip(0), torch.rand(5, generator=_generator())
    groups = torch.tensor([0, 1, 0, 1, 2])
    return [
        ("box_iou", ops.box_iou, (a, b)),
        ("generalized_box_iou", ops.generalized_box_iou, (a, b)),
        ("distance_box_iou", ops.distance_box_iou, (a, b)),
        ("complete_box_iou", ops.complete_box_iou, (a, b)),
        ("nms", lambda boxes, s: ops.nms(boxes, s, 0.5), (a, scores)),
        ("batched_nms", lambda boxes, s, g: ops.batched_nms(boxes, s, g, 0.5), (a, scores, groups)),
        ("nms_padded", lambda boxes, s: ops.nms_padded(boxes, s, 0.5, 3), (a, scores)),
        (
            "multiclass_nms",
            lambda boxes, s: tuple(ops.multiclass_nms(boxes, s, score_threshold=0.1, iou_threshold=0.5, max_output=4)),
            (_boxes(2, 6, 1), torch.rand(2, 6, 3, generator=_generator())),
        ),
        ("box_iou_rotated", ops.box_iou_rotated, (_rotated(5), _rotated(5).flip(0))),
        ("nms_rotated", lambda boxes, s: ops.nms_rotated(boxes, s, 0.5), (_rotated(5), scores)),
        (
            "batched_nms_rotated",
            lambda boxes, s, g: ops.batched_nms_rotated(boxes, s, g, 0.5, angle="rad"),
            (_rotated(5), scores, groups),
        ),
        ("soft_nms", lambda boxes, s, g: ops.soft_nms(boxes, s, idxs=g), (a, scores, groups)),
        (
            "soft_nms_padded",
            lambda boxes, s: ops.soft_nms_padded(boxes, s, method="linear", max_output=3),
            (a, scores),
        ),
        ("matrix_nms", lambda boxes, s, g: ops.matrix_nms(boxes, s, idxs=g), (a, scores, groups)),
        ("matrix_nms of masks", lambda m, s: ops.matrix_nms(m, s, kernel="linear"), (_masks(5, 6, 7), scores)),
        ("mask_iou", lambda m, other, c: ops.mask_iou(m, other, crowd=c), (_masks(5, 6, 7), _masks(5, 6, 7), groups)),
        ("roi_align", lambda x, r: ops.roi_align(x, r, 2, 0.5), (x, rois)),
        ("roi_align of maxima", lambda x, r: ops.roi_align(x, r, 2, 0.5, mode="max"), (x, rois)),
        ("roi_align of lists", lambda x, r: ops.roi_align(x, [r, r[:1]], 2, 0.5), (x, rois[:, 1:])),
        (
            "roi_align_rotated",
            lambda x, r: ops.roi_align_rotated(x, r, (2, 3), 0.5),
            (x, torch.cat([rois[:, :1], _rotated(4)], 1)),
        ),
        (
            "multiscale_roi_align",
            lambda x, y, r: ops.multiscale_roi_align([x, y], r, 2, [0.5, 0.25]),
            (x, _features(2, 3, 5, 4), rois),
        ),
        ("roi_pool", lambda x, r: ops.roi_pool(x, r, (2, 3), 0.5), (x, rois)),
        ("ps_roi_align", lambda x, r: ops.ps_roi_align(x, r, (2, 3), 0.5, 2), (_features(2, 12, 9, 8), rois)),
        ("ps_roi_pool", lambda x, r: ops.ps_roi_pool(x, r, (2, 3), 0.5), (_features(2, 12, 9, 8), rois)),
        ("encode_boxes", ops.encode_boxes, (a, b)),
        ("decode_boxes", lambda r, c: ops.decode_boxes(r, c, image_size=(20, 20)), (a, b / 8)),
        ("match_boxes", lambda t, c: ops.match_boxes(t, c, 0.5, 0.3, allow_low_quality=True), (a, b)),
        ("paste_masks_in_image", lambda m, c: ops.paste_masks_in_image(m, c, (9, 8)), (torch.rand(5, 1, 4, 4), a)),
        ("grid_anchors", lambda x: x.sum() + ops.grid_anchors([(2, 3)], [8], [[8]], [[1.0]], device=x.device), (a,)),
        ("sigmoid_focal_loss", ops.sigmoid_focal_loss, (a, b / 20)),
        ("sigmoid_focal_loss of labels", lambda x, t: ops.sigmoid_focal_loss(x, t, reduction="mean"), (a, groups)),
        ("softmax_focal_loss", ops.softmax_focal_loss, (a, groups)),
        ("dice_loss", ops.dice_loss, (x, x.round())),
        ("generalized_box_iou_loss", ops.generalized_box_iou_loss, (a, b)),
        ("distance_box_iou_loss", lambda a, b: ops.distance_box_iou_loss(a, b, "sum"), (a, b)),
        ("complete_box_iou_loss", lambda a, b: ops.complete_box_iou_loss(a, b, "mean"), (a, b)),
        ("total_variation", ops.total_variation, (x,)),
        (
            "total_variation isotropic",
            lambda x: ops.total_variation(x, isotropic=True, beta=1.5, reduction="mean"),
            (x,),
        ),
        ("max_pool2d", lambda x: ops.max_pool2d(x, 2, return_indices=True), (x,)),
        ("max_unpool2d", lambda x, i: ops.max_unpool2d(x, i, 2), (x, torch.arange(72).expand(2, 3, 72).view(x.shape))),
        ("gram_matrix", lambda x: ops.gram_matrix(x, normalize=True), (x,)),
        ("gram_matrix of two", lambda x, y: ops.gram_matrix(x, y), (x, x[:, :2])),
        ("gram_loss", lambda x: ops.gram_loss(x, torch.eye(x.shape[1]).to(x)[None]), (x,)),
        ("conv2d", lambda x, w: ops.conv2d(x, w, padding="same", algorithm="fastvision"), (x, _features(4, 3, 3, 2))),
        ("conv2d auto", lambda x, w: ops.conv2d(x, w, dilation=2), (x, _features(4, 3, 3, 2))),
        (
            "conv2d of many channels",
            lambda x, w: ops.conv2d(x, w, padding=1, algorithm="fastvision"),
            (_features(2, 9, 6, 7), _features(17, 9, 3, 3)),
        ),
        (
            "conv_transpose2d",
            lambda x, w: ops.conv_transpose2d(x, w, stride=2, algorithm="fastvision"),
            (x, _features(3, 2, 3, 2)),
        ),
        (
            "deform_conv2d",
            lambda x, o, w, m: ops.deform_conv2d(x, o, w, padding=1, mask=m),
            (x, _features(2, 18, 9, 8), _features(4, 3, 3, 3), _features(2, 9, 9, 8)),
        ),
        (
            "separable_conv2d",
            lambda x, d, p: ops.separable_conv2d(x, d, p, padding=2, dilation=2, activation="relu"),
            (x, _features(3, 1, 3, 3), _features(4, 3, 1, 1)),
        ),
        (
            "aspp",
            lambda x, one, three, last: ops.aspp(x, one, [three, three], one, last, (2, 9)),
            (x, _features(2, 3, 1, 1), _features(2, 3, 3, 3), _features(4, 8, 1, 1)),
        ),
        (
            "upsample_bilinear_kernel",
            lambda x: x.sum() + ops.upsample_bilinear_kernel(3, 4, device=x.device),
            (x,),
        ),
        ("box_convert", lambda t: ops.box_convert(t, "xyxy", "cxcywh"), (a,)),
        ("box_area", ops.box_area, (a,)),
        ("clip_boxes_to_image", lambda t: ops.clip_boxes_to_image(t, (9, 8)), (a,)),
        ("masks_to_boxes", ops.masks_to_boxes, (_masks(5, 6, 7),)),
    ]


def sample_boxes(*shape):
    return random_boxes(_generator(), *shape, dtype=torch.float32)
