"""A few calls of every function as users make them, for the checks that all ops have in common."""

import sample_tensors as make
import torch
from fastvision import ops


def public_calls():
    """(name, function of tensors, tensors): the functions as users call them."""
    x, rois = make.features(2, 3, 9, 8), make.rois(4, 2)
    a, b, scores = make.boxes(5), make.boxes(5).flip(0), torch.rand(5, generator=make.generator())
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
            (make.boxes(2, 6, 1), torch.rand(2, 6, 3, generator=make.generator())),
        ),
        ("box_iou_rotated", ops.box_iou_rotated, (make.rotated(5), make.rotated(5).flip(0))),
        ("nms_rotated", lambda boxes, s: ops.nms_rotated(boxes, s, 0.5), (make.rotated(5), scores)),
        (
            "batched_nms_rotated",
            lambda boxes, s, g: ops.batched_nms_rotated(boxes, s, g, 0.5, angle="rad"),
            (make.rotated(5), scores, groups),
        ),
        ("soft_nms", lambda boxes, s, g: ops.soft_nms(boxes, s, idxs=g), (a, scores, groups)),
        (
            "soft_nms_padded",
            lambda boxes, s: ops.soft_nms_padded(boxes, s, method="linear", max_output=3),
            (a, scores),
        ),
        ("matrix_nms", lambda boxes, s, g: ops.matrix_nms(boxes, s, idxs=g), (a, scores, groups)),
        ("matrix_nms of masks", lambda m, s: ops.matrix_nms(m, s, kernel="linear"), (make.masks(5, 6, 7), scores)),
        (
            "mask_iou",
            lambda m, other, c: ops.mask_iou(m, other, crowd=c),
            (make.masks(5, 6, 7), make.masks(5, 6, 7), groups),
        ),
        ("roi_align", lambda x, r: ops.roi_align(x, r, 2, 0.5), (x, rois)),
        ("roi_align of maxima", lambda x, r: ops.roi_align(x, r, 2, 0.5, mode="max"), (x, rois)),
        ("roi_align of lists", lambda x, r: ops.roi_align(x, [r, r[:1]], 2, 0.5), (x, rois[:, 1:])),
        (
            "roi_align_rotated",
            lambda x, r: ops.roi_align_rotated(x, r, (2, 3), 0.5),
            (x, torch.cat([rois[:, :1], make.rotated(4)], 1)),
        ),
        (
            "multiscale_roi_align",
            lambda x, y, r: ops.multiscale_roi_align([x, y], r, 2, [0.5, 0.25]),
            (x, make.features(2, 3, 5, 4), rois),
        ),
        ("roi_pool", lambda x, r: ops.roi_pool(x, r, (2, 3), 0.5), (x, rois)),
        ("ps_roi_align", lambda x, r: ops.ps_roi_align(x, r, (2, 3), 0.5, 2), (make.features(2, 12, 9, 8), rois)),
        ("ps_roi_pool", lambda x, r: ops.ps_roi_pool(x, r, (2, 3), 0.5), (make.features(2, 12, 9, 8), rois)),
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
        (
            "conv2d",
            lambda x, w: ops.conv2d(x, w, padding="same", algorithm="fastvision"),
            (x, make.features(4, 3, 3, 2)),
        ),
        ("conv2d auto", lambda x, w: ops.conv2d(x, w, dilation=2), (x, make.features(4, 3, 3, 2))),
        (
            "conv2d of many channels",
            lambda x, w: ops.conv2d(x, w, padding=1, algorithm="fastvision"),
            (make.features(2, 9, 6, 7), make.features(17, 9, 3, 3)),
        ),
        (
            "conv_transpose2d",
            lambda x, w: ops.conv_transpose2d(x, w, stride=2, algorithm="fastvision"),
            (x, make.features(3, 2, 3, 2)),
        ),
        (
            "deform_conv2d",
            lambda x, o, w, m: ops.deform_conv2d(x, o, w, padding=1, mask=m),
            (x, make.features(2, 18, 9, 8), make.features(4, 3, 3, 3), make.features(2, 9, 9, 8)),
        ),
        (
            "separable_conv2d",
            lambda x, d, p: ops.separable_conv2d(x, d, p, padding=2, dilation=2, activation="relu"),
            (x, make.features(3, 1, 3, 3), make.features(4, 3, 1, 1)),
        ),
        (
            "aspp",
            lambda x, one, three, last: ops.aspp(x, one, [three, three], one, last, (2, 9)),
            (x, make.features(2, 3, 1, 1), make.features(2, 3, 3, 3), make.features(4, 8, 1, 1)),
        ),
        (
            "upsample_bilinear_kernel",
            lambda x: x.sum() + ops.upsample_bilinear_kernel(3, 4, device=x.device),
            (x,),
        ),
        ("box_convert", lambda t: ops.box_convert(t, "xyxy", "cxcywh"), (a,)),
        ("box_area", ops.box_area, (a,)),
        ("clip_boxes_to_image", lambda t: ops.clip_boxes_to_image(t, (9, 8)), (a,)),
        ("masks_to_boxes", ops.masks_to_boxes, (make.masks(5, 6, 7),)),
    ]
