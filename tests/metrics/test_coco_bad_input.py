import numpy as np
import pytest
import torch
from coco_problems import as_dictionaries, draw
from fastvision import _host
from fastvision.metrics import CocoEvaluator
from hostile import outcomes_of

BASE = "dict(images=[dict(id=1, height=9, width=9)], categories=[dict(id=1)], annotations=[%s])"
NOTE = "dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 4, 4], area=16, iscrowd=0, %s)"
FOUND = "dict(image_id=1, category_id=1, score=.5, bbox=[0, 0, 4, 4])"
MASK = "segmentation=%s"


def json_case(annotations=NOTE % "", results=FOUND, kind="bbox"):
    return f"metrics.evaluate_coco({BASE % annotations}, [{results}], {kind!r})"


REFUSED = {
    json_case(results=FOUND + ", dict(image_id=1, category_id=9999, score=.5, bbox=[0, 0, 4, 4])"): "results[1]: "
    "category_id 9999 is not among those of the ground truth",
    json_case(results="dict(image_id=7, category_id=1, score=.5, bbox=[0, 0, 4, 4])"): "results[0]: image_id 7 is not",
    json_case(results="dict(image_id=[1], category_id=1, score=.5, bbox=[0, 0, 4, 4])"): "results[0]: image_id [1] is",
    json_case(results="dict(image_id=1, category_id=1, bbox=[0, 0, 4, 4])"): "results[0]: expected the key 'score'",
    json_case(
        results="dict(image_id=1, category_id=1, score='x', bbox=[0, 0, 4, 4])"
    ): "results[0]: score: expected a n",
    json_case(results="dict(image_id=1, category_id=1, score=1, bbox=[0, 4])"): "results[0]: bbox: expected 4 numbers",
    json_case(results="7"): "results[0]: expected a dict, got int",
    json_case(f"{NOTE % ''}, {NOTE % ''}"): "annotations[1]: expected unique ids, got duplicates of 1",
    json_case("dict(image_id=1)"): "annotations[0]: expected the key 'category_id', got image_id",
    json_case(NOTE.replace("[0, 0, 4, 4]", "[0, 0, nan, 4]") % ""): "annotations[0]: bbox: expected finite numbers",
    json_case(kind="segm"): "annotations[0]: expected the key 'segmentation'",
    json_case(
        NOTE % MASK % "[[0, 0, 1, 1]]", kind="segm"
    ): "annotations[0]: segmentation: rle_from_polygons: polygons[0]",
    json_case(NOTE % MASK % "dict(size=[100000, 100000], counts='04')", kind="segm"): "annotations[0]: segmentation: "
    "expected the image's size [9, 9], got [100000, 100000]",
    json_case(NOTE % MASK % "dict(size=[9, 9], counts='04')", kind="segm"): "annotations[0]: segmentation: rle_area: "
    "objects[0]: expected counts that add up to height * width = 81, got 4",
    json_case(NOTE % MASK % "7", kind="segm"): "annotations[0]: segmentation: rle_area: objects[0]: expected a dict",
    json_case(NOTE % "keypoints=[1, 2]", kind="keypoints"): "annotations[0]: keypoints: expected 51 numbers",
    "metrics.evaluate_coco({}, [])": "images: expected a list, got NoneType",
    "metrics.evaluate_coco(dict(images=[{}], annotations=[], categories=[]), [])": "images[0]: expected the key 'id'",
    "metrics.evaluate_coco(dict(images=[], annotations=[], categories=[]), [], 'box')": "iou_type: expected 'bbox'",
    "metrics.CocoEvaluator('keypoints', sigmas=[0.1, 0.0])": "sigmas: expected finite numbers > 0",
}
UPDATE = "metrics.CocoEvaluator(%r).update([dict(%s)], [dict(%s)])"
SCORED, LABELLED = "scores=torch.ones(2), labels=torch.ones(2).long()", "labels=torch.ones(1).long()"
REFUSED_UPDATES = {
    UPDATE % ("bbox", SCORED, LABELLED): "predictions[0]: expected the key 'boxes', got scores, labels",
    UPDATE
    % ("bbox", SCORED + ", boxes=torch.ones(3, 4)", LABELLED): "predictions[0]['boxes']: expected shape (2, 4), g",
    UPDATE
    % ("bbox", SCORED + ", boxes=torch.ones(2, 4)", LABELLED + ", boxes=torch.ones(4)"): "targets[0]['boxes']: exp",
    UPDATE
    % ("segm", SCORED + ", masks=torch.ones(1, 2, 2) > 0", LABELLED): "predictions[0]['masks']: expected 2 masks",
    UPDATE
    % ("segm", SCORED + ", masks=torch.ones(2, 2, 2)", LABELLED): "predictions[0]['masks']: rle_encode: masks: exp",
    UPDATE
    % (
        "segm",
        SCORED + ", masks=torch.ones(2, 2, 2) > 0",
        LABELLED + ", masks=torch.ones(1, 3, 2) > 0",
    ): "expected the s",
    UPDATE
    % ("bbox", SCORED + ", boxes=torch.ones(2, 4)", LABELLED + ", boxes=torch.ones(1, 4) / 0"): "targets[0]['boxes']: "
    "expected finite numbers, got others in row 0",
    UPDATE
    % ("bbox", "labels=torch.tensor(1)", LABELLED): "predictions[0]['labels']: expected shape (N,), got tensor(1)",
    "metrics.CocoEvaluator().update([{}], [])": "predictions[0]: expected the key 'labels', got none",
    "metrics.CocoEvaluator().update([], [{'labels': []}])": "targets: expected 0 images as in predictions, got 1",
}


