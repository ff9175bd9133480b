import pickle

import numpy as np
import pytest
import torch
from fastvision.metrics import VocEvaluator, average_precision
from hypothesis import given
from hypothesis import strategies as st
from support import seeds


def draw(seed, images):
    """Boxes with coordinates on a small grid, so that overlaps are often equal and often exactly the threshold."""
    g = torch.Generator().manual_seed(seed)

    def entries(count):
        corner = torch.randint(0, 6, (count, 2), generator=g).float()
        boxes = torch.cat([corner, corner + torch.randint(0, 6, (count, 2), generator=g)], 1)
        return {"boxes": boxes, "labels": torch.randint(0, 3, (count,), generator=g)}

    predictions, targets = [], []
    for _ in range(images):
        counts = torch.randint(0, 9, (2,), generator=g).tolist()
        found, wanted = entries(counts[0]), entries(counts[1])
        near = min(counts)
        found["boxes"][: near // 2] = wanted["boxes"][: near // 2]
        found["labels"][: near // 2] = wanted["labels"][: near // 2]
        predictions.append({**found, "scores": torch.randint(0, 8, (counts[0],), generator=g) / 8})
        targets.append({**wanted, "difficult": torch.rand(counts[1], generator=g) < 0.2})
    return predictions, targets


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / whole if whole > 0 else 0.0


def challenge(predictions, targets, threshold, method):
    """The challenge's procedure, detection by detection."""
    scores = {}
    labels = {int(c) for t in targets for c, d in zip(t["labels"], t["difficult"]) if not d}
    for label in sorted(labels):
        found = []
        for image, p in enumerate(predictions):
            found += [
                (s, image, b) for b, c, s in zip(p["boxes"].tolist(), p["labels"], p["scores"].tolist()) if c == label
            ]
        used, ranking = set(), []
        for score, image, box in sorted(found, key=lambda f: -f[0]):
            t = targets[image]
            mine = [i for i, c in enumerate(t["labels"]) if c == label]
            best = max(mine, key=lambda i: overlap(box, t["boxes"][i].tolist()), default=None)
            if best is None or overlap(box, t["boxes"][best].tolist()) < threshold:
                ranking.append((score, False))
            elif not t["difficult"][best]:
                ranking.append((score, (image, best) not in used))
                used.add((image, best))
        wanted = sum(int(c == label and not d) for t in targets for c, d in zip(t["labels"], t["difficult"]))
        scores[label] = average_precision([s for s, _ in ranking], [m for _, m in ranking], wanted, method)
    return scores


def evaluator_of(predictions, targets, *arguments, batch=2):
    evaluator = VocEvaluator(*arguments)
    for i in range(0, len(targets), batch):
        evaluator.update(predictions[i : i + batch], targets[i : i + batch])
    return evaluator


@given(
    seed=seeds,
    images=st.integers(0, 5),
    threshold=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
    method=st.sampled_from(["voc07", "voc10", "coco"]),
    batch=st.integers(1, 3),
)
def test_equals_the_procedure_of_the_challenge(seed, images, threshold, method, batch):
    predictions, targets = draw(seed, images)
    expected = challenge(predictions, targets, threshold, method)
    scores = evaluator_of(predictions, targets, threshold, method, batch=batch).compute()
    assert scores.average_precision == pytest.approx(expected, abs=1e-12)
    assert scores.mean_average_precision == pytest.approx(
        np.mean(list(expected.values())) if expected else 0, abs=1e-12
    )


@given(seed=seeds, cut=st.integers(0, 5))
def test_merging_equals_one_evaluation(seed, cut):
    predictions, targets = draw(seed, 5)
    first, second = (evaluator_of(predictions[s], targets[s]) for s in (slice(cut), slice(cut, None)))
    first.merge(pickle.loads(pickle.dumps(second)))
    assert first.compute() == evaluator_of(predictions, targets).compute()
    first.reset()
    assert first.compute().average_precision == {}


def test_a_perfect_answer_and_a_difficult_object():
    target = {"boxes": torch.tensor([[0.0, 0, 4, 4], [5.0, 5, 9, 9]]), "labels": torch.tensor([7, 7])}
    found = {**target, "scores": torch.tensor([0.5, 0.6])}
    evaluator = VocEvaluator()
    evaluator.update([found], [target])
    assert evaluator.compute().average_precision == {7: 1.0}
    evaluator = VocEvaluator(method="voc07")
    evaluator.update([found], [{**target, "difficult": torch.tensor([False, True])}])
    assert evaluator.compute().average_precision == {7: 1.0}  # the match of the difficult one is no false positive


def test_wrong_arguments():
    with pytest.raises(ValueError, match="iou_threshold: expected a number in \\[0, 1\\], got 2"):
        VocEvaluator(2)
    with pytest.raises(ValueError, match="method: expected one of"):
        VocEvaluator(0.5, "coco101")
    evaluator = VocEvaluator()
    with pytest.raises(ValueError, match="targets: expected 1 images as in predictions, got 0"):
        evaluator.update([{"boxes": [], "labels": [], "scores": []}], [])
    boxes = {"boxes": torch.ones(2, 4), "labels": torch.ones(2).long()}
    with pytest.raises(ValueError, match=r"predictions\[0\]\['scores'\]: expected shape \(2,\), got \(3,\)"):
        evaluator.update([{**boxes, "scores": torch.ones(3)}], [boxes])
    with pytest.raises(ValueError, match="merge: expected the same threshold and method"):
        evaluator.merge(VocEvaluator(0.6))
    assert evaluator.compute().average_precision == {}
