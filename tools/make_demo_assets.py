"""Builds the assets of fastvision.data.DigitsOnPhotos from scikit-learn's digits and scikit-image's photographs.

    pip install scikit-image==0.26.0 scikit-learn==1.9.1
    python tools/make_demo_assets.py [--check]

Only photographs that their authors gave to the public domain or under CC0 are taken: assets/LICENSES.md lists them.
With --check nothing is written; the exit code is 1 if a file would come out differently.
"""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image
from sklearn.datasets import load_digits

ASSETS = Path(__file__).parents[1] / "python/fastvision/data/assets"
SHORT_SIDE = 224
TRAIN = ("astronaut", "brick", "camera", "chelsea", "clock", "gravel", "rocket")
TEST = ("coffee", "grass", "hubble_deep_field", "retina")


def photo(name: str) -> bytes:
    image = Image.fromarray(getattr(skimage.data, name)())
    factor = SHORT_SIDE / min(image.size)
    small = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    # Without chroma subsampling, whose interpolation differs among decoders: every decoder gives the same pixels.
    small.save(out, "JPEG", quality=78, subsampling=0, optimize=True)
    return out.getvalue()


def digits() -> bytes:
    data = load_digits()
    out = io.BytesIO()
    np.savez_compressed(out, images=data.images.astype(np.uint8), labels=data.target.astype(np.uint8))
    return out.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the assets of DigitsOnPhotos.")
    parser.add_argument("--check", action="store_true", help="compare with the files that are there")
    check = parser.parse_args().check
    files = {ASSETS / "digits.npz": digits()}
    files |= {
        ASSETS / split / f"{name}.jpg": photo(name)
        for split, names in (("train", TRAIN), ("test", TEST))
        for name in names
    }
    different = 0
    for path, data in files.items():
        if check:
            same = path.is_file() and path.read_bytes() == data
            different += not same
            print("same     " if same else "DIFFERENT", path.relative_to(ASSETS))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    print(f"{len(files)} files, {sum(map(len, files.values()))} bytes")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
