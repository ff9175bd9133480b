"""COCO's JSON formats, parsed and checked: every error names the entry."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ._coco_objects import Columns, Objects, box_areas, keypoint_areas, mask_areas

Entry = dict[str, Any]


@dataclass(frozen=True)
class GroundTruth:
    objects: Objects
    image_ids: list[Any]  # sorted
    categories: list[Any]  # sorted
    sizes: list[tuple[int, int] | None]  # height and width of the images that have them


def read_ground_truth(ground_truth: Entry, iou_type: str, keypoints: int) -> GroundTruth:
    if not isinstance(ground_truth, dict):
        raise TypeError(f"ground truth: expected a dict, got {type(ground_truth).__name__}")
    images, annotations, categories = (
        _entries(name, ground_truth.get(name)) for name in ("images", "annotations", "categories")
    )
    image_ids, categories_ids = _unique_ids("images", images), _unique_ids("categories", categories)
    _unique_ids("annotations", [a for a in annotations if "id" in a])
    by_id = {image["id"]: image for image in images}
    sizes = [_size_of(by_id[i]) for i in image_ids]
    columns: Columns = {
        "image": _indices("annotations", annotations, "image_id", image_ids),
        "label": _indices("annotations", annotations, "category_id", categories_ids),
        "crowd": np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=np.bool_),
    }
    columns["ignored"] = columns["crowd"]
    masks: list[ops.rle.RunLengths] = []
    if iou_type == "segm":
        masks = _masks("annotations", annotations, columns["image"], sizes)
        areas = mask_areas(masks)
    else:
        columns["box"] = _boxes("annotations", annotations)
        areas = box_areas(columns["box"])
    if iou_type == "keypoints":
        columns["keypoints"] = points = _keypoints("annotations", annotations, keypoints)
        visible = [a.get("num_keypoints", n) for a, n in zip(annotations, (points[:, :, 2] > 0).sum(1).tolist())]
        columns["ignored"] = columns["crowd"] | (np.array(visible, dtype=np.int64) == 0)
    given = [a.get("area", area) for a, area in zip(annotations, areas.tolist())]
    columns["area"] = _numbers("annotations", "area", given, ())
    return GroundTruth(Objects(columns, masks), image_ids, categories_ids, sizes)


def read_results(results: list[Entry], truth: GroundTruth, iou_type: str, keypoints: int) -> Objects:
    entries = _entries("results", results)
    columns: Columns = {
        "image": _indices("results", entries, "image_id", truth.image_ids),
        "label": _indices("results", entries, "category_id", truth.categories),
        "score": _numbers("results", "score", _values("results", entries, "score"), ()),
    }
    masks: list[ops.rle.RunLengths] = []
    has_boxes = bool(entries) and bool(entries[0].get("bbox"))
    if iou_type == "segm":
        with_masks = entries
        if has_boxes:
            with_masks = [e if "segmentation" in e else {**e, "segmentation": [_corners(e["bbox"])]} for e in entries]
        masks = _masks("results", with_masks, columns["image"], truth.sizes)
    elif iou_type == "keypoints":
        columns["keypoints"] = _keypoints("results", entries, keypoints)
    if has_boxes or iou_type == "bbox":
        columns["box"] = _boxes("results", entries)
        columns["area"] = box_areas(columns["box"])
    else:
        columns["area"] = mask_areas(masks) if iou_type == "segm" else keypoint_areas(columns["keypoints"])
    return Objects(columns, masks)


def _entries(name: str, entries: Any) -> list[Entry]:
    if not isinstance(entries, list):
        raise ValueError(f"{name}: expected a list, got {type(entries).__name__}")
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"{name}[{i}]: expected a dict, got {type(entry).__name__}")
    return entries


def _values(name: str, entries: list[Entry], key: str) -> list[Any]:
    try:
        return [entry[key] for entry in entries]
    except KeyError:
        i = next(i for i, entry in enumerate(entries) if key not in entry)
        raise ValueError(f"{name}[{i}]: expected the key {key!r}, got {', '.join(map(str, entries[i]))}") from None


def _unique_ids(name: str, entries: list[Entry]) -> list[Any]:
    ids = _values(name, entries, "id")
    try:
        if len(set(ids)) == len(ids):
            return sorted(ids)
    except TypeError:
        raise ValueError(f"{name}: expected ids that are all integers or all text, got others") from None
    seen: set[Any] = set()
    twice = [i for i, value in enumerate(ids) if value in seen or seen.add(value)]  # type: ignore[func-returns-value]
    shown = ", ".join(repr(ids[i]) for i in twice[:5]) + (", ..." if len(twice) > 5 else "")
    raise ValueError(f"{name}[{twice[0]}]: expected unique ids, got duplicates of {shown}")


def _indices(name: str, entries: list[Entry], key: str, known: list[Any]) -> NDArray[np.int64]:
    """The position of each entry's ``key`` among the known ids."""
    values = _values(name, entries, key)
    position = {value: i for i, value in enumerate(known)}
    try:
        return np.array([position[value] for value in values], dtype=np.int64)
    except (KeyError, TypeError):
        i = next(i for i, value in enumerate(values) if isinstance(value, (list, dict)) or value not in position)
        raise ValueError(f"{name}[{i}]: {key} {values[i]!r} is not among those of the ground truth") from None


