"""Evaluation of detections, semantic segmentations and panoptic segmentations.

Every metric has ``update(predictions, targets)``, ``compute()``, ``merge(other)`` and ``reset()``. To evaluate with
several processes, gather the metrics (``torch.distributed.all_gather_object``) and merge them.
"""

from .average_precision import average_precision, precision_recall_curve
from .coco import COCO_SIGMAS, CocoCurves, CocoEvaluator, evaluate_coco
from .panoptic import ClassQuality, PanopticQuality, PanopticScores
from .segmentation import Dice, DiceScores, MeanIoU, MeanIoUScores
from .voc import VocEvaluator, VocScores

__all__ = [
    "COCO_SIGMAS",
    "ClassQuality",
    "CocoCurves",
    "CocoEvaluator",
    "Dice",
    "DiceScores",
    "MeanIoU",
    "MeanIoUScores",
    "PanopticQuality",
    "PanopticScores",
    "VocEvaluator",
    "VocScores",
    "average_precision",
    "evaluate_coco",
    "precision_recall_curve",
]
