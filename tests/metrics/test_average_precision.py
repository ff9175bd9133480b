import contextlib
import io

import numpy as np
import pytest
import torch
from fastvision.metrics import average_precision, precision_recall_curve
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# The worked example of the repository rafaelpadilla/Object-Detection-Metrics: 24 detections of 15 objects, in order of
# images, (confidence in percent, true positive). It has equal confidences, so it needs a stable order.
EXAMPLE = [
    *((88, 0), (70, 1), (80, 0), (71, 0), (54, 1), (74, 0), (18, 1), (67, 0), (38, 0), (91, 1), (44, 0), (35, 0)),
    *((78, 0), (45, 0), (14, 0), (62, 1), (44, 0), (95, 1), (23, 0), (45, 0), (84, 0), (43, 0), (48, 1), (95, 0)),
]
GOLDEN = {"voc07": 0.26840, "voc10": 0.24569, "coco": 0.24816}

rankings = st.lists(st.tuples(st.integers(0, 9).map(lambda s: s / 10), st.booleans()), max_size=30)


def best_at(precision, recall, level):
    return max((p for p, r in zip(precision, recall) if r >= level), default=0.0)


@pytest.mark.parametrize("method", GOLDEN)
def test_worked_example(method):
    confidences, matched = zip(*EXAMPLE)
    assert average_precision(confidences, matched, 15, method) == pytest.approx(GOLDEN[method], abs=5e-6)
    tensors = torch.tensor(confidences, dtype=torch.float32), torch.tensor(matched, dtype=torch.bool)
    assert average_precision(*tensors, 15, method) == average_precision(confidences, matched, 15, method)


@given(ranking=rankings, missed=st.integers(0, 5))
def test_definitions(ranking, missed):
    scores, matched = [s for s, _ in ranking], [m for _, m in ranking]
    targets = sum(matched) + missed
    precision, recall = precision_recall_curve(scores, matched, targets)
    found = 0
    for i, (_, hit) in enumerate(sorted(ranking, key=lambda r: -r[0])):
        found += hit
        assert precision[i] == found / (i + 1)
        assert np.isnan(recall[i]) if targets == 0 else recall[i] == found / targets
    if targets == 0:
        assert all(np.isnan(average_precision(scores, matched, 0, method)) for method in GOLDEN)
        return
    # A tenth is not a binary number: 3 of 10 found must count as a recall of 0.3.
    levels = [best_at(precision, recall, k / 10 - 1e-9) for k in range(11)]
    assert average_precision(scores, matched, targets, "voc07") == pytest.approx(np.mean(levels), abs=1e-12)
    steps = [best_at(precision, recall, (k + 1) / targets - 1e-9) for k in range(targets)]
    assert average_precision(scores, matched, targets, "voc10") == pytest.approx(np.sum(steps) / targets, abs=1e-12)


@given(ranking=rankings, missed=st.integers(0, 5))
def test_coco_equals_pycocotools(ranking, missed):
    targets = sum(m for _, m in ranking) + missed
    if not ranking or targets == 0:
        return
    truth, found = COCO(), COCO()
    entry = {"image_id": 1, "category_id": 1, "area": 100.0, "iscrowd": 0}
    categories, images = [{"id": 1}], [{"id": 1}]
    wanted = [{**entry, "id": i + 1, "bbox": [20.0 * i, 0, 10, 10]} for i in range(targets)]
    given_boxes, hits = [], iter(wanted)
    for i, (score, match) in enumerate(ranking):
        box = next(hits)["bbox"] if match else [0, 1000, 10, 10]
        given_boxes.append({**entry, "id": i + 1, "bbox": box, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        for coco, annotations in ((truth, wanted), (found, given_boxes)):
            coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
            coco.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    expected = evaluation.eval["precision"][0, :, 0, 0, 2].mean()
    scores, matched = [s for s, _ in ranking], [m for _, m in ranking]
    assert average_precision(scores, matched, targets, "coco") == pytest.approx(expected, abs=1e-12)


def test_scores_that_are_nan_come_last():
    assert average_precision([float("nan"), 0.1], [False, True], 1) == 1.0
    assert average_precision([], [], 3) == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1], [True, False], 2), r"expected one shape \(N,\), got \(1,\) and \(2,\)"),
        (([[0.1]], [[True]], 2), r"expected one shape"),
        (([0.1, 0.2], [True, True], 1), "num_targets: expected at least the number of matches, got 1"),
        (([], [], -1), "num_targets: expected at least the number of matches, got -1"),
        (([0.1], [True], 1, "voc"), "method: expected one of voc07, voc10, coco, got 'voc'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        average_precision(*arguments)
