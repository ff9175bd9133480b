"""Pictures and the page that show what a training gave. Needs the extra ``demo`` (jinja2, matplotlib)."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastvision.data import DigitsOnPhotos
from fastvision.engine import TrainingLog
from fastvision.metrics import CocoCurves
from fastvision.viz import draw_detections
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .progress import clock

Curves = Mapping[str, CocoCurves]
Floats = NDArray[np.float64]

NAMES = DigitsOnPhotos.class_names
SCALE = 4  # of the small images in pictures
COLUMNS = 3  # pairs of pictures in predictions.png


@dataclass(frozen=True)
class Theme:
    ink: str
    grid: str
    lines: tuple[str, ...]


LIGHT = Theme("#1f2937", "#d8dde6", ("#1d5fd1", "#c2410c", "#0f766e", "#7c3aed", "#b4236f", "#64748b"))
DARK = Theme("#e5e9f0", "#3a4454", ("#7db2ff", "#ffa366", "#4fd1c0", "#c0a2ff", "#ff8fc4", "#a3b1c6"))
STYLES = ("-", "--", ":")
LOSSES = {
    "loss_objectness": "proposals: objectness",
    "loss_rpn_box_reg": "proposals: boxes",
    "loss_classifier": "classes",
    "loss_box_reg": "boxes",
    "loss_mask": "masks",
}


@dataclass(frozen=True)
class Example:
    """An image with the dicts of its ground truth and of its detections (``scores`` too)."""

    image: Tensor
    truth: dict[str, Tensor]
    predicted: dict[str, Tensor]

    def pictures(self) -> tuple[Image.Image, Image.Image]:
        """Ground truth and predictions."""
        left, right = (
            draw_detections(
                self.image,
                found["boxes"],
                labels=found["labels"],
                scores=found.get("scores"),
                masks=found.get("masks"),
                names=NAMES,
                scale=SCALE,
            )
            for found in (self.truth, self.predicted)
        )
        return left, right

    def descriptions(self) -> tuple[str, str]:
        """The same in words."""
        truth = ", ".join(NAMES[k - 1] for k in self.truth["labels"].tolist())
        scores, labels = self.predicted["scores"].tolist(), self.predicted["labels"].tolist()
        predicted = ", ".join(f"{NAMES[k - 1]}\N{NO-BREAK SPACE}({score:.0%})" for k, score in zip(labels, scores))
        return f"Ground truth: {truth}", f"Predictions: {predicted or 'none'}"


def predictions_png(examples: Sequence[Example]) -> bytes:
    """A grid of pairs: ground truth to the left of the predictions."""
    side, gap, head = examples[0].image.shape[2] * SCALE, 6, 34
    pair = 2 * side + gap
    rows = -(-len(examples) // COLUMNS)
    across = COLUMNS * pair + (COLUMNS + 1) * 4 * gap
    grid = Image.new("RGB", (across, head + rows * (side + 2 * gap) + gap), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(size=22)
    for i, example in enumerate(examples):
        x = 4 * gap + (i % COLUMNS) * (pair + 4 * gap)
        y = head + i // COLUMNS * (side + 2 * gap)
        for k, picture in enumerate(example.pictures()):
            grid.paste(picture, (x + k * (side + gap), y))
            if i < COLUMNS:
                draw.text((x + k * (side + gap), 4), ("ground truth", "predictions")[k], fill=(31, 41, 55), font=font)
    return _encode(grid, "PNG")


def precision_recall_png(curves: Curves) -> bytes:
    """One panel per kind of evaluation, side by side."""
    figure = Figure(figsize=(5.2 * len(curves), 4.8), dpi=150, layout="constrained", facecolor="white")
    for axes, (kind, curve) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items()):
        _draw_precision_recall(axes, curve, LIGHT)
        axes.set_title("Boxes" if kind == "box" else "Masks", color=LIGHT.ink, fontsize=15, pad=10)
    return _render(figure)


def html(metrics: Mapping[str, Any], log: TrainingLog, curves: Curves, examples: Sequence[Example]) -> str:
    """The whole report as one file that refers to nothing outside."""
    folder = Path(__file__).parent / "templates"
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    pictures = []
    for example in examples:
        pair = zip(example.pictures(), example.descriptions())
        pictures.append(
            [{"source": _data_uri(_encode(picture, "JPEG"), "jpeg"), "text": text} for picture, text in pair]
        )
    box, mask = (curve.average_precision() for curve in curves.values())
    classes = [
        {"name": name, "box": max(box.get(k, 0.0), 0.0), "mask": max(mask.get(k, 0.0), 0.0)}
        for k, name in enumerate(NAMES, 1)
    ]
    return environment.get_template("report.html").render(
        metrics=metrics,
        examples=pictures,
        charts={
            kind: _both_themes(lambda axes, theme, c=curve: _draw_precision_recall(axes, c, theme))
            for kind, curve in curves.items()
        },
        training=_both_themes(lambda axes, theme: _draw_training(axes, log, theme)),
        classes=classes,
        train_time=clock(metrics["train_seconds"]),
        headline_time=_headline_time(metrics),
        images_per_second=metrics["train_images"] / max(metrics["train_seconds"], 1e-9),
    )


def _headline_time(metrics: Mapping[str, Any]) -> str:
    if metrics["device"] == "cuda":
        return f"{metrics['train_seconds']:.0f} seconds on a GPU"
    return f"{metrics['train_cpu_seconds']:.0f} seconds of CPU time"


def _draw_precision_recall(axes: Axes, curves: CocoCurves, theme: Theme) -> None:
    """Precision over recall, the mean of the classes, for two overlaps and for the mean of all."""
    per_class = curves.precision[:, :, :, 0, -1]
    known = per_class[:, :, (per_class > -1).all((0, 1))]
    mean = known.mean(2) if known.shape[2] else np.zeros(per_class.shape[:2])
    half, three_quarters = (int(np.argmin(abs(curves.iou_thresholds - t))) for t in (0.5, 0.75))
    lines = {"IoU 0.50": mean[half], "IoU 0.75": mean[three_quarters], "IoU 0.50 to 0.95": mean.mean(0)}
    for (name, values), color, style in zip(lines.items(), theme.lines, STYLES):
        label = f"{name}: AP {values.mean():.3f}"
        axes.plot(curves.recall_thresholds, values, style, color=color, linewidth=2.4, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    _finish(axes, theme)


def _draw_training(axes: Axes, log: TrainingLog, theme: Theme) -> None:
    """The losses over the images seen, each the mean of the steps around."""
    images = np.array([step.images for step in log.steps], np.float64)
    width = max(1, len(images) // 25)
    lines = {"sum": np.array([step.loss for step in log.steps])}
    for name in log.steps[0].losses:
        lines[LOSSES.get(name, name)] = np.array([step.losses[name] for step in log.steps])
    for i, (name, values) in enumerate(lines.items()):
        color = theme.lines[i % len(theme.lines)]
        axes.plot(
            images,
            _smooth(values, width),
            STYLES[i // 2 % 3],
            color=color,
            linewidth=2.8 if i == 0 else 1.8,
            label=name,
        )
    axes.set(xlim=(0, images[-1]), ylim=(0, None), xlabel="images seen", ylabel="loss")
    _finish(axes, theme)


def _smooth(values: Floats, width: int) -> Floats:
    """The mean of up to ``width`` neighbours on each side."""
    sums = np.concatenate([[0.0], values.cumsum()])
    index = np.arange(len(values))
    low, high = np.maximum(index - width, 0), np.minimum(index + width + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _finish(axes: Axes, theme: Theme) -> None:
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.tick_params(colors=theme.ink, labelsize=12, length=0, pad=7)
    axes.set_facecolor("none")
    for side in axes.spines.values():
        side.set_visible(False)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=theme.ink, fontsize=13)
    # Below the axes, where it hides no line.
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=2,
        fontsize=11.5,
        frameon=False,
        labelcolor=theme.ink,
        columnspacing=1.4,
    )


def _both_themes(draw: Any) -> dict[str, str]:
    """A chart as data URIs with a transparent ground, for a light and a dark page."""
    charts = {}
    for name, theme in (("light", LIGHT), ("dark", DARK)):
        figure = Figure(figsize=(5.4, 4.8), dpi=150, layout="constrained", facecolor="none")
        draw(figure.subplots(), theme)
        charts[name] = _data_uri(_render(figure), "png")
    return charts


def _render(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _encode(picture: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, quality=88, optimize=True)
    return out.getvalue()


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
