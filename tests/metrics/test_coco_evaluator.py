import pickle

import numpy as np
import pytest
import torch
from coco_problems import HEIGHT, WIDTH, as_dictionaries, draw, reference
from fastvision import ops
from fastvision.metrics import CocoEvaluator, evaluate_coco
from hypothesis import given
from hypothesis import strategies as st
from support import seeds

KINDS = ("bbox", "segm", "keypoints")
NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
KEYPOINT_NAMES = ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]


def assert_equal_scores(scores, expected):
    assert list(scores) == (NAMES if len(expected) == 12 else KEYPOINT_NAMES)
    np.testing.assert_allclose(list(scores.values()), expected, rtol=0, atol=1e-12)


def evaluator_of(predictions, targets, kind, batch=3):
    evaluator = CocoEvaluator(kind)
    for i in range(0, len(targets), batch):
        evaluator.update(predictions[i : i + batch], targets[i : i + batch])
    return evaluator


@given(seed=seeds, kind=st.sampled_from(KINDS))
def test_json_equals_pycocotools(seed, kind):
    ground_truth, results = draw(seed, kind)
    expected = reference(ground_truth, results, kind)
    evaluator = CocoEvaluator.from_coco(ground_truth, results, kind)
    assert_equal_scores(evaluator.compute(), expected.stats)
    curves = evaluator.curves()
    for name in ("precision", "recall", "scores"):
        tolerance = 1e-12 if kind == "keypoints" else 0  # exp() has other last digits elsewhere
        np.testing.assert_allclose(getattr(curves, name), expected.eval[name], rtol=0, atol=tolerance)
    assert curves.categories == sorted(c["id"] for c in ground_truth["categories"])


@given(seed=seeds, kind=st.sampled_from(KINDS), batch=st.integers(1, 4))
def test_dictionaries_equal_pycocotools_in_any_order_of_images(seed, kind, batch):
    ground_truth, results = draw(seed, kind)
    expected = reference(ground_truth, results, kind).stats
    predictions, targets = as_dictionaries(ground_truth, results, kind)
    assert_equal_scores(evaluator_of(predictions, targets, kind, batch).compute(), expected)
    assert_equal_scores(evaluator_of(predictions[::-1], targets[::-1], kind, batch).compute(), expected)


@given(seed=seeds, kind=st.sampled_from(KINDS), cut=st.integers(0, 6))
def test_merging_equals_one_evaluation(seed, kind, cut):
    predictions, targets = as_dictionaries(*draw(seed, kind), kind)
    whole = evaluator_of(predictions, targets, kind)
    first, second = (evaluator_of(predictions[s], targets[s], kind) for s in (slice(cut), slice(cut, None)))
    first.merge(pickle.loads(pickle.dumps(second)))
    first.merge(second)  # every image is known by now
    assert first.compute() == whole.compute()
    for target in targets:
        del target["image_id"]
    first, second = (evaluator_of(predictions[s], targets[s], kind) for s in (slice(cut), slice(cut, None)))
    first.merge(second)
    assert first.compute() == evaluator_of(predictions, targets, kind).compute()


@given(seed=seeds)
def test_order_of_objects_does_not_matter_without_ties(seed):
    predictions, targets = as_dictionaries(*draw(seed, "bbox"), "bbox")
    g = torch.Generator().manual_seed(seed)
    for prediction in predictions:
        count = len(prediction["scores"])
        prediction["scores"] = torch.rand(count, generator=g, dtype=torch.float64)
    expected = evaluator_of(predictions, targets, "bbox").compute()
    for prediction in predictions:
        order = torch.randperm(len(prediction["scores"]), generator=g)
        prediction.update({key: value[order] for key, value in prediction.items()})
    assert evaluator_of(predictions, targets, "bbox").compute() == expected


@given(seed=seeds)
def test_dense_masks_and_probabilities_equal_run_lengths(seed):
    predictions, targets = as_dictionaries(*draw(seed, "segm"), "segm")
    expected = evaluator_of(predictions, targets, "segm").compute()
    for entry in (*predictions, *targets):
        entry["masks"] = ops.rle_decode(entry["masks"]).reshape(-1, HEIGHT, WIDTH)
    assert evaluator_of(predictions, targets, "segm").compute() == expected
    for prediction in predictions:
        prediction["masks"] = prediction["masks"][:, None] * 0.25 + 0.5
    assert evaluator_of(predictions, targets, "segm").compute() == expected