def test_wrong_data_is_an_error_that_names_the_entry():
    for cases in (REFUSED, REFUSED_UPDATES):
        for (source, wanted), (kind, text) in zip(cases.items(), outcomes_of(list(cases))):
            assert kind == "ValueError", f"{source}: {kind}: {text}"
            assert wanted in text, f"{source}: {text}"


def test_a_refused_update_adds_nothing():
    predictions, targets = as_dictionaries(*draw(5, "bbox"), "bbox")
    evaluator = CocoEvaluator()
    evaluator.update(predictions, targets)
    before = evaluator.compute()
    with pytest.raises(ValueError, match=r"image_ids\[0\]: expected an id not seen before"):
        evaluator.update(predictions[:1], targets[:1])
    with pytest.raises(ValueError, match="expected ids for all images or for none"):
        evaluator.update(predictions[:1], [{k: v for k, v in targets[0].items() if k != "image_id"}])
    with pytest.raises(TypeError, match=r"image_ids\[0\]: expected an integer or text, got \[3\]"):
        evaluator.update(predictions[:1], targets[:1], image_ids=[[3]])
    with pytest.raises(TypeError, match=r"predictions\[0\]\['scores'\]: expected a tensor or an array, got 'high'"):
        evaluator.update([{**predictions[0], "scores": "high"}], targets[:1], image_ids=[-1])
    wrong = {"boxes": torch.ones(1, 4), "labels": torch.ones(1), "scores": torch.ones(1)}
    with pytest.raises(TypeError, match=r"predictions\[0\]\['labels'\]: expected integers, got torch.float32"):
        evaluator.update([wrong], [{**targets[0], "image_id": 10**6}])
    assert evaluator.compute() == before


def test_binding_takes_exact_arrays_and_indices_in_range():
    index, number, flag = np.zeros(2, np.int64), np.zeros(2), np.zeros(2, bool)
    detections = _host.CocoDetections(index, index, number, number)
    targets = _host.CocoTargets(index, index, number, flag, flag)
    limits = (np.array([0.5]), np.array([0.0, 1.0]), np.array([[0.0, 1e10]]), np.array([1, 100]))
    boxes = np.zeros((2, 4))
    _host.coco_evaluate_boxes(detections, targets, _host.CocoSettings(1, 1, *limits), boxes, boxes, 1)
    for images, categories in ((0, 1), (1, 0)):
        settings = _host.CocoSettings(images, categories, *limits)
        with pytest.raises(ValueError, match=r"expected an index in \[0, 0\), got 0"):
            _host.coco_evaluate_boxes(detections, targets, settings, boxes, boxes, 1)
    for wrong in (index.astype(np.int32), np.zeros(4, np.int64)[::2], [0, 0]):
        with pytest.raises(TypeError):
            _host.CocoDetections(wrong, index, number, number)
    for wrong in (np.zeros(3), np.zeros((2, 1))):
        with pytest.raises(ValueError, match=r"detections.scores: expected shape \(2\)"):
            _host.CocoDetections(index, index, wrong, number)
    settings = _host.CocoSettings(1, 1, *limits)
    for wrong in (np.zeros((3, 4)), np.zeros((2, 5)), np.zeros(8)):
        with pytest.raises(ValueError, match="target_boxes: expected shape"):
            _host.coco_evaluate_boxes(detections, targets, settings, boxes, wrong, 1)
    with pytest.raises(ValueError, match="detection_keypoints: expected shape"):
        _host.coco_evaluate_keypoints(
            detections, targets, settings, np.zeros((2, 4, 3)), np.zeros((2, 5, 3)), boxes, np.ones(5), 1
        )
    for bad in (
        (np.ones(33), *limits[1:]),
        (*limits[:3], np.array([9, 1])),
        (limits[0], np.array([1.0, 0]), *limits[2:]),
    ):
        with pytest.raises(ValueError, match="coco_evaluate: "):
            _host.CocoSettings(1, 1, *bad)
    with pytest.raises(ValueError, match="2\\*\\*62 pairs"):
        _host.CocoSettings(2**32, 2**32, *limits)
