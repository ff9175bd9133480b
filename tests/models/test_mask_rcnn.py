import math

import pytest
import torch
from fastvision.models.detection import FasterRCNN, PaddedDetections, mask_rcnn_tiny
from fastvision.models.detection.faster_rcnn import BoxPredictor, RoIHeads, TwoMLPHead
from support import Backend


def tiny():
    """With scores above the threshold, which a fresh model has not."""
    torch.manual_seed(0)
    model = mask_rcnn_tiny(4, image_size=64).eval()
    model.roi_heads.score_threshold = 0.1
    return model


def squares(*corners, size=64):
    """An image with a bright square per corner, and its target."""
    image, masks = torch.rand(3, size, size) * 0.2, torch.zeros(len(corners), size, size, dtype=torch.bool)
    boxes = torch.tensor([[x, y, x + 20.0, y + 20.0] for x, y in corners]).reshape(-1, 4)
    for k, (x, y) in enumerate(corners):
        masks[k, y : y + 20, x : x + 20] = True
        image[:, y : y + 20, x : x + 20] += 0.7
    labels = torch.ones(len(corners), dtype=torch.int64)
    return image, {"boxes": boxes, "labels": labels, "masks": masks}


def fields(padded):
    return [padded.boxes, padded.scores, padded.labels, padded.count, padded.mask_logits]


@torch.no_grad()
def test_padded_shapes_do_not_depend_on_the_data():
    model, shapes = tiny(), []
    for threshold in (0.0, 0.3, 1.0):
        model.roi_heads.score_threshold = threshold
        padded, _ = model.padded([torch.rand(3, 64, 64), torch.rand(3, 50, 64)])
        shapes.append([tuple(f.shape) for f in fields(padded)])
        behind = torch.arange(20) >= padded.count[:, None]
        assert (padded.labels[behind] == -1).all()
        assert (padded.scores[behind] == 0).all()
        assert (padded.labels[~behind] > 0).all()
    assert shapes == [[(2, 20, 4), (2, 20), (2, 20), (2,), (2, 20, 20, 20)]] * 3
    assert padded.count.tolist() == [0, 0]


@torch.no_grad()
def test_compiles_without_a_graph_break():
    model = tiny()
    images = [torch.rand(3, 64, 64), torch.rand(3, 48, 64)]
    expected = model.padded(images)[0]
    assert expected.count.min() > 3
    found = torch.compile(model.padded, backend="aot_eager", fullgraph=True)(images)[0]
    for mine, eager in zip(fields(found), fields(expected)):
        torch.testing.assert_close(mine, eager)


@torch.no_grad()
def test_detections_are_the_padded_ones():
    model = tiny()
    images = [torch.rand(3, 64, 64), torch.rand(3, 40, 32)]
    padded, batch = model.padded(images)
    for i, (found, image) in enumerate(zip(model(images), images)):
        n = len(found)
        assert n == padded.count[i] > 0
        assert torch.equal(found.scores, padded.scores[i, :n])
        assert (found.scores.diff() <= 0).all()
        torch.testing.assert_close(found.boxes, padded.boxes[i, :n] / batch.scales()[i])
        height, width = image.shape[1:]
        assert found.masks.shape == (n, height, width)
        assert found.masks.dtype == torch.bool
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([width, height] * 2) + 1e-3).all()


@torch.no_grad()
def test_nothing_found():
    model = tiny()
    model.roi_heads.score_threshold = 1.0
    (found,) = model([torch.rand(3, 30, 50)])
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.masks.shape == (0, 30, 50)


