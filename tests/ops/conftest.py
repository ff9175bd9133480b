"""Fixtures of the ops' tests."""

import pytest
import torch
from fastvision.ops import _dispatch


@pytest.fixture
def vectors_of_16_bits(monkeypatch):
    """On every processor algorithm="auto" chooses as on one that multiplies them."""
    for dtype in (torch.bfloat16, torch.float16):
        monkeypatch.setitem(_dispatch._PRODUCT, dtype, 0.5)
