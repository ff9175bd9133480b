import contextlib
import io
import random
import warnings

import numpy as np
import pytest
import torch
from fastvision.data import ImageError, ImageWarning, image_to_tensor, load_image
from PIL import Image


def noise(width=24, height=16, mode="RGB"):
    bands = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, *bands), dtype=np.uint8)
    return Image.fromarray(pixels, mode)


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_every_format(kind, tmp_path):
    path = tmp_path / "image"  # the name does not matter
    path.write_bytes(encoded(noise(), kind))
    image = load_image(path)
    assert image.mode == "RGB"
    assert image.size == (24, 16)
    assert image_to_tensor(image).shape == (3, 16, 24)
    with open(path, "rb") as file:
        assert load_image(file) == image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_equals_the_rotated_picture(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    raw = encoded(noise(), kind, exif=exif.tobytes(), **options)
    stored = np.asarray(Image.open(io.BytesIO(raw)) if kind == "JPEG" else noise())
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]
    np.testing.assert_array_equal(np.asarray(load_image(io.BytesIO(raw))), turned)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01"]
)
def test_unreadable_exif_data_is_ignored(exif):
    raw = encoded(noise(), "JPEG", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow may say that the data are corrupt
        assert load_image(io.BytesIO(raw)) == load_image(io.BytesIO(encoded(noise(), "JPEG")))


def test_unknown_orientations_are_ignored():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert load_image(io.BytesIO(encoded(noise(), "PNG", exif=exif.tobytes()))) == noise()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_metadata_do_not_outlive_their_use(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = load_image(io.BytesIO(encoded(noise(), kind, exif=exif.tobytes(), dpi=(72, 72))))
    assert image.info == {}
    assert not image.getexif()  # or the next reader would turn the picture once more


def test_modes_become_rgb():
    assert load_image(io.BytesIO(encoded(noise(mode="L"), "PNG"))) == noise(mode="L").convert("RGB")
    clear = Image.new("RGBA", (3, 3), (0, 0, 0, 0))
    assert load_image(io.BytesIO(encoded(clear, "PNG"))).getpixel((0, 0)) == (255, 255, 255)
    deep = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    loaded = load_image(io.BytesIO(encoded(deep, "PNG")))
    assert [loaded.getpixel((x, 0))[0] for x in range(3)] == [0, 1, 255]
    with pytest.raises(ImageError, match="floating point"):
        load_image(io.BytesIO(encoded(Image.new("F", (2, 2)), "TIFF")))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_of_many_frames_the_first_with_one_warning(kind):
    frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in range(0, 250, 50)]
    options = {"lossless": True} if kind == "WEBP" else {}
    raw = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with pytest.warns(ImageWarning, match="only the first") as caught:
        image = load_image(io.BytesIO(raw))
    assert len(caught) == 1
    assert image.getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_frames_are_not_counted(kind, tmp_path, monkeypatch):
    """There may be ten thousand."""
    frames = [Image.new("L", (1, 1), shade) for shade in range(100)]
    frames[0].save(tmp_path / kind, kind, save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / kind) as image:
        reader = type(image)
    seek, steps = reader._seek, []

    def counted(self, frame, *rest):
        steps.append(frame)
        return seek(self, frame, *rest)

    monkeypatch.setattr(reader, "_seek", counted)
    with pytest.warns(ImageWarning):
        load_image(tmp_path / kind)
    assert max(steps) <= 1
    with Image.open(tmp_path / kind) as image:
        assert image.n_frames == 100
    assert max(steps) >= 99


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_truncated_files_are_errors(kind, tmp_path):
    whole = encoded(noise(64, 48), kind)
    path = tmp_path / "cut"
    for length in {0, 1, 4, 20, *range(50, len(whole) * 9 // 10, max(1, len(whole) // 60))}:
        path.write_bytes(whole[:length])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ImageError, match=r"cut: .*truncated"):
                load_image(path)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_damaged_files_give_an_image_or_an_image_error(kind):
    whole = encoded(noise(64, 48), kind)
    choose = random.Random(kind)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(choose.randint(1, 8)):
            damaged[choose.randrange(min(len(damaged), choose.choice([40, 400, 10**9])))] = choose.randrange(256)
        with warnings.catch_warnings(), contextlib.suppress(ImageError):
            warnings.simplefilter("ignore")
            assert load_image(io.BytesIO(damaged)).mode == "RGB"


def test_sizes():
    with pytest.raises(ImageError, match=r"at most 100 pixels, got 24 x 16"):
        load_image(io.BytesIO(encoded(noise(), "PNG")), max_pixels=100)
    # A header that promises 60000 x 60000 pixels is refused before they are decoded.
    bomb = bytearray(encoded(Image.new("L", (1, 1)), "BMP"))
    bomb[18:26] = (60_000).to_bytes(4, "little") * 2
    with pytest.raises(ImageError, match="at most 178956970 pixels"):
        load_image(io.BytesIO(bomb))


def test_no_image(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        load_image(tmp_path / "missing.png")
    for data in (b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n"):
        with pytest.raises(ImageError, match="not an image"):
            load_image(io.BytesIO(data))


def test_image_to_tensor():
    image = noise()
    tensor = image_to_tensor(image)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    np.testing.assert_array_equal((tensor * 255).round().byte().permute(1, 2, 0).numpy(), np.asarray(image))
