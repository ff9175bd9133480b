"""fastvision: fast, exact and crash-proof computer vision ops for PyTorch, and the models built from them."""

from . import ops
from ._lib import build_info, has_cuda

__version__ = "0.1.0"

__all__ = ["__version__", "build_info", "has_cuda", "ops"]