def _numbers(name: str, key: str, values: list[Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """All entries' values as one array."""

    def convert(value: Any, expected: tuple[int, ...]) -> NDArray[np.float64]:
        array = np.array(value, dtype=np.float64)
        if array.shape != expected:
            raise ValueError
        return array

    try:
        return convert(values, (len(values), *shape)) if values else np.zeros((0, *shape))
    except (TypeError, ValueError):
        pass
    for i, value in enumerate(values):
        try:
            convert(value, shape)
        except (TypeError, ValueError):
            expected = f"{shape[0]} numbers" if shape else "a number"
            raise ValueError(f"{name}[{i}]: {key}: expected {expected}, got {value!r:.80}") from None
    raise ValueError(f"{name}: {key}: expected numbers")


def _boxes(name: str, entries: list[Entry]) -> NDArray[np.float64]:
    boxes = _numbers(name, "bbox", _values(name, entries, "bbox"), (4,))
    if name == "annotations" and not np.isfinite(boxes).all():
        i = int(np.argmax(~np.isfinite(boxes).all(1)))
        raise ValueError(f"{name}[{i}]: bbox: expected finite numbers, got {boxes[i].tolist()}")
    return boxes


def _keypoints(name: str, entries: list[Entry], keypoints: int) -> NDArray[np.float64]:
    flat = _numbers(name, "keypoints", _values(name, entries, "keypoints"), (3 * keypoints,))
    return flat.reshape(-1, keypoints, 3)


def _masks(
    name: str, entries: list[Entry], images: NDArray[np.int64], sizes: Sequence[tuple[int, int] | None]
) -> list[ops.rle.RunLengths]:
    masks = []
    for i, (segmentation, image) in enumerate(zip(_values(name, entries, "segmentation"), images.tolist())):
        masks.append(_checked(f"{name}[{i}]: segmentation", lambda: _mask(segmentation, sizes[image])))  # noqa: B023
    try:
        ops.rle_area(masks)
    except (TypeError, ValueError):
        for i, mask in enumerate(masks):
            _checked(f"{name}[{i}]: segmentation", lambda: ops.rle_area([mask]))  # noqa: B023
        raise
    return masks


def _checked(place: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from None


def _mask(segmentation: Any, size: tuple[int, int] | None) -> ops.rle.RunLengths:
    if isinstance(segmentation, list):
        if size is None:
            raise ValueError("expected an image with height and width for a polygon, got one without")
        return ops.rle_from_polygons(segmentation, *size)
    if size is not None and isinstance(segmentation, dict) and list(segmentation.get("size", size)) != list(size):
        raise ValueError(f"expected the image's size {list(size)}, got {segmentation['size']}")
    mask: ops.rle.RunLengths = segmentation
    return mask


def _size_of(image: Entry) -> tuple[int, int] | None:
    return (image["height"], image["width"]) if "height" in image and "width" in image else None


def _corners(box: Sequence[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x, y + height, x + width, y + height, x + width, y]
