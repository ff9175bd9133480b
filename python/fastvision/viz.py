"""Pictures of detections, drawn with Pillow alone."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# Far apart in hue and lightness, for light and dark photographs; a label keeps its colour from picture to picture.
PALETTE = (
    (255, 89, 94),
    (54, 162, 255),
    (255, 202, 58),
    (80, 200, 120),
    (190, 120, 255),
    (255, 146, 43),
    (40, 210, 205),
    (255, 120, 200),
    (170, 215, 60),
    (170, 140, 110),
)
_MASK_OPACITY = 0.45
_Color = tuple[int, int, int]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_detections(
    image: Image.Image | Tensor,
    boxes: Tensor,
    *,
    labels: Tensor | None = None,
    scores: Tensor | None = None,
    masks: Tensor | None = None,
    names: Sequence[str] | Mapping[int, str] | None = None,
    scale: int = 1,
) -> Image.Image:
    """Draw boxes, masks, labels and scores on a copy of a picture; later rows lie below earlier ones.

    Args:
        image: A Pillow image, or ``(3, H, W)``: float in [0, 1] or uint8.
        boxes: ``(N, 4)`` xyxy in pixels of ``image``. Parts outside are cut off; a box that is outside altogether,
            inverted or not finite is left out.
        labels: int64 ``(N,)``, shown by name and colour.
        scores: ``(N,)`` in [0, 1], shown in per cent.
        masks: bool ``(N, H, W)``.
        names: Of labels: a sequence that starts with label 1, or a mapping. A label without a name is shown as number.
            Any text will do: what the font lacks is drawn as a box, what does not fit is cut with an ellipsis.
        scale: Enlarge the picture by this factor first, so that lines and text stay small beside the objects.

    Returns:
        An RGB image of ``scale`` times the size.

    Raises:
        ValueError: Shapes that do not belong together, or ``scale`` below 1.
    """
    picture = _as_image(image)
    _check(picture, boxes, labels, scores, masks, scale)
    width, height = picture.width * scale, picture.height * scale
    picture = picture.resize((width, height), Image.Resampling.BICUBIC) if scale > 1 else picture.copy()
    corners = (boxes.detach().double().cpu() * scale).numpy()
    colors = [PALETTE[(int(labels[i]) if labels is not None else i + 1) % len(PALETTE)] for i in range(len(boxes))]
    order = range(len(boxes) - 1, -1, -1)
    if masks is not None:
        pixels = np.array(picture)
        for i in order:
            _blend(pixels, masks[i].cpu().numpy(), scale, colors[i])
        picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    line = max(1, round(min(width, height) / 200))
    font = _font(min(width, height))
    for i in order:
        x1, y1, x2, y2 = corners[i].tolist()
        if not (np.isfinite(corners[i]).all() and x1 < width and y1 < height and 0 < x2 >= x1 and 0 < y2 >= y1):
            continue
        edges = max(round(x1), 0), max(round(y1), 0), min(round(x2), width) - 1, min(round(y2), height) - 1
        left, top, right, bottom = edges[0], edges[1], max(edges[2], edges[0]), max(edges[3], edges[1])
        draw.rectangle((left, top, right, bottom), outline=colors[i], width=line)
        text = _caption(None if labels is None else int(labels[i]), None if scores is None else float(scores[i]), names)
        if text:
            _tag(draw, text, left, top, width, height, colors[i], font)
    return picture


def _as_image(image: Image.Image | Tensor) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if image.dim() != 3 or image.shape[0] != 3:
        raise ValueError(f"draw_detections: image: expected shape (3, H, W), got {tuple(image.shape)}")
    pixels = image.detach().cpu()
    if pixels.is_floating_point():
        pixels = (pixels.nan_to_num(0).clamp(0, 1) * 255).round()
    return Image.fromarray(np.ascontiguousarray(pixels.to(torch.uint8).permute(1, 2, 0).numpy()))


def _check(
    picture: Image.Image,
    boxes: Tensor,
    labels: Tensor | None,
    scores: Tensor | None,
    masks: Tensor | None,
    scale: int,
) -> None:
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"draw_detections: boxes: expected shape (N, 4), got {tuple(boxes.shape)}")
    n = len(boxes)
    expected = {
        "labels": (labels, (n,)),
        "scores": (scores, (n,)),
        "masks": (masks, (n, picture.height, picture.width)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"draw_detections: {name}: expected shape {shape}, got {tuple(tensor.shape)}")
    if scale < 1:
        raise ValueError(f"draw_detections: scale: expected at least 1, got {scale}")


def _blend(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], scale: int, color: _Color) -> None:
    """Tint the pixels of a mask and outline them."""
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    if not len(rows):
        return
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1].repeat(scale, 0).repeat(scale, 1)
    inner = np.pad(part, 1)
    inner = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    area = pixels[top * scale : top * scale + part.shape[0], left * scale : left * scale + part.shape[1]]
    tinted = area[part] * (1 - _MASK_OPACITY) + np.array(color) * _MASK_OPACITY
    area[part] = tinted.round().astype(np.uint8)
    area[part & ~inner] = color


def _caption(label: int | None, score: float | None, names: Sequence[str] | Mapping[int, str] | None) -> str:
    parts = []
    if label is not None:
        if isinstance(names, Mapping):
            parts.append(names.get(label, str(label)))
        else:
            parts.append(names[label - 1] if names is not None and 1 <= label <= len(names) else str(label))
    if score is not None:
        parts.append(f"{score:.0%}")
    # Line breaks would leave the tag, and half a surrogate pair is no character to a font.
    return " ".join(": ".join(parts).split()).encode("utf-8", "replace").decode()


def _tag(
    draw: ImageDraw.ImageDraw, text: str, left: int, top: int, width: int, height: int, color: _Color, font: _Font
) -> None:
    """A caption on a coloured ground, above its box or, without room there, at the box's top; always inside."""
    padding = 2
    text = _fitted(text, font, width - 2 * padding)
    if not text:
        return
    x1, y1, x2, y2 = font.getbbox(text)
    across, down = int(x2 - x1) + 2 * padding, int(y2 - y1) + 2 * padding
    x = max(min(left, width - across), 0)
    y = top - down if top >= down else min(top, max(height - down, 0))
    draw.rectangle((x, y, x + across - 1, y + down - 1), fill=color)
    ink = (0, 0, 0) if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 110 else (255, 255, 255)
    draw.text((x + padding - x1, y + padding - y1), text, fill=ink, font=font)


def _fitted(text: str, font: _Font, width: int) -> str:
    """The longest beginning of a text that fits, with an ellipsis if anything is missing; "" if not even one letter."""
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle] + "...") <= width else (low, middle - 1)
    return text[:low] + "..." if low else ""


def _font(side: int) -> _Font:
    return ImageFont.load_default(size=min(max(10, side // 16), 32))