@given(seed=seeds)
def test_sizes_are_those_of_the_boxes_where_results_have_boxes(seed):
    ground_truth, results = draw(seed, "segm")
    for result in results:
        result["bbox"] = [1.0, 2.0, float(result["score"] * 90), 50.0]
    expected = reference(ground_truth, results, "segm")
    assert_equal_scores(evaluate_coco(ground_truth, results, "segm"), expected.stats)
    for result in results[1:]:
        del result["segmentation"]  # then the box is the mask
    expected = reference(ground_truth, results, "segm")
    assert_equal_scores(evaluate_coco(ground_truth, results, "segm"), expected.stats)


@given(seed=seeds, keypoints=st.integers(1, 5))
def test_own_keypoints_and_sigmas(seed, keypoints):
    ground_truth, results = draw(seed, "keypoints", keypoints)
    sigmas = [0.03 * (k + 1) for k in range(keypoints)]
    expected = reference(ground_truth, results, "keypoints", sigmas)
    assert_equal_scores(evaluate_coco(ground_truth, results, "keypoints", sigmas=sigmas), expected.stats)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_found_nothing_to_find_and_nothing_at_all(kind):
    ground_truth, results = draw(3, kind)
    empty = {**ground_truth, "annotations": []}
    assert_equal_scores(evaluate_coco(ground_truth, [], kind), reference(ground_truth, [], kind).stats)
    assert set(evaluate_coco(empty, results, kind).values()) == {-1.0}
    assert set(CocoEvaluator(kind).compute().values()) == {-1.0}
    evaluator = CocoEvaluator(kind)
    evaluator.update([], [])
    assert set(evaluator.compute().values()) == {-1.0}


@pytest.mark.parametrize("ids", [[0, 1, 2], [-1, 0, 7], [5, 6, 7]])
def test_annotation_ids_mean_nothing(ids):
    boxes = [[10.0 * i, 10.0, 8.0, 8.0] for i in range(3)]
    entries = [{"image_id": 1, "category_id": 1, "bbox": box, "area": 64.0, "iscrowd": 0} for box in boxes]
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1}],
        "annotations": [{**e, "id": i} for e, i in zip(entries, ids)],
    }
    results = [{**e, "score": 0.9 - 0.1 * i} for i, e in enumerate(entries)]
    assert evaluate_coco(truth, results)["AP"] == pytest.approx(1.0, abs=1e-12)
    assert (reference(truth, results, "bbox").stats[0] < 0.99) == (0 in ids)


def test_equal_scores_keep_their_order():
    entry = {"image_id": 1, "category_id": 1, "area": 100.0, "iscrowd": 0}
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1}],
        "annotations": [{**entry, "id": i + 1, "bbox": [20.0 * i, 0, 10, 10]} for i in range(60)],
    }
    found = [{**entry, "bbox": [20.0 * (i * 7 % 60) + i % 3, 0, 10, 10], "score": 0.5} for i in range(200)]
    assert_equal_scores(evaluate_coco(truth, found), reference(truth, found, "bbox").stats)


def test_threads_do_not_change_a_bit():
    ground_truth, results = draw(11, "bbox")
    seen = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        curves = CocoEvaluator.from_coco(ground_truth, results).curves()
        seen.append((curves.precision.tobytes(), curves.recall.tobytes(), curves.scores.tobytes()))
    assert seen[0] == seen[1] == seen[2]


def test_curves_belong_to_the_numbers():
    evaluator = CocoEvaluator.from_coco(*draw(5, "bbox"))
    curves = evaluator.curves()
    assert curves.precision.shape == (10, 101, len(curves.categories), 4, 3)
    per_category = [ap for ap in curves.average_precision().values() if ap >= 0]
    assert evaluator.compute()["AP"] == pytest.approx(np.mean(per_category), abs=1e-12)


def test_detections_that_are_not_finite_match_nothing():
    nan, inf = float("nan"), float("inf")
    box = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    target = {"boxes": box, "labels": torch.tensor([1])}
    # An infinite box is larger than any object counted, so it is no false positive either.
    for wrong, expected in (([nan, 0, 9, 9], 0.5), ([0, 0, inf, 9], 1.0), ([-inf, -inf, inf, inf], 1.0)):
        found = {"boxes": torch.tensor([wrong, box[0].tolist()]), "labels": torch.tensor([1, 1])}
        evaluator = CocoEvaluator()
        evaluator.update([{**found, "scores": torch.tensor([0.9, 0.8])}], [target])
        assert evaluator.compute()["AP"] == pytest.approx(expected, abs=1e-12)
        evaluator = CocoEvaluator()
        evaluator.update([{**found, "scores": torch.tensor([nan, -inf])}], [target])
        assert evaluator.compute()["AP"] == pytest.approx(1.0, abs=1e-12)
