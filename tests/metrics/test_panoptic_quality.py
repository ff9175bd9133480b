import numpy as np
import pytest
import torch
from fastvision.metrics import PanopticQuality
from hypothesis import given
from hypothesis import strategies as st
from support import seeds

THINGS, STUFF, VOID = (3, 5), (0, 9), 255


def draw(seed, images=2, side=8, noise=0.15):
    """Images of rectangles, predicted with some pixels wrong."""
    rng = np.random.default_rng(seed)
    targets = np.zeros((images, side, side, 2), np.int64)
    for image in targets:
        for _ in range(5):
            y, x = rng.integers(0, side, 2)
            label = rng.choice([*THINGS, *THINGS, *STUFF, VOID])
            image[y : y + rng.integers(1, 6), x : x + rng.integers(1, 6)] = [label, rng.integers(0, 3)]
    predictions = targets.copy()
    wrong = rng.random(targets.shape[:3]) < noise
    predictions[wrong] = np.stack(
        [rng.choice([*THINGS, *STUFF, VOID], wrong.sum()), rng.integers(0, 3, wrong.sum())], 1
    )
    predictions[..., 1] += rng.integers(0, 2)
    return predictions, targets, rng.random(targets.shape[:3]) < rng.choice([0.0, 0.2])


def by_definition(predictions, targets, crowds):
    """Segment by segment (Kirillov et al., section 4). Returns {class: [sum of IoU, TP, FP, FN]}."""
    sums = {label: [0.0, 0, 0, 0] for label in (*THINGS, *STUFF)}

    def segments(image, allowed):
        keys = {(c, i if c in THINGS else 0) for c, i in image[allowed].tolist() if c != VOID}
        same = {
            k: (image[..., 0] == k[0]) & ((image[..., 1] == k[1]) | (k[0] in STUFF)) & allowed for k in sorted(keys)
        }
        return same

    for prediction, target, crowd in zip(predictions, targets, crowds):
        void = target[..., 0] == VOID
        mine, wanted = segments(prediction, np.ones_like(crowd)), segments(target, ~crowd)
        found = set()
        for key, mask in mine.items():
            ious = {
                k: np.sum(mask & other) / np.sum((mask & ~void) | other)
                for k, other in wanted.items()
                if k[0] == key[0]
            }
            best = max(ious, key=ious.__getitem__, default=None)
            if best is not None and ious[best] > 0.5:
                found.add(best)
                sums[key[0]][0] += ious[best]
                sums[key[0]][1] += 1
            elif np.sum(mask & (void | (crowd & (target[..., 0] == key[0])))) <= mask.sum() / 2:
                sums[key[0]][2] += 1
        for key in wanted.keys() - found:
            sums[key[0]][3] += 1
    return {label: s for label, s in sums.items() if sum(s[1:])}


@given(seed=seeds, noise=st.sampled_from([0.0, 0.15, 0.5, 1.0]))
def test_definition(seed, noise):
    predictions, targets, crowd = draw(seed, noise=noise)
    metric = PanopticQuality(THINGS, STUFF, VOID)
    metric.update(*map(torch.from_numpy, (predictions, targets, crowd)))
    scores, expected = metric.compute(), by_definition(predictions, targets, crowd)
    assert scores.classes.keys() == expected.keys()
    for label, (overlap, tp, fp, fn) in expected.items():
        quality = scores.classes[label]
        assert (quality.true_positives, quality.false_positives, quality.false_negatives) == (tp, fp, fn)
        assert quality.quality == pytest.approx(overlap / (tp + fp / 2 + fn / 2), abs=1e-12)
        assert quality.segmentation * quality.recognition == pytest.approx(quality.quality, abs=1e-12)
    assert scores.pq == pytest.approx(np.mean([c.quality for c in scores.classes.values()]), abs=1e-12)


@given(seed=seeds)
def test_merging_renumbering_and_stuff_instances(seed):
    predictions, targets, crowd = map(torch.from_numpy, draw(seed, 3))
    whole, first, second = (PanopticQuality(THINGS, STUFF, VOID) for _ in range(3))
    whole.update(predictions, targets, crowd)
    first.update(predictions[0], targets[0], crowd[0])
    renumbered = predictions[1:].clone()
    renumbered[..., 1] = torch.tensor([5, 2**31 - 1, 0, 7])[renumbered[..., 1]]
    second.update(renumbered, targets[1:], crowd[1:])
    first.merge(second)
    assert first.compute().classes.keys() == whole.compute().classes.keys()
    assert first.compute().pq == pytest.approx(whole.compute().pq, abs=1e-12)


def test_perfect_and_empty():
    _, targets, _ = draw(4)
    metric = PanopticQuality(THINGS, STUFF, VOID)
    assert metric.compute().pq == 0.0
    metric.update(torch.from_numpy(targets), torch.from_numpy(targets))
    scores = metric.compute()
    assert (scores.pq, scores.sq, scores.rq, scores.pq_things, scores.pq_stuff) == (1.0, 1.0, 1.0, 1.0, 1.0)
    metric.update(torch.zeros(0, 4, 4, 2).long(), torch.zeros(0, 4, 4, 2).long())


def test_wrong_arguments():
    maps = torch.zeros(4, 4, 2, dtype=torch.int64)
    metric = PanopticQuality(THINGS, STUFF)
    with pytest.raises(TypeError, match=r"targets: expected a tensor of integers, got torch.float32"):
        metric.update(maps, maps.float())
    with pytest.raises(ValueError, match=r"predictions: expected shape \(..., H, W, 2\), got \(4, 4\)"):
        metric.update(maps[..., 0], maps)
    with pytest.raises(ValueError, match=r"targets: expected shape \(4, 4, 2\), got \(2, 4, 2\)"):
        metric.update(maps, maps[:2])
    with pytest.raises(ValueError, match=r"crowd: expected shape \(4, 4\), got \(4,\)"):
        metric.update(maps, maps, torch.zeros(4))
    for value in (-1, 1, 255, 2**40):
        with pytest.raises(ValueError, match=f"predictions: expected a class of things, stuff or void, got {value}"):
            metric.update(torch.full_like(maps, value), maps)
    for value in (-1, 2**31):
        with pytest.raises(ValueError, match=r"targets: expected instances in \[0, 2\*\*31\)"):
            metric.update(maps, torch.stack([torch.full((4, 4), 3), torch.full((4, 4), value)], -1))
    with pytest.raises(ValueError, match="one of things, stuff and void"):
        PanopticQuality([1, 2], [2])
    with pytest.raises(ValueError, match="merge: expected the same classes"):
        metric.merge(PanopticQuality(THINGS, STUFF, VOID))
