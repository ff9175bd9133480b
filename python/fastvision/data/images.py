"""Pictures from files, as the viewer of a photograph sees them."""

import os
import warnings
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

MAX_PIXELS = 178_956_970
IMAGE_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Not all that Pillow knows: some of its formats run other programs.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """A file that is not a complete image of a known format; the text names the file and the reason."""


class ImageWarning(UserWarning):
    """An image was read, but not all of its file."""


def load_image(file: str | os.PathLike[str] | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture as RGB, upright.

    EXIF orientation is applied, transparency is laid on white, 16-bit grey becomes 8-bit. Of an animation or a file of
    several pages the first is read, with one :class:`ImageWarning`.

    Args:
        file: Path or open binary file: BMP, GIF, JPEG, PNG, PPM, TIFF or WebP.
        max_pixels: A larger picture is an error, found before its pixels are decoded.

    Returns:
        A Pillow image of mode RGB, without metadata.

    Raises:
        OSError: The file cannot be opened.
        ImageError: It is not an image, broken, truncated or larger than ``max_pixels``.
    """
    if not isinstance(file, (str, os.PathLike)):
        return _read(file, str(getattr(file, "name", "image")), max_pixels)
    with open(file, "rb") as opened:
        return _read(opened, os.fspath(file), max_pixels)


def image_to_tensor(image: Image.Image) -> Tensor:
    """float32 ``(3, H, W)`` in [0, 1] from a Pillow image.

    >>> image_to_tensor(Image.new("RGB", (2, 1), (255, 0, 51)))[:, 0, 0]
    tensor([1.0000, 0.0000, 0.2000])
    """
    pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1).contiguous().float().div_(255)


def _read(file: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    try:
        with Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ImageError(f"{name}: expected at most {max_pixels} pixels, got {image.width} x {image.height}")
            if getattr(image, "is_animated", False) and image.format != "MPO":  # that is a photograph with previews
                warnings.warn(f"{name}: has several frames, only the first is read", ImageWarning, stacklevel=3)
            image.load()
            picture = _rgb(_upright(image), name)
            picture.info.clear()  # an orientation that is still there would be applied twice
            return picture
    except (ImageError, MemoryError, ImageWarning):
        raise
    except UnidentifiedImageError:
        known = ", ".join(_FORMATS)
        raise ImageError(f"{name}: not an image ({known}), or truncated within its header") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: expected at most {max_pixels} pixels, got more than {MAX_PIXELS}") from None
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise ImageError(f"{name}: broken or truncated image: {str(error) or type(error).__name__}") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # unreadable EXIF data beside good pixels
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        raise ImageError(f"{name}: expected integer pixels, got floating point, whose range is not known")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) // 257
        image = Image.fromarray(grey.astype(np.uint8))
    if image.has_transparency_data:
        front = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front)
    return image.convert("RGB")
