import numpy as np
import pytest
import torch
from fastvision.metrics import Dice, MeanIoU
from hypothesis import given
from hypothesis import strategies as st
from support import seeds


def draw(seed, classes, shape=(2, 5, 7), ignored=None):
    rng = np.random.default_rng(seed)
    present = rng.choice(classes, rng.integers(1, classes + 1), replace=False)
    predictions, targets = rng.choice(present, shape), rng.choice(present, shape)
    if ignored is not None:
        targets[rng.random(shape) < 0.3] = ignored
    return predictions, targets


@given(seed=seeds, classes=st.integers(1, 6), ignored=st.sampled_from([None, 255, -1, 0]), updates=st.integers(1, 3))
def test_definitions(seed, classes, ignored, updates):
    predictions, targets = draw(seed, classes, ignored=ignored)
    iou, dice = MeanIoU(classes, ignored), Dice(classes, ignored)
    for part in np.array_split(np.arange(len(targets)), updates):
        for metric in (iou, dice):
            metric.update(torch.from_numpy(predictions[part]), torch.from_numpy(targets[part]))
    kept = targets != ignored if ignored is not None else np.ones_like(targets, bool)
    p, t = predictions[kept], targets[kept]
    ious, dices = [], []
    for c in range(classes):
        shared, either = np.sum((p == c) & (t == c)), np.sum((p == c) | (t == c))
        absent = either == 0 or c == ignored
        ious.append(np.nan if absent else shared / either)
        dices.append(np.nan if absent else 2 * shared / (np.sum(p == c) + np.sum(t == c)))
    scores = iou.compute()
    np.testing.assert_allclose(scores.iou.numpy(), ious, rtol=0, atol=1e-15)
    np.testing.assert_allclose(dice.compute().dice.numpy(), dices, rtol=0, atol=1e-15)
    assert scores.mean_iou == pytest.approx(np.nanmean(ious) if not np.isnan(ious).all() else 0.0)
    assert dice.compute().mean_dice == pytest.approx(np.nanmean(dices) if not np.isnan(dices).all() else 0.0)
    assert scores.pixel_accuracy == pytest.approx(np.mean(p == t) if p.size else 0.0)


@given(seed=seeds)
def test_merging_and_the_order_of_pixels(seed):
    predictions, targets = (torch.from_numpy(m) for m in draw(seed, 4))
    whole, first, second, shuffled = (MeanIoU(4) for _ in range(4))
    whole.update(predictions, targets)
    first.update(predictions[:1], targets[:1])
    second.update(predictions[1:].to(torch.uint8), targets[1:].to(torch.int32))
    first.merge(second)
    order = torch.randperm(targets.numel(), generator=torch.Generator().manual_seed(seed))
    shuffled.update(predictions.flatten()[order], targets.flatten()[order])
    for other in (first, shuffled):
        assert torch.equal(other.matrix, whole.matrix)
    whole.reset()
    assert whole.compute().mean_iou == 0.0


def test_strided_and_bool_maps():
    target = torch.rand(6, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    metric, transposed = MeanIoU(2), MeanIoU(2)
    metric.update(~target, target)
    transposed.update((~target).long().T, target.long().T)
    assert torch.equal(metric.matrix, transposed.matrix)
    assert metric.compute().mean_iou == 0.0
    metric.update(target[:0], target[:0])


def test_wrong_arguments():
    maps = torch.zeros(2, 3, dtype=torch.int64)
    metric = MeanIoU(3, ignore_index=255)
    for wrong in (maps.float(), maps.numpy()):
        with pytest.raises(TypeError, match="MeanIoU: predictions: expected a tensor of integers, got"):
            metric.update(wrong, maps)
    with pytest.raises(ValueError, match=r"targets: expected shape \(2, 3\), got \(3, 2\)"):
        metric.update(maps, maps.T)
    for value in (3, -1, 2**62):
        with pytest.raises(ValueError, match=rf"targets: expected classes in \[0, 3\), got {value}"):
            metric.update(maps, torch.full_like(maps, value))
        with pytest.raises(ValueError, match=rf"predictions: expected classes in \[0, 3\), got {value}"):
            metric.update(torch.full_like(maps, value), maps)
    metric.update(torch.full_like(maps, 77), torch.full_like(maps, 255))  # ignored pixels may be anything
    assert metric.matrix.sum() == 0
    with pytest.raises(ValueError, match="num_classes: expected an integer >= 1, got 0"):
        Dice(0)
    with pytest.raises(ValueError, match="merge: expected the same classes"):
        metric.merge(MeanIoU(3))
