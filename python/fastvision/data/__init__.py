"""Data: images from files, and a small data set that needs no download."""

from .digits_on_photos import DigitsOnPhotos
from .images import IMAGE_EXTENSIONS, MAX_PIXELS, ImageError, ImageWarning, image_to_tensor, load_image

__all__ = [
    "IMAGE_EXTENSIONS",
    "MAX_PIXELS",
    "DigitsOnPhotos",
    "ImageError",
    "ImageWarning",
    "image_to_tensor",
    "load_image",
]
