"""Thin models on the ops of fastvision, one file per family, in the order of the paper."""

from . import classification, detection

__all__ = ["classification", "detection"]