@torch.no_grad()
def test_images_of_a_batch_do_not_meet():
    model = tiny()
    images = [torch.rand(3, 64, 64) for _ in range(3)]
    together = model.padded(images)[0]
    for i, image in enumerate(images):
        alone = model.padded([image])[0]
        assert torch.equal(alone.labels[0], together.labels[i])
        torch.testing.assert_close(alone.boxes[0], together.boxes[i], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_same_detections_on_every_backend(backend):
    image = torch.rand(3, 64, 64)
    (found,) = tiny().to(backend.device)([image.to(backend.device)])
    with Backend("cpu"):
        (expected,) = tiny()([image])
    assert len(found) > 5
    # Scores that differ by rounding alone may come in another order.
    order = torch.cdist(expected.boxes, found.boxes.cpu(), p=math.inf).argmin(1)
    assert order.unique().numel() == len(found) == len(expected)
    assert torch.equal(found.labels.cpu()[order], expected.labels)
    torch.testing.assert_close(found.scores.cpu()[order], expected.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.boxes.cpu()[order], expected.boxes, rtol=1e-4, atol=1e-3)
    assert (found.masks.cpu()[order] != expected.masks).float().mean() < 1e-3


def test_losses_are_finite_with_any_number_of_objects():
    model = tiny().train()
    cases = ([()], [((4, 6),)], [(), ((4, 6), (30, 30), (30, 4))])
    for case in cases:
        images, targets = zip(*(squares(*corners) for corners in case))
        losses = model.loss(list(images), list(targets))
        assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"}
        model.zero_grad()
        sum(losses.values()).backward()
        assert all(loss.isfinite() and loss >= 0 for loss in losses.values())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.dim() > 1)


def test_samples_follow_the_generator():
    model = tiny().train()
    image, target = squares((4, 6), (30, 30))

    def losses(seed):
        found = model.loss([image], [target], generator=torch.Generator().manual_seed(seed))
        return torch.stack(list(found.values())).tolist()

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_learns_one_image():
    model = tiny().train()
    image, target = squares((6, 8), (36, 30))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    totals = []
    for _ in range(40):
        total = torch.stack(list(model.loss([image], [target]).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.35 * totals[0]
    (found,) = model.eval()([image])
    best = found.boxes[:2][found.boxes[:2, 0].argsort()]
    assert (best - target["boxes"]).abs().max() < 5
    assert found.labels[:2].tolist() == [1, 1]


def test_without_masks():
    tiny_model = tiny()
    heads = RoIHeads(TwoMLPHead(64 * 25, 16), BoxPredictor(16, 3), (1 / 4, 1 / 8), pool_size=5, max_detections=7)
    model = FasterRCNN(tiny_model.backbone, tiny_model.rpn, heads, tiny_model.batcher)
    image, target = squares((4, 6))
    losses = model.train().loss([image], [target])
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    heads.score_threshold = 0.0
    with torch.no_grad():
        padded, _ = model.eval().padded([image])
        assert isinstance(padded, PaddedDetections)
        assert padded.mask_logits is None
        (found,) = model([image])
    assert len(found) == 7
    assert found.masks is None


def test_state_loads_strictly():
    model = tiny()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    other = mask_rcnn_tiny(4, image_size=64).eval()
    other.load_state_dict(state, strict=True)
    other.roi_heads.score_threshold = model.roi_heads.score_threshold
    image = [torch.rand(3, 64, 64)]
    with torch.no_grad():
        assert torch.equal(model.padded(image)[0].boxes, other.padded(image)[0].boxes)
    del state["rpn.head.cls_logits.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*rpn\.head\.cls_logits\.bias"):
        other.load_state_dict(state, strict=True)


WRONG = {
    "expected one per image (1), got 0": lambda t: [],
    "expected key 'labels' in place 0, got ['boxes', 'masks']": lambda t: [{k: t[k] for k in ("boxes", "masks")}],
    "expected boxes (n, 4) and labels (n,) in place 0, got (1, 4) and (2,)": lambda t: [{**t, "labels": torch.ones(2)}],
    "expected boxes with positive width and height in place 0": lambda t: [{**t, "boxes": torch.zeros(1, 4)}],
    "expected masks of shape (1, 64, 64) in place 0, got (1, 9, 9)": lambda t: [{**t, "masks": torch.ones(1, 9, 9)}],
    "expected masks of shape (1, 64, 64) in place 0, got none": lambda t: [{k: t[k] for k in ("boxes", "labels")}],
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_targets(message):
    image, target = squares((4, 6))
    with pytest.raises(ValueError) as error:
        tiny().train().loss([image], WRONG[message](target))
    assert message in str(error.value)
