"""What else is installed and does the same."""

import importlib
from importlib import metadata
from typing import Any


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception:  # a torchvision that does not fit torch fails in several ways
        return None


torchvision = _import("torchvision.models.detection") and _import("torchvision")
pycocotools = _import("pycocotools.mask") and _import("pycocotools.coco") and _import("pycocotools.cocoeval")
pycocotools = pycocotools and _import("pycocotools")
faster_coco_eval = _import("faster_coco_eval")
skimage = _import("skimage")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


_found = {
    "torchvision": torchvision,
    "pycocotools": pycocotools,
    "faster-coco-eval": faster_coco_eval,
    "scikit-image": skimage,
}
# Names of rivals in workloads. "eager" is the definition in plain torch where that is a sensible way to compute it.
VERSIONS = {name: _version(name) for name, module in _found.items() if module is not None} | {
    "eager": _version("torch"),
    "compiled": _version("torch"),
}
