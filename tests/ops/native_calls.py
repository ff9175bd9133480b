"""A few calls of every raw op, for the checks that all ops have in common."""

import sample_tensors as make
import torch


def native_calls():
    """(name of the raw op, its arguments) with tensors that require gradients where they may."""
    x, rois = make.features(2, 3, 9, 8).requires_grad_(), make.rois(4, 2)
    last = make.features(2, 8, 9, 8, channels_last=True).requires_grad_()
    sensitive = make.features(2, 12, 9, 8).requires_grad_()
    maps = [make.features(2, 3, 16, 16).requires_grad_(), make.features(2, 3, 8, 8).requires_grad_()]
    a, b = make.boxes(5).requires_grad_(), make.boxes(5).flip(0).requires_grad_()
    batch = make.boxes(2, 4, dtype=torch.float64).requires_grad_()
    scores, groups = torch.rand(5, generator=make.generator()), torch.tensor([0, 1, 0, 1, 2])
    weights = [10.0, 10.0, 5.0, 5.0]
    out = torch.rand(4, 3, 2, 3, generator=make.generator()).requires_grad_()
    argmax = torch.randint(-1, 72, (4, 3, 2, 3), generator=make.generator(), dtype=torch.int32)
    places = torch.randint(0, 18 * 16, x.shape, generator=make.generator())
    pair = torch.rand(5, 5, generator=make.generator())
    turned, more_turned = make.rotated(5).requires_grad_(), make.rotated(5).flip(0).requires_grad_()
    turned_batch = make.rotated(2, 4, dtype=torch.float64).requires_grad_()
    turned_rois = torch.cat([torch.tensor([[0.0], [1], [1], [0]]), make.rotated(4)], 1)
    plain_a, plain_b = a.detach(), b.detach()
    kernel, depthwise, bias = (make.features(*size).requires_grad_() for size in ((8, 3, 3, 3), (8, 1, 3, 3), (8,)))
    return [
        *[("box_iou", (a, b, kind, aligned, 1e-7)) for kind in range(4) for aligned in (False, True)],
        ("box_iou", (batch, batch.detach(), 0, False, 0.0)),
        ("box_iou_backward", (pair, plain_a, plain_b, 1, False, 0.0)),
        ("nms", (plain_a, scores, None, 0.5, float("-inf"), None)),
        ("nms", (plain_a, scores, groups, 0.5, 0.1, 2)),
        ("nms_padded", (plain_a, scores, groups, scores > 0.2, 0.5, 0.1, 7)),
        ("box_convert", (plain_a, 2, 1)),
        ("box_area", (plain_a, 2)),
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
        ("matrix_nms", (make.masks(2, 3, 4, 9), torch.rand(2, 3, generator=make.generator()), None, 1, 2.0)),
        ("mask_iou", (make.masks(2, 3, 4, 9), make.masks(2, 5, 4, 9), None)),
        (
            "mask_iou",
            (make.masks(3, 4, 9), torch.full((2, 4, 2), 5, dtype=torch.uint8), torch.tensor([True, False])),
        ),
        ("roi_align", (x, rois, 0.5, 2, 3, 2, True)),
        ("roi_align", (last, rois, 1.0, 2, 2, -1, False)),
        ("roi_align_backward", (out, rois, 0.5, 2, True, 2, 9, 8, True)),
        ("roi_align_max", (x, rois, 0.5, 2, 3, 2, True, True)),
        ("roi_align_max", (last.detach(), rois, 1.0, 2, 2, 0, False, False)),
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
        ("roi_pool", (x, rois, 0.5, 2, 3, True)),
        ("roi_pool", (last.detach(), rois, 1.0, 2, 2, False)),
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
        (
            "max_unpool2d_backward",
            (make.features(2, 3, 18, 16).requires_grad_(), places, [2, 2, 2, 2, 0, 0, 1, 1], True),
        ),
        ("gram_matrix", (x, None, True, False)),
        ("gram_matrix", (last, make.features(2, 3, 9, 8).requires_grad_(), False, False)),
        ("gram_loss", (x, make.features(1, 3, 3, 1)[..., 0], True, False)),
        ("gram_loss", (last, make.features(2, 8, 8, 1)[..., 0], False, False)),
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
    offset, mask = make.features(2, 18, 5, 4).requires_grad_(), make.features(2, 9, 5, 4).requires_grad_()
    two, weight = make.features(2, 36, 5, 4).requires_grad_(), make.features(4, 3, 3, 3).requires_grad_()
    grouped, grad = make.features(6, 4, 3, 3).requires_grad_(), make.features(2, 4, 5, 4)
    bias = make.features(6).requires_grad_()
    plain = (x.detach(), offset.detach(), weight.detach())
    return [
        ("deform_conv2d", (x, offset, weight, None, mask, geometry)),
        ("deform_conv2d", (last, two, grouped, bias, None, geometry)),
        ("deform_conv2d_input_gradient", (grad, *plain, mask.detach(), geometry)),
        ("deform_conv2d_input_gradient", (grad, *plain, None, geometry)),
        ("deform_conv2d_weight_gradient", (grad, *plain, mask.detach(), geometry)),
    ]


def _native_separable(x, last):
    depthwise, pointwise, vector = make.features(8, 1, 3, 3), make.features(5, 8, 1, 1), make.features(5)
    flags = [True, True, 9, 6, False]
    return [
        ("separable_conv2d", (x, depthwise[:3], pointwise[:, :3], None, *[vector] * 3, [2, 0, 2, 1], *flags)),
        (
            "separable_conv2d",
            (last, depthwise, pointwise, depthwise[:, 0, 0, 0], *[None] * 3, [1] * 4, False, False, 9, 8, False),
        ),
    ]


def _native_losses():
    g = make.generator()
    logits = torch.randn(5, 3, generator=g).requires_grad_()
    maps = torch.randn(2, 3, 4, 5, generator=g).requires_grad_()
    last = torch.randn(2, 3, 4, 5, generator=g).to(memory_format=torch.channels_last).requires_grad_()
    dense, map_labels = torch.rand(2, 3, 4, 5, generator=g), torch.randint(0, 3, (2, 4, 5), generator=g)
    labels, weight, one = torch.tensor([0, 3, 2, -7, 1]), torch.rand(3, generator=g), torch.tensor(1.0)
    pixels = torch.tensor([0, 2, 2, -7, 1])
    plain, a, b = logits.detach(), make.boxes(5).requires_grad_(), make.boxes(5).flip(0).requires_grad_()
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
        ("dice_loss", (maps, dense, False, 1.0, None, 0)),
        ("dice_loss", (last, map_labels, True, 0.0, 1, 1)),
        (
            "dice_loss_backward",
            (dense[:, :, 0, 0], torch.rand(2, 2, 3), torch.rand(2, 40), last.detach(), map_labels, True, 1.0, None, 0),
        ),
        (
            "dice_loss_backward",
            (torch.tensor(0.5), torch.rand(2, 2, 3), torch.rand(2, 0), maps.detach(), dense.detach(), False, 1.0, 1, 1),
        ),
    ]
